// SPDX-License-Identifier: Apache-2.0
// executor.h: how a kernel runs its tasks. The caller owns the threads; a kernel only says what is independent.
//
// Rule: tasks split outputs, never K, and their edges do not move with the number of threads, so that a result
// has the same bits for any executor.
#pragma once
#include <cstdint>

namespace pennyweight {

struct Executor {
  void* context = nullptr;
  // Runs task(arg, i) once for every i in [0, tasks), in any order, and returns when all have finished.
  void (*parallel)(void* context, int64_t tasks, void (*task)(void* arg, int64_t index), void* arg) = nullptr;
  int threads = 1;  // how many tasks may run at once: a hint for cutting work, never for its edges
};

// Runs f(i) for i in [0, tasks).
template <class F>
static void parallel_for(const Executor& executor, int64_t tasks, F&& f) {
  if (tasks <= 0) return;
  if (tasks == 1 || executor.parallel == nullptr || executor.threads <= 1) {
    for (int64_t i = 0; i < tasks; ++i) f(i);
    return;
  }
  executor.parallel(
      executor.context, tasks, [](void* arg, int64_t i) { (*static_cast<F*>(arg))(i); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// Runs f(begin, end) over [0, count) in chunks of `chunk`.
template <class F>
static void parallel_chunks(const Executor& executor, int64_t count, int64_t chunk, F&& f) {
  parallel_for(executor, (count + chunk - 1) / chunk, [&](int64_t i) {
    const int64_t begin = i * chunk, end = begin + chunk < count ? begin + chunk : count;
    f(begin, end);
  });
}

}  // namespace pennyweight
