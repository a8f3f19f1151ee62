// SPDX-License-Identifier: Apache-2.0
// copy.cuh: 16 bytes at a time: global memory to registers and back, global to shared memory beside the arithmetic
// (sm_80+).
#pragma once
#include "../runtime.cuh"

namespace pennyweight::ptx {

// ld.global.nc.L1::no_allocate.v4.u32: what is read once and never written by this kernel. 16-byte aligned.
PW_DEVICE uint4 load_once(const void* p) {
  uint4 v;
#if defined(PW_EMULATED)
  emulator::check_aligned("ld.global.v4", p, 16);
  emulator::may_switch();
  v = *static_cast<const uint4*>(p);
#else
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(p));
#endif
  return v;
}

// ld.global.nc.v4.u32: what other blocks read too (a vector of weights): it may stay in L1.
PW_DEVICE uint4 load_shared_by_all(const void* p) {
  uint4 v;
#if defined(PW_EMULATED)
  emulator::check_aligned("ld.global.v4", p, 16);
  emulator::may_switch();
  v = *static_cast<const uint4*>(p);
#else
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
#endif
  return v;
}

// st.global.v4.u32, 16-byte aligned. Where another branch stores the same words one by one the compiler takes a plain
// store of 16 bytes apart and merges the two.
PW_DEVICE void store_vector(void* p, uint4 v) {
#if defined(PW_EMULATED)
  emulator::check_aligned("st.global.v4", p, 16);
  *static_cast<uint4*>(p) = v;
#else
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}

// cp.async.cg.shared.global 16: begins a copy past L1; where `take` is false 16 zero bytes are written and `global` is
// not read. Both addresses 16-byte aligned. The bytes are there after a commit and a wait, for this thread; for others
// after a barrier besides.
PW_DEVICE void copy_async(void* shared, const void* global, bool take) {
#if defined(PW_EMULATED)
  emulator::copy_async(shared, global, take ? 16 : 0);
#else
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(take ? 16 : 0) : "memory");
#endif
}

// The same, always.
PW_DEVICE void copy_async_all(void* shared, const void* global) {
#if defined(PW_EMULATED)
  emulator::copy_async(shared, global, 16);
#else
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#endif
}

// The same where a row may end within the 16 bytes: the first `bytes` of them are read (0: `global` is not), zeros
// after.
PW_DEVICE void copy_async_bytes(void* shared, const void* global, int bytes) {
#if defined(PW_EMULATED)
  emulator::copy_async(shared, global, bytes);
#else
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
#endif
}

// cp.async.commit_group: closes the group of copies begun since the last one (an empty group counts).
PW_DEVICE void commit_copies() {
#if defined(PW_EMULATED)
  emulator::commit_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// cp.async.wait_group N: until all but the N youngest groups of this thread have arrived.
template <int N>
PW_DEVICE void wait_copies() {
#if defined(PW_EMULATED)
  emulator::wait_copies(N);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

}  // namespace pennyweight::ptx
