// SPDX-License-Identifier: Apache-2.0
// cuda.h: the CUDA side of the registry, what of it was built in, and what this machine has. Nothing here runs before
// it is called.
//
// An op's struct is the same on a card, its pointers are the card's. Implementations are listed best first; the first
// whose why_not() is nullptr runs. Their names say the least card that they are for: "sm80" runs on sm_80 and later.
// PENNYWEIGHT_STRICT=1 makes anything but the first that is made for the card an error.
#pragma once
#include <cstdint>

#include "pennyweight/formats.h"
#include "pennyweight/registry.h"
#include "pennyweight/status.h"

namespace pennyweight {

struct CudaState {
  bool built = false;
  int runtime_version = 0;        // of the linked runtime, 1000 * major + 10 * minor; 0: not built
  char architectures[256] = {0};  // as given to CMake, by commas: "80-real,89" (real: machine code; else PTX too)
  int driver_version = 0;         // as runtime_version; 0: no driver
  int device_count = 0;           // cards that the driver shows
  char reason[256] = {0};         // why no card can be used; empty when one can
};

// Asks the driver, without making a context.
PW_API CudaState cuda_state();

struct Card {
  int compute = 0;           // 10 * major + minor: 80, 86, 89, 90
  int multiprocessors = 0;   // that run blocks side by side
  int64_t shared_bytes = 0;  // of shared memory that one block may have
};

// The card of this number, asked once. Refused: no driver, no such card, or none of the built architectures fits it.
PW_API Status find_card(int index, Card* card);

// What a launch needs besides the op: the card, its current stream (a cudaStream_t), and the workspace asked for.
struct CudaCall {
  Card card;
  void* stream;
  void* workspace;
};

// y = x . w^T (+ bias) on f16 or bf16 by a library that the caller of the kernels has, as torch has one: this library
// links against none. Sums in float32. Begins the work in the call's stream; a cudaError_t, or it throws.
struct HalfOperands {
  const void* x;     // (m, k), rows x_stride apart
  const void* w;     // (n, k) contiguous
  const void* bias;  // (n,) or null
  void* y;           // (m, n), rows y_stride apart
  int64_t m, n, k, x_stride, y_stride;
  DType dtype;
};
using HalfGemm = int (*)(const HalfOperands& operands, const CudaCall& call);
PW_API void set_half_gemm(HalfGemm gemm);  // null: there is none
HalfGemm half_gemm();

struct CudaImplementation {
  const char* name;
  const char* (*why_not)(const void* op, const Card& card);      // nullptr: runs; else the reason, in words
  int (*run)(const void* op, const CudaCall& call);              // begins the work; a cudaError_t, 0 when it was begun
  int64_t (*workspace_bytes)(const void* op, const Card& card);  // 256-byte aligned, contents arbitrary; null: none
  int most_compute = 1 << 30;  // the last card that it is made for, where later ones cannot run it
  bool by_shape = false;       // made for some shapes: where it refuses others, it is not the faster one

  // Whether it is made for such cards at all; what else it needs, why_not() says.
  bool is_for(const Card& card) const;
};

struct CudaOp {
  OpId id;
  const char* name;
  const CudaImplementation* implementations;  // best first
  int implementation_count;
};

PW_API const CudaOp* cuda_op(OpId id);  // null: nothing was built for a card
// The index of the implementation that run_cuda() would take, or -1 with the reasons in `status`. `implementation` (may
// be null) forces one.
PW_API int choose_cuda(OpId id, const void* op, const Card& card, const char* implementation, Status* status);
// Begins `op` on the current device. Launches are checked; what goes wrong later on the card, the next synchronization
// tells.
PW_API Status run_cuda(OpId id, const void* op, const CudaCall& call, const char* implementation = nullptr);
PW_API int64_t cuda_workspace_bytes(OpId id, const void* op, const Card& card, const char* implementation = nullptr);
PW_API int64_t cuda_run_count(OpId id, int implementation);
PW_API const char* last_cuda_run(OpId id);  // name of what was begun last, null before the first

template <class Op>
static Status run_cuda(const Op& op, const CudaCall& call) {
  return run_cuda(Op::id, &op, call);
}

}  // namespace pennyweight
