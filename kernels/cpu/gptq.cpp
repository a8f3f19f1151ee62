// SPDX-License-Identifier: Apache-2.0
// gptq.cpp: GPTQ's order of work, for any instruction set (gptq.h has the method and the layout).
//
//   1. H, in order of visit, into U's place; the energy of w is taken against it
//   2. damping, factorization, tile row by tile row: subtract what the rows above contribute | factor the diagonal tile
//      | solve the rest of the row; again with ten times the damping where a pivot is not positive
//   3. chunks of rows of W, each alone from the last tile row to the first: a product with all finished columns, then
//      the block's own recurrence
//
// Memory: half of k^2 floats, and per thread a chunk of rows of W. Every number is summed in an order that depends on
// neither threads nor chunks.
#include "gptq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "interrupt.h"
#include "pennyweight/numerics.h"
#include "scratch.h"

namespace pennyweight::cpu {
namespace {

constexpr int64_t kEnergyRows = 256;  // w H w^T is computed for this many rows or a few more, and scaled up to all

// One double per row of W and quantity.
struct RowSums {
  std::vector<double> loss, error, norm, weighted, objective;
  explicit RowSums(int64_t n) : loss(n), error(n), norm(n), weighted(n), objective(n) {}
};

double total(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); }

class Gptq {
 public:
  Gptq(const GptqQuantize& op, const Executor& executor, const GptqKernels& kernels)
      : op_(op), executor_(executor), kernels_(kernels), tiles_((op.k + kTile - 1) / kTile), inverse_(tiles_ * kTile) {
    factor_ = static_cast<float*>(scratch(Slot::factor, tiles_ * (tiles_ + 1) / 2 * kTileFloats * sizeof(float)));
    find_order();
  }

  void run() {
    load_hessian();
    const double sampled_energy = energy();
    double damping = op_.damping;
    bool positive = factor(damping);
    for (int64_t attempt = 0; attempt < op_.retries && !positive; ++attempt) {
      damping *= 10.0;
      load_hessian();
      positive = factor(damping);
    }
    if (!positive) load_hessian();
    RowSums sums(op_.n);
    const int64_t strips = (op_.n + kStrip - 1) / kStrip, chunk = strips >= 64 ? 4 : strips >= 16 ? 2 : 1;
    const int64_t round = chunk * 4 * std::max(executor_.threads, 1);  // chunks are independent: rounds move no bit
    for (int64_t first = 0; first < strips; first += round) {
      stop_if_interrupted();
      parallel_chunks(executor_, std::min(round, strips - first), chunk,
                      [&](int64_t begin, int64_t end) { solve(first + begin, first + end, positive, sums); });
    }
    op_.stats[0] = positive ? damping : -1.0;
    op_.stats[1] = static_cast<double>(std::count(dead_.begin(), dead_.end(), 1));
    op_.stats[2] = positive ? total(sums.loss) - damping * mean_ * total(sums.error) : total(sums.objective);
    double sampled = 0.0;
    for (int64_t n = 0; n < op_.n; n += energy_step()) sampled += sums.weighted[n];
    op_.stats[3] = sampled != 0.0 ? sampled_energy * (total(sums.weighted) / sampled) : 0.0;
    op_.stats[4] = total(sums.norm) > 0.0 ? total(sums.error) / total(sums.norm) : 0.0;
  }

 private:
  float* tile(int64_t a, int64_t b) const {
    return factor_ + (a * tiles_ - a * (a - 1) / 2 + (b - a)) * int64_t{kTileFloats};
  }
  int64_t energy_step() const { return std::max<int64_t>(1, op_.n / kEnergyRows); }

  // column_: place in U -> column of W, from the last visited to the first; place_: the inverse.
  void find_order() {
    const int64_t k = op_.k;
    column_.resize(k);
    std::iota(column_.begin(), column_.end(), 0);
    if (op_.act_order)
      std::stable_sort(column_.begin(), column_.end(),
                       [&](int64_t a, int64_t b) { return op_.h[a * k + a] > op_.h[b * k + b]; });
    std::reverse(column_.begin(), column_.end());
    place_.resize(k);
    dead_.resize(k);
    diagonal_.resize(tiles_ * kTile);
    for (int64_t a = 0; a < k; ++a) {
      const float diagonal = op_.h[column_[a] * k + column_[a]];
      place_[column_[a]] = a;
      dead_[a] = diagonal == 0.0f;
      diagonal_[a] = diagonal;
      mean_ += (dead_[a] ? 1.0 : diagonal) / static_cast<double>(k);
    }
  }

  float hessian(int64_t a, int64_t b) const {
    if (a >= op_.k || b >= op_.k || (a == b && dead_[a])) return a == b ? 1.0f : 0.0f;
    const int64_t i = column_[a], j = column_[b];
    return i >= j ? op_.h[i * op_.k + j] : op_.h[j * op_.k + i];
  }

  // Diagonal tiles are loaded whole, so that energy() can use them as they are.
  void load_hessian() {
    parallel_for(executor_, tiles_ * tiles_, [&](int64_t task) {
      const int64_t row = task / tiles_, column = task % tiles_;
      if (column < row) return;
      float* to = tile(row, column);
      for (int64_t p = 0; p < kTile; p += kStrip)
        for (int64_t a = 0; a < kTile; ++a)
          for (int64_t b = p; b < p + kStrip; ++b) *to++ = hessian(row * kTile + a, column * kTile + b);
    });
  }

  // H + damping * mean = U^T U.
  bool factor(double damping) {
    std::vector<float> floor(tiles_ * kTile);
    for (int64_t a = 0; a < tiles_ * kTile; ++a) {
      const float value = static_cast<float>(hessian(a, a) + damping * mean_);
      floor[a] = value * 0x1p-23f;  // what float32 cannot tell from zero
      on_diagonal(a) = value;
    }
    for (int64_t row = 0; row < tiles_; ++row) {
      stop_if_interrupted();
      const int64_t panels = (tiles_ - row) * (kTile / kStrip);
      parallel_chunks(executor_, panels,
                      panels >= 64   ? 8
                      : panels >= 32 ? 4
                                     : 2,
                      [&](int64_t begin, int64_t end) {
                        for (int64_t above = 0; above < row; ++above)
                          for (int64_t p = begin; p < end; ++p)
                            kernels_.subtract_product(tile(row, row) + p * kStripFloats, tile(above, row),
                                                      tile(above, row) + p * kStripFloats, tile(above + 1, row),
                                                      p + 1 < end ? tile(above, row) + (p + 1) * kStripFloats
                                                                  : tile(above + 1, row) + begin * kStripFloats);
                      });
      if (!kernels_.factor_tile(tile(row, row), &floor[row * kTile], &inverse_[row * kTile])) return false;
      parallel_for(executor_, (tiles_ - row - 1) * 2, [&](int64_t task) {
        float* panels = tile(row, row + 1 + task / 2) + task % 2 * 2 * kStripFloats;
        for (int64_t p = 0; p < 2 * kStripFloats; p += kStripFloats)
          kernels_.solve_panel(tile(row, row), &inverse_[row * kTile], panels + p);
      });
    }
    return true;
  }
  float& on_diagonal(int64_t a) {
    const int64_t i = a % kTile;
    return tile(a / kTile, a / kTile)[i / kStrip * kStripFloats + i * kStrip + i % kStrip];
  }

  // Rows first, first + step, ... of W, columns at their places, dead ones and padding zero.
  void load_strip(int64_t first, int64_t step, int64_t rows, float* strip) const {
    std::memset(strip, 0, tiles_ * kStripFloats * sizeof(float));
    const char* weight = static_cast<const char*>(op_.weight) + first * op_.k * dtype_bytes(op_.w_dtype);
    kernels_.load_strip(weight, op_.w_dtype, rows, step * op_.k, op_.k, place_.data(), strip);
    for (int64_t a = 0; a < op_.k; ++a)
      if (dead_[a]) std::memset(strip + a * kStrip, 0, kStrip * sizeof(float));
  }

  // out[r] = v_r H v_r^T for the 32 rows of a strip, H lying undamped in U's place: twice the tiles right of the
  // diagonal, once the diagonal ones.
  void quadratic(const float* strip, double* out) const {
    float* sums = static_cast<float*>(scratch(Slot::sums, kStripFloats * sizeof(float)));
    for (int64_t r = 0; r < kStrip; ++r) out[r] = 0.0;
    for (int64_t row = 0; row < tiles_; ++row) {
      std::memset(sums, 0, kStripFloats * sizeof(float));
      for (int64_t column = row + 1; column < tiles_; ++column)
        kernels_.add_product(sums, tile(row, column), strip + column * kStripFloats, tile(row, column) + kTileFloats,
                             strip + (column + 1) * kStripFloats);
      for (int64_t i = 0; i < kStripFloats; ++i) sums[i] *= 2.0f;
      kernels_.add_product(sums, tile(row, row), strip + row * kStripFloats, tile(row, row) + kTileFloats,
                           strip + (row + 1) * kStripFloats);
      for (int64_t i = 0; i < kStripFloats; ++i)
        out[i % kStrip] += static_cast<double>(sums[i]) * strip[row * kStripFloats + i];
    }
  }

  // Sum of w H w^T over every energy_step()-th row.
  double energy() const {
    const int64_t rows = (op_.n + energy_step() - 1) / energy_step(), strips = (rows + kStrip - 1) / kStrip;
    std::vector<double> sums(strips * kStrip);
    parallel_for(executor_, strips, [&](int64_t s) {
      float* strip = static_cast<float*>(scratch(Slot::residual, tiles_ * kStripFloats * sizeof(float)));
      const int64_t first = s * kStrip;
      load_strip(first * energy_step(), energy_step(), std::min<int64_t>(kStrip, rows - first), strip);
      quadratic(strip, &sums[first]);
    });
    return total(sums);
  }

  // Strips begin .. end: codes and sums of their rows. Without a factor: rounding to nearest.
  void solve(int64_t begin, int64_t end, bool positive, RowSums& sums) const {
    const int64_t count = end - begin, length = tiles_ * kStripFloats, groups = op_.k / op_.group_size;
    const int64_t scale_length = (groups + 1) * kStrip, code_length = (op_.k + 1) * kStrip;
    float* residual = static_cast<float*>(scratch(Slot::residual, count * length * sizeof(float)));
    float* scales = static_cast<float*>(scratch(Slot::scales, count * scale_length * sizeof(float)));
    int8_t* codes = static_cast<int8_t*>(scratch(Slot::activations, count * code_length));
    float* products = static_cast<float*>(scratch(Slot::tile, count * kStripFloats * sizeof(float)));
    for (int64_t s = 0; s < count; ++s) {
      load_strip((begin + s) * kStrip, 1, rows_of(begin + s), residual + s * length);
      load_scales((begin + s) * kStrip, rows_of(begin + s), scales + s * scale_length);
    }
    for (int64_t row = tiles_ - 1; row >= 0; --row) {
      std::memset(products, 0, count * kStripFloats * sizeof(float));
      for (int64_t column = row + 1; column < tiles_ && positive; ++column)
        for (int64_t s = 0; s < count; ++s)
          kernels_.add_product(products + s * kStripFloats, tile(row, column),
                               residual + s * length + column * kStripFloats, tile(row, column) + kTileFloats,
                               s + 1 < count ? residual + (s + 1) * length + column * kStripFloats
                                             : residual + (column + 1) * kStripFloats);
      for (int64_t s = 0; s < count; ++s)
        solve_block(row, (begin + s) * kStrip, rows_of(begin + s), positive, products + s * kStripFloats,
                    residual + s * length, scales + s * scale_length, codes + s * code_length, sums);
    }
    for (int64_t s = 0; s < count; ++s) {
      const int64_t first = (begin + s) * kStrip, rows = rows_of(begin + s);
      kernels_.store_codes(codes + s * code_length, rows, op_.k, op_.codes + first * op_.k);
      if (positive) continue;
      double objective[kStrip];
      quadratic(residual + s * length, objective);
      std::copy(objective, objective + rows, &sums.objective[first]);
    }
  }
  int64_t rows_of(int64_t strip) const { return std::min<int64_t>(kStrip, op_.n - strip * kStrip); }

  // (groups, 32), and a last row of ones for padded columns; padded rows are ones.
  void load_scales(int64_t first, int64_t rows, float* scales) const {
    const int64_t groups = op_.k / op_.group_size;
    std::fill(scales, scales + (groups + 1) * kStrip, 1.0f);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t g = 0; g < groups; ++g) scales[g * kStrip + r] = op_.scale[(first + r) * groups + g];
  }

  void solve_block(int64_t row, int64_t first, int64_t rows, bool positive, float* products, float* residual,
                   const float* scales, int8_t* codes, RowSums& sums) const {
    const float* scale_of[kTile];
    int8_t* codes_of[kTile];
    for (int64_t i = 0; i < kTile; ++i) {
      const int64_t a = row * kTile + i, column = a < op_.k ? column_[a] : op_.k;
      codes_of[i] = codes + column * kStrip;
      scale_of[i] = scales + (a < op_.k ? column / op_.group_size : op_.k / op_.group_size) * kStrip;
    }
    float loss[kStrip] = {}, error[kStrip] = {}, norm[kStrip] = {}, weighted[kStrip] = {};
    kernels_.add_norms(residual + row * kStripFloats, &diagonal_[row * kTile], norm, weighted);
    const float high = op_.bits == 8 ? 127.0f : 7.0f;
    const Identity& identity = Identity::get();
    kernels_.solve_block({positive ? tile(row, row) : identity.tile.data(),
                          positive ? &inverse_[row * kTile] : identity.inverse.data(), products,
                          residual + row * kStripFloats, scale_of, codes_of, -high - 1.0f, high, loss, error});
    for (int64_t r = 0; r < rows; ++r) {
      sums.loss[first + r] += loss[r];
      sums.error[first + r] += error[r];
      sums.norm[first + r] += norm[r];
      sums.weighted[first + r] += weighted[r];
    }
  }

  // A diagonal tile that hands no error on.
  struct Identity {
    std::vector<float> tile, inverse;
    Identity() : tile(kTileFloats), inverse(kTile, 1.0f) {
      for (int64_t i = 0; i < kTile; ++i) tile[i / kStrip * kStripFloats + i * kStrip + i % kStrip] = 1.0f;
    }
    static const Identity& get() {
      static const Identity identity;
      return identity;
    }
  };

  const GptqQuantize& op_;
  const Executor& executor_;
  const GptqKernels& kernels_;
  const int64_t tiles_;
  std::vector<int64_t> column_, place_;
  std::vector<char> dead_;
  double mean_ = 0.0;
  float* factor_;
  std::vector<float> inverse_, diagonal_;  // 1 / U_aa; H_aa as it came
};

}  // namespace

void gptq(const GptqQuantize& op, const Executor& executor, const GptqKernels& kernels) {
  Gptq(op, executor, kernels).run();
}

}  // namespace pennyweight::cpu
