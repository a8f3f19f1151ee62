// SPDX-License-Identifier: Apache-2.0
// checks.cpp: see checks.h. The only file that words an error of a torch operator.
#include "checks.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <stdexcept>
#include <vector>

#include "pennyweight/cuda.h"
#include "place.h"

namespace pennyweight::torch_ops {
namespace {

std::string text(const Name& name) { return name.tensor; }

std::string join(torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  std::string out = "[";
  for (size_t i = 0; i < sizes.size(); ++i) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + "]";
}

std::string join(const std::vector<int64_t>& sizes) {
  return join(torch::headeronly::IntHeaderOnlyArrayRef(sizes.data(), sizes.size()));
}

const char* dtype_name(ScalarType t) {
  switch (t) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Bool:
      return "bool";
    case ScalarType::Float8_e4m3fn:
      return "float8_e4m3fn";
    default:
      return "another dtype";
  }
}

std::string came(const Name& name, const Tensor& t) { return "; got " + text(name) + ": " + describe(t); }

void check_place(Name name, const Tensor& t) {
  const Place* place = Place::current();
  if (place ? place->has(t) : t.is_cpu()) return;
  const std::string where = place ? place->name() : "the CPU";
  fail_shape(name.op, "all tensors must be on " + where + ", as the first is" + came(name, t) + "; move it with .to()");
}

void check_dtype(Name name, const Tensor& t, ScalarType dtype) {
  check_place(name, t);
  if (t.scalar_type() != dtype)
    fail_shape(name.op, text(name) + " must be " + dtype_name(dtype) + came(name, t) + "; convert it with .to()");
}

void check_matrix(Name name, const Tensor& t) {
  if (t.dim() != 2 || t.size(0) < 1 || t.size(1) < 1)
    fail_shape(name.op, text(name) + " must have two dimensions, neither empty" + came(name, t));
}

// Whether all dimensions but the last can be walked with one stride; which one is written to *stride.
bool evenly_spaced(const Tensor& t, int64_t* stride) {
  const auto sizes = t.sizes(), strides = t.strides();
  const int64_t last = static_cast<int64_t>(sizes.size()) - 1;
  if (sizes[last] != 1 && strides[last] != 1) return false;
  int64_t expected = -1;
  *stride = sizes[last];
  for (int64_t d = last - 1; d >= 0; --d) {
    if (sizes[d] == 1) continue;
    if (expected < 0)
      *stride = strides[d];
    else if (strides[d] != expected)
      return false;
    expected = strides[d] * sizes[d];
  }
  return true;
}

Rows rows_of(Name name, const Tensor& t, DType dtype) {
  const int64_t dims = t.dim();
  if (dims < 1 || t.size(dims - 1) < 1)
    fail_shape(name.op, text(name) + " must be (..., K) with K of at least 1" + came(name, t));
  Rows out{t, nullptr, 0, t.size(dims - 1), 0, dtype};
  out.rows = t.numel() / out.columns;
  if (!evenly_spaced(t, &out.stride)) {
    out.tensor = torch::stable::contiguous(t);
    out.stride = out.columns;
  }
  out.data = out.tensor.const_data_ptr();
  return out;
}

Dense dense(const Tensor& t) {
  Dense out{t.is_contiguous() ? t : torch::stable::contiguous(t)};
  out.data = out.tensor.const_data_ptr();
  return out;
}

// One call's tasks, cut into a run of neighbours per thread. Who is done with its own helps with the others', so that a
// thread which the system stops for a while, or a slower core, costs what it did not do and not its whole share.
class Tasks {
 public:
  Tasks(int64_t count, int64_t threads, void (*run)(void*, int64_t), void* arg) : run_(run), arg_(arg), runs_(threads) {
    for (int64_t t = 0; t < threads; ++t) {
      runs_[t].next = count * t / threads;
      runs_[t].end = count * (t + 1) / threads;
    }
  }
  // A task that runs out of memory is reported as such; torch's shim would turn it into a message without content.
  void work(int64_t thread) {
    const int64_t threads = static_cast<int64_t>(runs_.size());
    try {
      for (int64_t t = 0; t < threads; ++t) {
        Run& run = runs_[(thread + t) % threads];
        for (int64_t i; (i = run.next.fetch_add(1, std::memory_order_relaxed)) < run.end;) run_(arg_, i);
      }
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;
    }
  }
  bool out_of_memory() const { return out_of_memory_; }

 private:
  struct alignas(64) Run {
    std::atomic<int64_t> next;
    int64_t end;
  };
  void (*run_)(void*, int64_t);
  void* arg_;
  std::vector<Run> runs_;
  std::atomic<bool> out_of_memory_{false};
};

void torch_parallel(void*, int64_t count, void (*run)(void*, int64_t), void* arg) {
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  Tasks tasks(count, threads, run, arg);
  torch::stable::parallel_for(0, threads, 1, [&tasks](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) tasks.work(t);
  });
  if (tasks.out_of_memory()) throw std::bad_alloc();
}

}  // namespace

void fail_shape(const char* op, const std::string& text) {
  throw std::runtime_error("[pw:shape] " + std::string(op) + ": " + text);
}
void fail_unsupported(const char* op, const std::string& text) {
  throw std::runtime_error("[pw:unsupported] " + std::string(op) + ": " + text);
}

std::string describe(const Tensor& t) {
  return join(t.sizes()) + " " + dtype_name(t.scalar_type()) +
         (t.is_cpu()    ? " cpu"
          : t.is_cuda() ? " cuda:" + std::to_string(t.get_device_index())
                        : "");
}

std::vector<int64_t> Rows::shape(int64_t last) const {
  const auto sizes = tensor.sizes();
  std::vector<int64_t> out(sizes.begin(), sizes.end());
  out.back() = last;
  return out;
}

DType dtype_of(Name name, const Tensor& t) {
  check_place(name, t);
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return DType::f32;
    case ScalarType::Half:
      return DType::f16;
    case ScalarType::BFloat16:
      return DType::bf16;
    default:
      fail_shape(name.op,
                 text(name) + " must be float32, float16 or bfloat16" + came(name, t) + "; convert it with .to()");
  }
}

ScalarType scalar_type_of(DType t) {
  switch (t) {
    case DType::f32:
      return ScalarType::Float;
    case DType::f16:
      return ScalarType::Half;
    case DType::bf16:
      return ScalarType::BFloat16;
    case DType::i8:
      return ScalarType::Char;
    case DType::u8:
      return ScalarType::Byte;
    default:
      return ScalarType::Int;
  }
}

Rows float_rows(Name name, const Tensor& t) { return rows_of(name, t, dtype_of(name, t)); }

Rows code_rows(Name name, const Tensor& t, ScalarType dtype) {
  check_dtype(name, t, dtype);
  return rows_of(name, t, dtype == ScalarType::Char ? DType::i8 : DType::u8);
}

Rows bf16_rows(Name name, const Tensor& t) {
  check_dtype(name, t, ScalarType::BFloat16);
  return rows_of(name, t, DType::bf16);
}

Rows same_rows(Name name, const Tensor& t, const Rows& like) {
  check_dtype(name, t, scalar_type_of(like.dtype));
  const auto want = like.shape(like.columns);
  const auto sizes = t.sizes();
  if (std::vector<int64_t>(sizes.begin(), sizes.end()) != want)
    fail_shape(name.op, text(name) + " must be " + join(want) + ", as x is" + came(name, t));
  return rows_of(name, t, like.dtype);
}

Rows rows_for_each(Name name, const Tensor& t, const Rows& like) {
  check_dtype(name, t, scalar_type_of(like.dtype));
  const Rows out = rows_of(name, t, like.dtype);
  if (out.rows != 1 && out.rows != like.rows)
    fail_shape(name.op,
               text(name) + " must have one row, or as many as x (" + std::to_string(like.rows) + ")" + came(name, t));
  return out;
}

void check_rotary(const char* op, const Rows& x, const Rows& cos, const Rows& sin) {
  const int64_t d = cos.columns;
  if (d != sin.columns || d % 2 != 0 || x.columns % d != 0)
    fail_shape(op, "cos and sin must be (..., D) with D even, and x (..., heads * D); got x: " + describe(x.tensor) +
                       ", cos: " + describe(cos.tensor) + ", sin: " + describe(sin.tensor) +
                       "; part of a head cannot be rotated alone");
}

Cached cached(Name name, const Tensor& t, const Rows& like) {
  check_dtype(name, t, scalar_type_of(like.dtype));
  if (t.dim() != 4 || t.numel() == 0)
    fail_shape(name.op, text(name) + " must be (B, kv_heads, T, D), none empty" + came(name, t));
  const Tensor held = t.size(3) == 1 || t.stride(3) == 1 ? t : torch::stable::contiguous(t);
  return {held,      held.const_data_ptr(), t.size(0),      t.size(1),     t.size(2),
          t.size(3), held.stride(0),        held.stride(1), held.stride(2)};
}

void check_attention(const char* op, const Rows& q, const Cached& keys, const Cached& values) {
  const auto k = keys.tensor.sizes(), v = values.tensor.sizes();
  const int64_t heads = q.columns / keys.columns;
  if (std::vector<int64_t>(k.begin(), k.end()) == std::vector<int64_t>(v.begin(), v.end()) && q.rows == keys.batch &&
      q.columns % keys.columns == 0 && heads % keys.heads == 0)
    return;
  fail_shape(op,
             "q must be (B, heads * D), keys and values (B, kv_heads, T, D), heads a multiple of kv_heads; got q: " +
                 describe(q.tensor) + ", keys: " + describe(keys.tensor) + ", values: " + describe(values.tensor) +
                 "; only one token per sequence is decoded at a time");
}

Rows mask_rows(Name name, const Tensor& t, const Cached& keys) {
  check_dtype(name, t, ScalarType::Bool);
  if (t.dim() != 2 || t.size(0) != keys.batch || t.size(1) != keys.tokens)
    fail_shape(name.op, text(name) + " must be (B, T) as keys are, " + std::to_string(keys.batch) + " by " +
                            std::to_string(keys.tokens) + came(name, t));
  return rows_of(name, t, DType::u8);
}

int64_t outputs_of(Name weight, const std::string& scheme, bool col_scale, const std::vector<int64_t>& form) {
  if (form.size() != 3 || form[0] < 1)
    fail_shape(weight.op, text(weight) + ": its form must be N of at least 1, the group size, and whether there are " +
                              "zero points; got " + join(form));
  if ((scheme == "int4") == col_scale)
    fail_shape(weight.op, text(weight) +
                              ": schemes 'int8' and 'fp8' need col_scale, and 'int4' has its scales in the " +
                              "weight; got '" + scheme + "' and col_scale: " + (col_scale ? "given" : "None"));
  return form[0];
}

void check_joint(const char* op, const Rows& cos, const Rows& sin, int64_t n, int64_t heads, int64_t kv_heads,
                 int64_t values_begin) {
  const int64_t d = cos.columns;
  if (d == sin.columns && d % 2 == 0 && heads > 0 && kv_heads > 0 && (heads + kv_heads) * d <= values_begin &&
      values_begin + kv_heads * d <= n)
    return;
  fail_shape(op,
             "cos and sin must be (..., D) with D even, and the layer's N outputs hold heads * D of q, then "
             "kv_heads * D of k, and as many of v from values_begin on; got cos: " +
                 describe(cos.tensor) + ", sin: " + describe(sin.tensor) + ", N=" + std::to_string(n) +
                 ", heads=" + std::to_string(heads) + ", kv_heads=" + std::to_string(kv_heads) +
                 ", values_begin=" + std::to_string(values_begin));
}

void check_block(const char* op, const Rows& q, const Rows& residual, int64_t o, int64_t gate_up, int64_t intermediate,
                 int64_t down) {
  if (q.rows == residual.rows && q.dtype == residual.dtype && o == residual.columns && down == residual.columns &&
      gate_up % 2 == 0 && 0 < intermediate && intermediate <= gate_up / 2)
    return;
  fail_shape(op,
             "residual must have q's rows and dtype, o and down its columns as outputs, and gate|up two halves of "
             "at least `intermediate`; got q: " +
                 describe(q.tensor) + ", residual: " + describe(residual.tensor) +
                 ", N of o, gate|up and down: " + std::to_string(o) + ", " + std::to_string(gate_up) + ", " +
                 std::to_string(down) + ", intermediate=" + std::to_string(intermediate));
}

void check_weight(const char* op, const Tensor& x, const Tensor& weight) {
  check_matrix({op, "weight"}, weight);
  if (weight.size(1) != x.size(x.dim() - 1))
    fail_shape(op, "x (..., K) and weight (N, K) must have the same K; got x: " + describe(x) +
                       ", weight: " + describe(weight) + "; pass the weight as nn.Linear holds it");
}

int64_t half_of(Name name, const Rows& rows) {
  if (rows.columns % 2 != 0)
    fail_shape(name.op, text(name) + " must be (..., 2K): gate, then up" + came(name, rows.tensor));
  return rows.columns / 2;
}

Dense matrix(Name name, const Tensor& t, ScalarType dtype) {
  check_dtype(name, t, dtype);
  check_matrix(name, t);
  return dense(t);
}

Dense float_matrix(Name name, const Tensor& t) {
  dtype_of(name, t);
  check_matrix(name, t);
  return dense(t);
}

Dense vector(Name name, const Tensor& t, ScalarType dtype, int64_t length) {
  check_dtype(name, t, dtype);
  if (t.numel() != length)
    fail_shape(name.op, text(name) + " must have " + std::to_string(length) + " elements" + came(name, t));
  return dense(t);
}

Dense vector(Name name, const MaybeTensor& t, ScalarType dtype, int64_t length) {
  return t ? vector(name, *t, dtype, length) : Dense{};
}

Dense sized(Name name, const Tensor& t, ScalarType dtype, int64_t rows, int64_t columns) {
  return shaped(name, t, dtype, {rows, columns});
}

Dense shaped(Name name, const Tensor& t, ScalarType dtype, const std::vector<int64_t>& shape) {
  check_dtype(name, t, dtype);
  const auto sizes = t.sizes();
  if (std::vector<int64_t>(sizes.begin(), sizes.end()) != shape)
    fail_shape(name.op, text(name) + " must be " + join(shape) + came(name, t));
  return dense(t);
}

Dense packed(Name name, const Tensor& t, int64_t bytes, int64_t n, int64_t k) {
  check_dtype(name, t, ScalarType::Byte);
  if (t.dim() != 1 || t.numel() != bytes)
    fail_shape(name.op, text(name) + " must be the " + std::to_string(bytes) +
                            " bytes that pack_* makes of N=" + std::to_string(n) + ", K=" + std::to_string(k) +
                            came(name, t) + "; pack it anew, or pass the shape and group size it was packed with");
  return dense(t);
}

int64_t code_bytes(int64_t n, int64_t k) {
  const Place* place = Place::current();
  return place && place->is_card() ? code_rows_bytes(n, k) : int8_panel_bytes(n, k);  // FP8 panels have the same size
}

void* in_place(Name name, const Tensor& t, const std::vector<int64_t>& shape, ScalarType dtype) {
  check_dtype(name, t, dtype);
  const auto sizes = t.sizes();
  if (!t.is_contiguous() || std::vector<int64_t>(sizes.begin(), sizes.end()) != shape)
    fail_shape(name.op, text(name) + " is written in place and must be " + join(shape) + ", contiguous" +
                            came(name, t) + (t.is_contiguous() ? "" : " with strides " + join(t.strides())));
  return t.mutable_data_ptr();
}

DType out_dtype_of(const char* op, ScalarType t, bool int32_too) {
  if (t == ScalarType::Float) return DType::f32;
  if (t == ScalarType::Half) return DType::f16;
  if (t == ScalarType::BFloat16) return DType::bf16;
  if (t == ScalarType::Int && int32_too) return DType::i32;
  fail_unsupported(op, std::string("out_dtype must be float32, float16") +
                           (int32_too ? ", bfloat16 or int32" : " or bfloat16") + "; got " + dtype_name(t));
}

void check_epilogue(const char* op, DType out, bool row_scale, bool col_scale, bool bias) {
  const std::string got = std::string("; got row_scale: ") + (row_scale ? "given" : "None") +
                          ", col_scale: " + (col_scale ? "given" : "None") + ", bias: " + (bias ? "given" : "None");
  if (out == DType::i32 && (row_scale || col_scale || bias))
    fail_shape(op, "out_dtype int32 gives the bare accumulators and takes no scales and no bias" + got);
  if (out != DType::i32 && !(row_scale && col_scale))
    fail_shape(op, "a floating out_dtype needs row_scale and col_scale" + got);
}

void check_positive(const char* op, const char* argument, int64_t value) {
  if (value < 1) fail_shape(op, std::string(argument) + " must be at least 1; got " + std::to_string(value));
}

void check_within(const char* op, const char* argument, int64_t value, int64_t end) {
  if (value < 0 || value >= end)
    fail_shape(op,
               std::string(argument) + " must lie in 0.." + std::to_string(end - 1) + "; got " + std::to_string(value));
}

void check_layers(Name name, const Tensor& t) {
  if (t.dim() != 3 || t.numel() == 0)
    fail_shape(name.op, text(name) + " must have three dimensions, none empty" + came(name, t));
}

int64_t group_of(const char* op, int64_t group_size, int64_t k, bool any) {
  if (group_size == -1 || group_size == k) return k;
  const std::string got = "; got K=" + std::to_string(k) + ", group_size=" + std::to_string(group_size);
  if (!any && group_size != 32 && group_size != 64 && group_size != 128)
    fail_unsupported(op, "group_size must be 32, 64, 128, or -1 (one scale per channel)" + got);
  if (group_size < 1 || k % group_size != 0)
    fail_shape(op, "K must be a multiple of group_size" + got +
                       "; use group_size=-1 (one scale per channel), or leave this layer out with ignore=");
  return group_size;
}

int64_t group_of_scales(const char* op, int64_t k, int64_t groups) {
  if (k % groups != 0)
    fail_shape(op, "K must be a multiple of the number of groups; got K=" + std::to_string(k) + ", scales for " +
                       std::to_string(groups) +
                       " groups; use one scale per channel, or leave this layer out with ignore=");
  return k / groups;
}

int64_t format_of(const char* op, const std::string& scheme) {
  if (scheme == "int8") return 8;
  if (scheme == "int4") return 4;
  if (scheme == "fp8") return 0;
  fail_unsupported(op, "scheme must be 'int8', 'int4' or 'fp8'; got '" + scheme + "'");
}

bool is_mse(const char* op, const std::string& observer) {
  if (observer != "mse" && observer != "minmax")
    fail_unsupported(op, "observer must be 'minmax' or 'mse'; got '" + observer + "'");
  return observer == "mse";
}

void check_bits(const char* op, int64_t bits) {
  if (bits != 8 && bits != 4) fail_unsupported(op, "bits must be 8 or 4; got " + std::to_string(bits));
}

void check_damping(const char* op, double damping) {
  if (!(damping >= 0.0 && std::isfinite(damping)))
    fail_shape(op, "damping must be finite and not negative; got " + std::to_string(damping) + "; 0.01 is usual");
}

void check_search(const char* op, int64_t grid, double maxshrink, double norm, int64_t patience) {
  check_positive(op, "grid", grid);
  check_positive(op, "patience", patience);
  if (!(maxshrink > 0.0 && maxshrink < 1.0))
    fail_shape(op, "maxshrink must lie between 0 and 1; got " + std::to_string(maxshrink));
  if (!(norm > 0.0 && std::isfinite(norm)))
    fail_shape(op, "norm must be positive and finite; got " + std::to_string(norm));
}

void check_strength(const char* op, double strength) {
  if (!(strength >= 0.0 && strength <= 1.0))
    fail_shape(op, "strength must lie in 0..1; got " + std::to_string(strength));
}

DType scale_dtype_of(const char* op, const std::string& name) {
  if (name == "bf16") return DType::bf16;
  if (name == "f16") return DType::f16;
  if (name == "f32") return DType::f32;
  fail_unsupported(op, "scale_dtype must be 'bf16', 'f16' or 'f32'; got '" + name + "'");
}

Int4Panel int4_panel(const char* op, int64_t n, int64_t k, int64_t group_size, const std::string& scale_dtype,
                     bool zero_points) {
  check_positive(op, "n", n);
  check_positive(op, "k", k);
  return {n, k, group_of(op, group_size, k, false), scale_dtype_of(op, scale_dtype), zero_points};
}

// Through the C interface: torch::stable::new_empty finds its operator by name, which takes longer than a small kernel.
Tensor make(const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0; stride *= std::max<int64_t>(shape[i], 1)) strides[i] = stride;
  int32_t device = 0;
  AtenTensorHandle out = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(),
                                                         strides.data(), code, device,
                                                         static_cast<int32_t>(like.get_device_index()), &out));
  return Tensor(out);
}

namespace {

[[noreturn]] void fail(const Status& status) {
  const char* tag = status.code == Code::shape         ? "[pw:shape] "
                    : status.code == Code::memory      ? "[pw:memory] "
                    : status.code == Code::interrupted ? "[pw:interrupted] "
                    : status.code == Code::device      ? "[pw:device] "
                                                       : "[pw:unsupported] ";
  throw std::runtime_error(std::string(tag) + status.message);
}

// In torch's current stream; the workspace is torch's, so that it lives in that stream and in a captured graph.
void run_on_card(OpId id, const void* op, const Place& place) {
  CudaCall call{};
  if (const Status status = find_card(place.index(), &call.card); status.code != Code::ok) fail(status);
  call.stream = place.stream();
  std::optional<Tensor> workspace;
  if (const int64_t bytes = cuda_workspace_bytes(id, op, call.card)) {
    workspace = make(place.first(), {bytes}, ScalarType::Byte);
    call.workspace = data(*workspace);
  }
  if (const Status status = run_cuda(id, op, call); status.code != Code::ok) fail(status);
}

}  // namespace

void run_on_torch(OpId id, const void* op) {
  if (const Place* place = Place::current(); place && place->is_card()) return run_on_card(id, op, *place);
  Executor executor;
  executor.parallel = torch_parallel;
  executor.threads = static_cast<int>(torch::stable::get_num_threads());
  if (const Status status = run(id, op, executor); status.code != Code::ok) fail(status);
}

}  // namespace pennyweight::torch_ops
