// SPDX-License-Identifier: Apache-2.0
// dispatch.cpp: which implementation an op gets on a card, how its launch went, the counters. No CUDA headers here.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "table.h"

namespace pennyweight {
namespace {

constexpr int kOps = static_cast<int>(OpId::count);
constexpr int kMaxImplementations = 8;

std::atomic<int64_t> counts[kOps][kMaxImplementations] = {};
std::atomic<const char*> last[kOps] = {};
std::atomic<HalfGemm> gemm{nullptr};

void say(Status* status, Code code, const std::string& text) {
  if (!status) return;
  status->code = code;
  std::snprintf(status->message, sizeof status->message, "%s", text.c_str());
}

std::string compute(const Card& card) { return "sm_" + std::to_string(card.compute); }

std::string reasons(const CudaOp& info, const void* op, const Card& card) {
  std::string text;
  for (int i = 0; i < info.implementation_count; ++i) {
    const char* why = info.implementations[i].why_not(op, card);
    text += std::string(i ? "; " : "") + info.implementations[i].name + ": " + (why ? why : "runs");
  }
  return text;
}

// A name given for this call must exist and fit; one that is forced for all ops is passed over by ops without it.
int find_named(const CudaOp& info, const void* op, const Card& card, const char* name, bool must_exist,
               Status* status) {
  for (int i = 0; i < info.implementation_count; ++i) {
    if (std::strcmp(info.implementations[i].name, name) != 0) continue;
    const char* why = info.implementations[i].why_not(op, card);
    if (!why) return i;
    say(status, Code::unsupported,
        std::string(info.name) + ": " + name + " was forced but " + why + " (card " + compute(card) + ")");
    return -1;
  }
  if (must_exist)
    say(status, Code::unsupported,
        std::string(info.name) + ": no implementation for cards is called '" + name + "' (" + reasons(info, op, card) +
            ")");
  return must_exist ? -1 : info.implementation_count;
}

}  // namespace

void set_half_gemm(HalfGemm given) { gemm = given; }
HalfGemm half_gemm() { return gemm; }

const CudaOp* cuda_op(OpId id) { return cuda::find_op(id); }

bool CudaImplementation::is_for(const Card& card) const {
  return card.compute >= std::atoi(name + std::strlen("sm")) && card.compute <= most_compute;
}

int choose_cuda(OpId id, const void* op, const Card& card, const char* implementation, Status* status) {
  const CudaOp* info = cuda::find_op(id);
  if (!info) {
    say(status, Code::unsupported,
        std::string(op_info(id).name) +
            ": there is no kernel for cards in this build; move the tensors with .to('cpu')");
    return -1;
  }
  if (const char* name = implementation ? implementation : forced()) {
    const int i = find_named(*info, op, card, name, implementation != nullptr, status);
    if (i < info->implementation_count) return i;
  }
  bool better = false;  // whether one made for this card has been passed over
  for (int i = 0; i < info->implementation_count; ++i) {
    if (info->implementations[i].why_not(op, card)) {
      better |= info->implementations[i].is_for(card) && !info->implementations[i].by_shape;
      continue;
    }
    if (better && strict()) {
      say(status, Code::unsupported,
          std::string(info->name) + ": PENNYWEIGHT_STRICT refuses anything slower than the best implementation (" +
              reasons(*info, op, card) + "); unset it to run " + info->implementations[i].name);
      return -1;
    }
    return i;
  }
  say(status, Code::unsupported,
      std::string(info->name) + ": nothing fits on sm_" + std::to_string(card.compute) + " (" +
          reasons(*info, op, card) + ")");
  return -1;
}

int64_t cuda_workspace_bytes(OpId id, const void* op, const Card& card, const char* implementation) {
  const int i = choose_cuda(id, op, card, implementation, nullptr);
  if (i < 0) return 0;
  const CudaImplementation& chosen = cuda::find_op(id)->implementations[i];
  return chosen.workspace_bytes ? chosen.workspace_bytes(op, card) : 0;
}

Status run_cuda(OpId id, const void* op, const CudaCall& call, const char* implementation) {
  Status status;
  const int i = choose_cuda(id, op, call.card, implementation, &status);
  if (i < 0) return status;
  const CudaOp& info = *cuda::find_op(id);
  const CudaImplementation& chosen = info.implementations[i];
  if (const int error = chosen.run(op, call)) {
    say(&status, Code::device,
        std::string(info.name) + ": " + chosen.name + " could not be launched on sm_" +
            std::to_string(call.card.compute) + ": " + cuda::error_text(error) + " (CUDA error " +
            std::to_string(error) + ")");
    return status;
  }
  counts[static_cast<int>(id)][i].fetch_add(1, std::memory_order_relaxed);
  last[static_cast<int>(id)].store(chosen.name, std::memory_order_relaxed);
  return status;
}

int64_t cuda_run_count(OpId id, int implementation) { return counts[static_cast<int>(id)][implementation].load(); }
const char* last_cuda_run(OpId id) { return last[static_cast<int>(id)].load(); }

}  // namespace pennyweight
