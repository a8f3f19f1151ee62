// SPDX-License-Identifier: Apache-2.0
// emulator.cpp: see emulator.h. x86-64 only (one switch of stacks in assembly).
//
// Under AddressSanitizer the switches are announced and what lies past a block's dynamic shared memory is poisoned.
// Under ThreadSanitizer (PW_EMULATED_TSAN; this file alone is built without -fsanitize=thread) every thread is a TSan
// fiber, switches order nothing, and barriers and collectives release and acquire: a race is one at any schedule.
#include "emulator.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(PW_EMULATED_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(const void*, unsigned long);
extern "C" void __tsan_write_range(void*, unsigned long);
#endif

// Saves the callee-saved registers on this stack and its pointer in *save, and goes on where `to` was saved.
extern "C" void pw_switch_stack(void** save, void* to);
asm(R"(
.text
.type pw_switch_stack,@function
pw_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size pw_switch_stack, .-pw_switch_stack
)");

namespace pennyweight::emulator {

Here here;
static void* last_stream = nullptr;
Options& options() {
  static Options o;
  return o;
}

namespace {

constexpr unsigned kMaxThreads = 1024;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr size_t kPage = 4096;

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

enum class State { ready, at_barrier, at_collective, done };

struct Thread {
  State state = State::ready;
  dim3 index;
  unsigned number = 0;
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  // where it waits
  const char* instruction = nullptr;
  unsigned mask = 0;
  void* argument = nullptr;
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;

  unsigned warp() const { return number / 32; }
  unsigned lane() const { return number % 32; }
};

// A meeting point, twice: TSan's order of one meeting must not leak into the next, so they take turns.
struct Meeting {
  char objects[2][64] = {};
  unsigned turn = 0;
  void* object() { return objects[turn % 2]; }
};

struct Machine {
  std::vector<char*> stacks;
  std::vector<void*> tsan_fibers;
  std::vector<Thread> threads;
  std::vector<Thread*> ready;
  std::vector<Meeting> warps;
  Meeting block;
  char launched[64] = {};
  const std::function<void()>* body = nullptr;
  Thread* current = nullptr;
  unsigned alive = 0, waiting = 0;
  Barrier kind = Barrier::plain;
  int votes = 0;
  uint64_t random_state = 1;
  std::string error;
  void* main_stack_pointer = nullptr;
  void* main_tsan = nullptr;
  void* main_fake_stack = nullptr;
  const void* main_bottom = nullptr;
  size_t main_size = 0;
};
Machine machine;

uint64_t random_bits() {
  uint64_t& x = machine.random_state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x;
}
bool shuffled() { return options().seed > 1; }
bool restless() { return shuffled() && options().seed % 2 == 1; }

void acquire([[maybe_unused]] void* object) {
#if defined(PW_EMULATED_TSAN)
  __tsan_acquire(object);
#endif
}
void release([[maybe_unused]] void* object) {
#if defined(PW_EMULATED_TSAN)
  __tsan_release(object);
#endif
}

// Back to launch(), until it resumes this thread.
void pause() {
  Thread* own = machine.current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(own->state == State::done ? nullptr : &own->fake_stack, machine.main_bottom,
                                 machine.main_size);
#endif
#if defined(PW_EMULATED_TSAN)
  __tsan_switch_to_fiber(machine.main_tsan, __tsan_switch_to_fiber_no_sync);
#endif
  pw_switch_stack(&own->stack_pointer, machine.main_stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(own->fake_stack, nullptr, nullptr);
#endif
}

void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.main_bottom, &machine.main_size);
#endif
  acquire(machine.launched);
  (*machine.body)();
  // What was still on its way at the end arrives: a kernel that forgot to wait may write over what comes next.
  commit_copies();
  wait_copies(0);
  release(machine.launched);
  machine.current->state = State::done;
  pause();
  __builtin_trap();
}

void resume(Thread& t) {
  machine.current = &t;
  here.thread = t.index;
  here.lane = t.lane();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&machine.main_fake_stack, machine.stacks[t.number], kStackBytes);
#endif
#if defined(PW_EMULATED_TSAN)
  __tsan_switch_to_fiber(machine.tsan_fibers[t.number], __tsan_switch_to_fiber_no_sync);
#endif
  pw_switch_stack(&machine.main_stack_pointer, t.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(machine.main_fake_stack, nullptr, nullptr);
#endif
}

void make_stacks(unsigned count) {
  while (machine.stacks.size() < count) {
    void* p =
        mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    mprotect(p, kPage, PROT_NONE);  // a stack that overflows stops here
    machine.stacks.push_back(static_cast<char*>(p) + kPage);
#if defined(PW_EMULATED_TSAN)
    machine.tsan_fibers.push_back(__tsan_create_fiber(0));
#endif
  }
}

void make_threads(dim3 block) {
  const unsigned count = block.x * block.y * block.z;
  make_stacks(count);
  machine.threads.assign(count, Thread{});
  machine.ready.clear();
  for (unsigned i = 0; i < count; ++i) {
    Thread& t = machine.threads[i];
    t.number = i;
    t.index = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    void** top = reinterpret_cast<void**>(machine.stacks[i] + kStackBytes);
    *--top = nullptr;  // as after a call: rsp % 16 == 8
    *--top = reinterpret_cast<void*>(&enter);
    for (int r = 0; r < 6; ++r) *--top = nullptr;
    t.stack_pointer = top;
    machine.ready.push_back(&t);
  }
  if (options().seed == 0) std::reverse(machine.ready.begin(), machine.ready.end());  // the last one runs first
  machine.alive = count;
  machine.waiting = 0;
  machine.warps.assign((count + 31) / 32, Meeting{});
}

// Everyone who lives waits at the barrier: let them go. Otherwise nobody can ever go on.
bool open_barrier() {
  Machine& m = machine;
  const unsigned count = static_cast<unsigned>(m.threads.size());
  if (m.waiting == 0 || m.waiting != m.alive) {
    m.error = "deadlock:";
    int shown = 0;
    for (const Thread& t : m.threads)
      if (t.state != State::done && shown++ < 4)
        m.error += " thread " + std::to_string(t.number) + " at " + (t.instruction ? t.instruction : "?");
    return false;
  }
  if (m.alive != count) {
    m.error = "a barrier is reached by " + std::to_string(m.alive) + " of " + std::to_string(count) +
              " threads, the others have returned";
    return false;
  }
  m.waiting = 0;
  ++m.block.turn;
  for (unsigned i = 0; i < count; ++i) {
    Thread& t = m.threads[options().seed == 0 ? count - 1 - i : i];
    t.state = State::ready;
    m.ready.push_back(&t);
  }
  return true;
}

Thread& next() {
  auto& ready = machine.ready;
  size_t i = ready.size() - 1;
  if (restless() || (shuffled() && random_bits() % 64 == 0)) i = random_bits() % ready.size();
  Thread* t = ready[i];
  ready[i] = ready.back();
  ready.pop_back();
  return *t;
}

// One block from its first instruction to its last.
void run_block(dim3 block, size_t shared_bytes, unsigned number) {
  const size_t room = (shared_bytes + 127) / 128 * 128 + 128;
  auto* shared = static_cast<unsigned char*>(std::aligned_alloc(128, room));
  if (!shared) throw std::bad_alloc();
  std::memset(shared, static_cast<int>(0xa5 ^ (options().seed * 37 + number)), shared_bytes);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(shared + shared_bytes, room - shared_bytes);
#endif
  here.shared = shared;
#if defined(PW_EMULATED_TSAN)
  machine.main_tsan = __tsan_get_current_fiber();
#endif
  make_threads(block);
  release(machine.launched);
  while (machine.alive && machine.error.empty()) {
    if (machine.ready.empty() && !open_barrier()) break;
    Thread& t = next();
    resume(t);
    if (t.state == State::done) --machine.alive;
  }
  acquire(machine.launched);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(shared + shared_bytes, room - shared_bytes);
#endif
  std::free(shared);
  here.shared = nullptr;
  machine.current = nullptr;
}

void arrive(const Copy& copy) {
  note_read(copy.from, copy.bytes);
  note_write(copy.to, 16);
  std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, 16 - copy.bytes);
}

}  // namespace

int launch(dim3 grid, dim3 block, size_t shared_bytes, void* stream, const std::function<void()>& body) {
  last_stream = stream;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z, blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || blocks == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (static_cast<int64_t>(shared_bytes) > options().shared_bytes) return cudaErrorInvalidValue;
  machine.body = &body;
  machine.error.clear();
  machine.random_state = options().seed * 0x9E3779B97F4A7C15ull + 88172645463325252ull;
  here.block_size = block;
  here.grid = grid;
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  if (options().seed == 1) std::reverse(order.begin(), order.end());
  if (shuffled())
    for (size_t i = blocks; i > 1; --i) std::swap(order[i - 1], order[random_bits() % i]);
  for (unsigned b : order) {
    here.block = dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
    run_block(block, shared_bytes, b);
    if (!machine.error.empty()) throw std::runtime_error("emulator: " + machine.error);
  }
  return cudaSuccess;
}

void fail(const std::string& what) {
  machine.error = what + " (block " + std::to_string(here.block.x) + "," + std::to_string(here.block.y) + ", thread " +
                  std::to_string(machine.current->number) + ")";
  machine.current->state = State::done;
  pause();
  std::abort();
}

void check_aligned(const char* instruction, const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes)
    fail(std::string(instruction) + ": an address is not aligned to " + std::to_string(bytes) + " bytes");
}

void may_switch() {
  if (!machine.current || !restless() || random_bits() % 8) return;
  machine.ready.push_back(machine.current);
  pause();
}

void note_read([[maybe_unused]] const void* p, [[maybe_unused]] size_t bytes) {
#if defined(PW_EMULATED_TSAN)
  __tsan_read_range(p, bytes);
#endif
}
void note_write([[maybe_unused]] void* p, [[maybe_unused]] size_t bytes) {
#if defined(PW_EMULATED_TSAN)
  __tsan_write_range(p, bytes);
#endif
}

int barrier(Barrier kind, bool predicate) {
  Machine& m = machine;
  void* meeting = m.block.object();
  release(meeting);
  if (m.waiting == 0) {
    m.kind = kind;
    m.votes = kind == Barrier::all;
  }
  if (m.kind != kind) fail("threads wait at different kinds of barrier");
  if (kind == Barrier::all)
    m.votes = m.votes && predicate;
  else
    m.votes = kind == Barrier::any ? m.votes || predicate : m.votes + predicate;
  ++m.waiting;
  m.current->state = State::at_barrier;
  m.current->instruction = "syncthreads";
  pause();
  acquire(meeting);
  return m.votes;
}

void collective(const char* instruction, unsigned mask, void* argument, void (*all)(void* const*)) {
  Machine& m = machine;
  Thread& own = *m.current;
  if (!(mask >> own.lane() & 1)) fail(std::string(instruction) + ": a lane is not in its own mask");
  own.instruction = instruction;
  own.mask = mask;
  own.argument = argument;
  own.state = State::at_collective;
  Meeting& warp = m.warps[own.warp()];
  void* meeting = warp.object();
  release(meeting);
  void* arguments[32] = {};
  unsigned here_now = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const unsigned number = own.warp() * 32 + lane;
    if (number >= m.threads.size()) fail(std::string(instruction) + ": a lane in the mask does not exist");
    const Thread& other = m.threads[number];
    if (other.state == State::done) fail(std::string(instruction) + ": a lane in the mask has returned");
    if (other.state != State::at_collective || other.mask != mask) continue;
    if (std::strcmp(other.instruction, instruction) != 0)
      fail(std::string("a warp has diverged: ") + instruction + " meets " + other.instruction);
    here_now |= 1u << lane;
    arguments[lane] = other.argument;
  }
  if (here_now != mask) {
    pause();
    acquire(meeting);
    return;
  }
  acquire(meeting);
  all(arguments);
  release(meeting);
  ++warp.turn;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    Thread& other = m.threads[own.warp() * 32 + lane];
    other.state = State::ready;
    if (&other != &own) m.ready.push_back(&other);
  }
  if (restless()) {
    m.ready.push_back(&own);
    pause();
  }
}

void copy_async(void* shared, const void* global, int bytes) {
  check_aligned("cp.async", shared, 16);
  if (bytes) check_aligned("cp.async", global, 16);
  const Copy copy{shared, global, bytes};
  note_read(global, bytes);  // it may happen now; arrive() marks the latest moment
  note_write(shared, 16);
  if (!shuffled() || random_bits() % 2)
    machine.current->open.push_back(copy);
  else
    arrive(copy);
  may_switch();
}

void commit_copies() {
  Thread& own = *machine.current;
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}

void wait_copies(int pending) {
  auto& groups = machine.current->groups;
  while (static_cast<int>(groups.size()) > pending) {
    for (const Copy& copy : groups.front()) arrive(copy);
    groups.erase(groups.begin());
  }
}

}  // namespace pennyweight::emulator

using pennyweight::emulator::options;

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 2;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device > 1) return cudaErrorInvalidValue;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = options().compute / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = options().compute % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(options().shared_bytes);
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "invalid argument";
}

// The stream of the last launch, for tests that call from Python.
extern "C" __attribute__((visibility("default"))) void* pw_last_stream() { return pennyweight::emulator::last_stream; }
// Which card is emulated; asked once per device, so before the first launch.
extern "C" __attribute__((visibility("default"))) void pw_emulate(int compute) {
  pennyweight::emulator::options().compute = compute;
}
