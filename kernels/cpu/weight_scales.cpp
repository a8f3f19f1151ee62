// SPDX-License-Identifier: Apache-2.0
// weight_scales.cpp: min-max and MSE scales, for any instruction set (weight_scales.h).
//
// The search over p stops for the whole weight once `patience` steps in a row improved no group, which couples the
// groups. So each group tries all steps of a batch at once, while its values are in L1, and notes in a mask which of
// them improved on its best; the masks together tell where the search stops, and a group's last improvement before that
// is its scale. Errors are float32 sums (the lanes' partial sums, then pairwise), in units of the scale, brought to
// those of w in float64.
#include "weight_scales.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <vector>

#include "pennyweight/numerics.h"
#include "scratch.h"

namespace pennyweight::cpu {
namespace {

constexpr int64_t kBatch = 64;  // steps that a mask holds

// A scale from a group's amax (already of the weight's dtype), as llm-compressor rounds it.
float scale_of(float amax, int64_t format, DType dtype) {
  const float limit = format == 8 ? 127.5f : format == 4 ? 7.5f : 448.0f;
  const float scale = round_to(dtype, amax / limit);
  return scale == 0.0f ? dtype_eps(dtype) : scale;
}

// Where the search stops within steps first .. end, given a mask of those that improved something. idle: how many
// steps before `first` improved nothing; updated.
int64_t last_step(uint64_t improved, int64_t first, int64_t end, int64_t patience, int64_t& idle) {
  for (int64_t step = first; step < end; ++step) {
    if (idle >= patience) return step;
    idle = improved >> (step - first) & 1 ? 0 : idle + 1;
  }
  return end;
}

class Scales {
 public:
  Scales(const WeightScales& op, const Executor& executor, const ScaleKernels& kernels)
      : op_(op), executor_(executor), kernels_(kernels), groups_(op.k / op.group_size), amax_(op.n * groups_) {}

  void min_max() {
    each_group([&](int64_t g, float* values) {
      amax_[g] = load(g, values);
      op_.scale[g] = scale_of(amax_[g], op_.format, op_.w_dtype);
    });
  }

  void search() {
    const int64_t steps = static_cast<int64_t>(op_.maxshrink * static_cast<double>(op_.grid));
    best_.assign(amax_.size(), INFINITY);
    masks_.resize(amax_.size());
    int64_t first = 0, idle = 0;
    while (first < steps) {
      const int64_t end = std::min(first + kBatch, steps);
      const int64_t stop = last_step(try_steps(first, end), first, end, op_.patience, idle);
      const uint64_t tried = stop - first == kBatch ? ~uint64_t{0} : (uint64_t{1} << (stop - first)) - 1;
      for (size_t g = 0; g < masks_.size(); ++g)
        if (const uint64_t mask = masks_[g] & tried) op_.scale[g] = scale_at(g, first + 63 - std::countl_zero(mask));
      if (stop < end) return;
      first = end;
    }
  }

 private:
  // f(group, room for its values)
  template <class F>
  void each_group(F&& f) const {
    const int64_t padded = round_up(op_.group_size, 16);
    parallel_chunks(executor_, op_.n * groups_, std::max<int64_t>(1, 16384 / op_.group_size),
                    [&](int64_t begin, int64_t end) {
                      float* values = static_cast<float*>(scratch(Slot::tile, padded * sizeof(float)));
                      for (int64_t g = begin; g < end; ++g) f(g, values);
                    });
  }
  float load(int64_t g, float* values) const {
    const int64_t first = g / groups_ * op_.k + g % groups_ * op_.group_size;
    return kernels_.load(op_.weight, op_.w_dtype, first, op_.group_size, values);
  }
  // Of p * amax, p = 1 - step / grid.
  float scale_at(int64_t g, int64_t step) const {
    const float p = static_cast<float>(1.0 - static_cast<double>(step) / static_cast<double>(op_.grid));
    return scale_of(round_to(op_.w_dtype, p * amax_[g]), op_.format, op_.w_dtype);
  }

  // Notes in masks_ which of the steps improved on a group's best; returns which improved any.
  uint64_t try_steps(int64_t first, int64_t end) {
    std::atomic<uint64_t> any{0};
    each_group([&](int64_t g, float* values) {
      load(g, values);
      masks_[g] = 0;
      for (int64_t step = first; step < end; ++step) {
        const float scale = scale_at(g, step);
        const double sum =
            kernels_.error(values, round_up(op_.group_size, 16), scale, op_.format, static_cast<float>(op_.norm));
        const double error = sum * std::pow(static_cast<double>(scale), op_.norm);
        if (!(error < best_[g])) continue;
        best_[g] = error;
        masks_[g] |= uint64_t{1} << (step - first);
      }
      any.fetch_or(masks_[g], std::memory_order_relaxed);
    });
    return any;
  }

  const WeightScales& op_;
  const Executor& executor_;
  const ScaleKernels& kernels_;
  const int64_t groups_;
  std::vector<float> amax_;
  std::vector<double> best_;
  std::vector<uint64_t> masks_;
};

}  // namespace

void find_weight_scales(const WeightScales& op, const Executor& executor, const ScaleKernels& kernels) {
  Scales scales(op, executor, kernels);
  scales.min_max();
  if (op.mse) scales.search();
}

}  // namespace pennyweight::cpu
