// SPDX-License-Identifier: Apache-2.0
// ops_decode.cpp: a decoder block while one token per sequence is decoded, as two torch operators, on the CPU.
//
//   decode_front   norm, quantize ─▶ q|k|v ─▶ rotary
//   decode_back    attention ─▶ o ─▶ + , norm, quantize ─▶ gate|up ─▶ silu · up, quantize ─▶ down
//
// Between them the caller's cache takes keys and values. Each runs the ops of the kernel library one after the other on
// one workspace: bit for bit what the torch operators of these names give, without eleven calls from Python.
#include <cstring>
#include <tuple>

#include "checks.h"
#include "ops_attention.h"
#include "pennyweight/linear.h"
#include "pennyweight/quantize.h"

namespace pennyweight::torch_ops {
namespace {

// Memory that is handed out once, from the beginning, and lives as long as this.
class Workspace {
 public:
  Workspace(const Tensor& like, int64_t size)
      : tensor_(make(like, {size}, ScalarType::Byte)), next_(data<char>(tensor_)) {}
  static int64_t bytes(int64_t wanted) { return round_up(wanted, 64); }  // torch's memory begins a cache line
  void* take(int64_t wanted) {
    void* out = next_;
    next_ += bytes(wanted);
    return out;
  }

 private:
  Tensor tensor_;
  char* next_;
};

// Rows that one op leaves and the next one reads, with a scale each where they are codes.
struct Activations {
  void* data;
  float* scale;
  int64_t stride;

  static int64_t bytes(int64_t m, int64_t k) { return Workspace::bytes(m * k * 4) + Workspace::bytes(m * 4); }
  Activations(Workspace& workspace, int64_t m, int64_t k)
      : data(workspace.take(m * k * 4)), scale(static_cast<float*>(workspace.take(m * 4))), stride(k) {}
};

// A quantized layer as the operators take it, in the order of its arguments.
struct LayerArguments {
  const char* name;           // for errors: what the weight is called
  const std::string& scheme;  // "int8", "fp8" or "int4"
  const Tensor& weight;
  const MaybeTensor& col_scale;      // of int8 and fp8
  const std::string& scale_dtype;    // of int4
  const std::vector<int64_t>& form;  // n, group size, whether there are zero points
  const MaybeTensor& bias;
};

// The layer for inputs of k elements of `dtype`.
class Layer {
 public:
  Layer(const char* op, const LayerArguments& given, int64_t k, DType dtype)
      : format_(format_of(op, given.scheme)),
        n_(outputs_of({op, given.name}, given.scheme, given.col_scale.has_value(), given.form)),
        k_(k),
        dtype_(dtype) {
    if (takes_codes()) {
      scale_ = vector({op, "col_scale"}, *given.col_scale, ScalarType::Float, n_);
      weight_ = packed({op, given.name}, given.weight, code_bytes(n_, k_), n_, k_);
    } else {
      panel_ = int4_panel(op, n_, k_, given.form[1], given.scale_dtype, given.form[2] != 0);
      weight_ = packed({op, given.name}, given.weight, panel_.bytes(), n_, k_);
    }
    bias_ = vector({op, "bias"}, given.bias, scalar_type_of(dtype), n_);
  }

  int64_t n() const { return n_; }
  bool takes_codes() const { return format_ != kInt4; }

  // y (m, n) = the layer of rows, which are codes where it takes them.
  void run(const Activations& rows, int64_t m, void* y) const {
    if (format_ == kInt8) return on_codes<GemmW8A8Int8>(rows, m, y);
    if (format_ == kFp8) return on_codes<GemmW8A8Fp8>(rows, m, y);
    LinearW4A16 op{};
    op.group_size = panel_.group_size;
    op.zero_points = panel_.zero_points;
    op.scale_dtype = panel_.scale_dtype;
    on_floats(op, rows, m, y);
  }
  // The same, of rows that nobody has quantized.
  void quantize_and_run(const Activations& rows, int64_t m, void* y) const {
    if (format_ == kInt4) return run(rows, m, y);
    if (format_ == kInt8) return on_floats_by_scale<LinearW8A8Int8>(rows, m, y);
    on_floats_by_scale<LinearW8A8Fp8>(rows, m, y);
  }

  // out = what this layer takes of norm(x + residual); hidden = x + residual, where there is one.
  void norm(const RmsNorm& from, const Activations& out) const {
    if (format_ == kInt8) return norm_quantize<RmsNormQuantizeInt8>(from, out);
    if (format_ == kFp8) return norm_quantize<RmsNormQuantizeFp8>(from, out);
    RmsNorm op = from;
    op.normed = out.data;
    run_on_torch(op);
  }
  // out = what this layer takes of silu(gate) * up.
  void silu(const void* gate_up, int64_t m, const Activations& out) const {
    if (format_ == kInt8) return silu_quantize<SiluMulQuantizeInt8>(gate_up, m, out);
    if (format_ == kFp8) return silu_quantize<SiluMulQuantizeFp8>(gate_up, m, out);
    SiluMul op{};
    op.y = out.data;
    silu_op(op, gate_up, m, out);
  }

 private:
  static constexpr int64_t kInt8 = 8, kInt4 = 4, kFp8 = 0;  // as format_of counts them

  template <class Op>
  void on_codes(const Activations& rows, int64_t m, void* y) const {
    Op op{};
    op.codes = rows.data;
    op.row_scale = rows.scale;
    op.col_scale = scale_.as<float>();
    op.codes_stride = rows.stride;
    op.y_dtype = dtype_;
    multiply(op, m, y);
  }
  template <class Op>
  void on_floats_by_scale(const Activations& rows, int64_t m, void* y) const {
    Op op{};
    op.col_scale = scale_.as<float>();
    on_floats(op, rows, m, y);
  }
  template <class Op>
  void on_floats(Op& op, const Activations& rows, int64_t m, void* y) const {
    op.x = rows.data;
    op.x_stride = rows.stride;
    op.x_dtype = dtype_;
    multiply(op, m, y);
  }
  template <class Op>
  void multiply(Op& op, int64_t m, void* y) const {
    op.weight = weight_.data;
    op.bias = bias_.data;
    op.y = y;
    op.m = m;
    op.n = op.y_stride = n_;
    op.k = k_;
    run_on_torch(op);
  }
  template <class Op>
  static void norm_quantize(const RmsNorm& from, const Activations& out) {
    Op op{};
    op.x = from.x;
    op.residual = from.residual;
    op.weight = from.weight;
    op.codes = out.data;
    op.scale = out.scale;
    op.hidden = from.hidden;
    op.m = from.m;
    op.k = from.k;
    op.x_stride = from.x_stride;
    op.residual_stride = from.residual_stride;
    op.eps = from.eps;
    op.x_dtype = from.x_dtype;
    run_on_torch(op);
  }
  template <class Op>
  void silu_quantize(const void* gate_up, int64_t m, const Activations& out) const {
    Op op{};
    op.codes = out.data;
    op.scale = out.scale;
    silu_op(op, gate_up, m, out);
  }
  template <class Op>
  void silu_op(Op& op, const void* gate_up, int64_t m, const Activations& out) const {
    op.gate_up = gate_up;
    op.m = m;
    op.k = out.stride;
    op.x_stride = 2 * out.stride;
    op.x_dtype = dtype_;
    run_on_torch(op);
  }

  int64_t format_, n_, k_;
  DType dtype_;
  Int4Panel panel_{};
  Dense weight_, scale_, bias_;
};

RmsNorm norm_of(const Rows& x, const Dense& weight, double eps) {
  RmsNorm op{};
  op.x = x.data;
  op.weight = weight.data;
  op.m = x.rows;
  op.k = x.columns;
  op.x_stride = x.stride;
  op.eps = eps;
  op.x_dtype = x.dtype;
  return op;
}

using Form = std::vector<int64_t>;

std::tuple<Tensor, Tensor, Tensor> decode_front(const Tensor& x, const Tensor& norm_weight, double eps,
                                                const std::string& scheme, const Tensor& weight,
                                                const MaybeTensor& col_scale, const std::string& scale_dtype,
                                                const Form& form, const MaybeTensor& bias, const Tensor& cos,
                                                const Tensor& sin, int64_t heads, int64_t kv_heads,
                                                int64_t values_begin) {
  const char* name = "decode_front";
  const Rows rows = float_rows({name, "x"}, x);
  const Dense gain = vector({name, "norm_weight"}, norm_weight, scalar_type_of(rows.dtype), rows.columns);
  const Layer qkv(name, {"weight", scheme, weight, col_scale, scale_dtype, form, bias}, rows.columns, rows.dtype);
  Turning turning(name, cos, sin, rows);
  const int64_t d = turning.op.d, m = rows.rows, size = dtype_bytes(rows.dtype), n = qkv.n();
  const int64_t q_columns = heads * d, kv_columns = kv_heads * d;
  check_joint(name, turning.cosines, turning.sines, n, heads, kv_heads, values_begin);

  Workspace workspace(x, Activations::bytes(m, rows.columns) + Workspace::bytes(m * n * size));
  const Activations normed(workspace, m, rows.columns);
  char* joint = static_cast<char*>(workspace.take(m * n * size));
  const auto type = scalar_type_of(rows.dtype);
  Tensor q = make(x, rows.shape(q_columns), type), keys = make(x, {m, kv_heads, 1, d}, type);
  Tensor values = make(x, {m, kv_heads, 1, d}, type);
  if (m == 0) return {q, keys, values};

  qkv.norm(norm_of(rows, gain, eps), normed);
  qkv.run(normed, m, joint);
  turning.run(joint, n, heads, data(q));
  turning.run(joint + q_columns * size, n, kv_heads, data(keys));
  for (int64_t b = 0; b < m; ++b)
    std::memcpy(data<char>(values) + b * kv_columns * size, joint + (b * n + values_begin) * size, kv_columns * size);
  return {q, keys, values};
}

std::tuple<Tensor, Tensor> decode_back(
    const Tensor& q, const Tensor& keys, const Tensor& values, double scale, const MaybeTensor& mask,
    const Tensor& residual, const std::string& o_scheme, const Tensor& o_weight, const MaybeTensor& o_col_scale,
    const std::string& o_scale_dtype, const Form& o_form, const MaybeTensor& o_bias, const Tensor& norm_weight,
    double eps, const std::string& up_scheme, const Tensor& up_weight, const MaybeTensor& up_col_scale,
    const std::string& up_scale_dtype, const Form& up_form, const MaybeTensor& up_bias, int64_t intermediate,
    const std::string& down_scheme, const Tensor& down_weight, const MaybeTensor& down_col_scale,
    const std::string& down_scale_dtype, const Form& down_form, const MaybeTensor& down_bias) {
  const char* name = "decode_back";
  Attending attention(name, q, keys, values, scale, mask);
  const Rows& rows = attention.rows;
  const Rows x = float_rows({name, "residual"}, residual);
  const Dense gain = vector({name, "norm_weight"}, norm_weight, scalar_type_of(rows.dtype), x.columns);
  const Layer o(name, {"o_weight", o_scheme, o_weight, o_col_scale, o_scale_dtype, o_form, o_bias}, rows.columns,
                rows.dtype);
  const Layer gate_up(name, {"up_weight", up_scheme, up_weight, up_col_scale, up_scale_dtype, up_form, up_bias},
                      x.columns, rows.dtype);
  const Layer down(name,
                   {"down_weight", down_scheme, down_weight, down_col_scale, down_scale_dtype, down_form, down_bias},
                   intermediate, rows.dtype);
  const int64_t m = rows.rows, size = dtype_bytes(rows.dtype), half = gate_up.n() / 2;
  check_block(name, rows, x, o.n(), gate_up.n(), intermediate, down.n());

  Tensor hidden = make(q, x.shape(x.columns), scalar_type_of(x.dtype));
  Tensor y = make(q, x.shape(x.columns), scalar_type_of(x.dtype));
  if (m == 0) return {hidden, y};
  Workspace workspace(q, Activations::bytes(m, rows.columns) + Workspace::bytes(m * x.columns * size) +
                             Activations::bytes(m, x.columns) + Workspace::bytes(m * gate_up.n() * size) +
                             Activations::bytes(m, half));
  const Activations attended(workspace, m, rows.columns);
  void* projected = workspace.take(m * x.columns * size);
  const Activations normed(workspace, m, x.columns);
  void* joint = workspace.take(m * gate_up.n() * size);
  const Activations product(workspace, m, half);

  attention.run(attended.data);
  o.quantize_and_run(attended, m, projected);
  RmsNorm norm = norm_of(x, gain, eps);
  norm.residual = norm.x;
  norm.residual_stride = norm.x_stride;
  norm.x = projected;
  norm.x_stride = x.columns;
  norm.hidden = data(hidden);
  gate_up.norm(norm, normed);
  gate_up.run(normed, m, joint);
  down.silu(joint, m, product);
  down.run(product, m, data(y));
  return {hidden, y};
}

}  // namespace
}  // namespace pennyweight::torch_ops

STABLE_TORCH_LIBRARY_IMPL(pennyweight, CPU, m) {
  using namespace pennyweight::torch_ops;
  m.impl("decode_front", TORCH_BOX(&decode_front));
  m.impl("decode_back", TORCH_BOX(&decode_back));
}
