// SPDX-License-Identifier: Apache-2.0
// dispatch.cpp: the machine's features, the choice of an implementation, the counters. No ISA flags here.
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "pennyweight/registry.h"
#include "interrupt.h"
#include "scratch.h"
#include "table.h"

namespace pennyweight {
namespace {

constexpr int kOps = static_cast<int>(OpId::count);
constexpr int kMaxImplementations = 8;
constexpr const char* kRank[] = {"reference", "avx2", "avx512vnni", "avx512bf16"};  // worst first

#if defined(__x86_64__)
// Of the data cache of a level that this core uses, as the processor says it (Intel: leaf 4, AMD: 0x8000001d, which
// are alike), or 0. sysconf() multiplies the L3 of AMD's by what it takes for the number of its instances.
int64_t cache_bytes(unsigned level) {
  for (const unsigned leaf : {0x8000001du, 4u}) {
    unsigned a, b, c, d;
    for (unsigned i = 0; __get_cpuid_count(leaf, i, &a, &b, &c, &d) && (a & 31) != 0; ++i) {
      const unsigned type = a & 31, ways = (b >> 22) + 1, partitions = (b >> 12 & 1023) + 1, line = (b & 4095) + 1;
      if ((a >> 5 & 7) == level && type != 2)  // 1: data, 2: instructions, 3: both
        return static_cast<int64_t>(ways) * partitions * line * (static_cast<int64_t>(c) + 1);
    }
  }
  return 0;
}
#endif

Device detect() {
  Device d;
#if defined(__x86_64__)
  __builtin_cpu_init();
  d.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  d.avx512 = d.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  d.avx512vnni = d.avx512 && __builtin_cpu_supports("avx512vnni");
  d.avx512vbmi = d.avx512 && __builtin_cpu_supports("avx512vbmi");
  d.avx512bf16 = d.avx512vnni && __builtin_cpu_supports("avx512bf16");
  if (const int64_t bytes = cache_bytes(1)) d.l1_bytes = bytes;
  if (const int64_t bytes = cache_bytes(2)) d.l2_bytes = bytes;
  if (const int64_t bytes = cache_bytes(3)) d.l3_bytes = bytes;
#endif
  return d;
}

// Of implementations for cards (cuda/ops.cpp), in a build without them too.
constexpr const char* kCardNames[] = {"sm80", "sm80_w8a16", "sm80_decoded", "sm89", "sm90"};

// The library's own copy of an implementation's name, or null.
const char* known(const char* name) {
  for (const char* own : kRank)
    if (std::strcmp(own, name) == 0) return own;
  for (const char* own : kCardNames)
    if (std::strcmp(own, name) == 0) return own;
  return nullptr;
}

int rank(const char* name) {
  for (int i = 0; i < 4; ++i)
    if (std::strcmp(kRank[i], name) == 0) return i;
  return -1;
}

bool machine_has(int r, const Device& d) {
  return r == 0 || (r == 1 && d.avx2) || (r == 2 && d.avx512vnni) || (r == 3 && d.avx512bf16);
}

void say(Status* status, Code code, const std::string& text) {
  if (!status) return;
  status->code = code;
  std::snprintf(status->message, sizeof status->message, "%s", text.c_str());
}

// Whether a name can be forced here at all.
Status check_name(const char* name) {
  Status status;
  const int r = rank(name);
  if (!known(name))
    say(&status, Code::unsupported,
        std::string("PENNYWEIGHT_FORCE: no implementation is called '") + name +
            "'; use one of reference, avx2, avx512vnni, avx512bf16, or on a card one of sm80, sm80_w8a16, "
            "sm80_decoded, "
            "sm89, sm90");
  else if (r >= 0 && !machine_has(r, device()))
    say(&status, Code::unsupported,
        std::string("PENNYWEIGHT_FORCE: this machine lacks what '") + name + "' needs; unset it, or force a lower one");
  return status;
}

struct State {
  std::mutex mutex;
  std::string forced_name;  // empty: none
  Status environment;       // what PENNYWEIGHT_FORCE came to
  std::atomic<const char*> forced{nullptr};
  std::atomic<bool (*)()> interrupt_check{nullptr};
  bool strict = false;
  std::atomic<int64_t> counts[kOps][kMaxImplementations] = {};
  std::atomic<const char*> last[kOps] = {};

  State() {
    const char* s = std::getenv("PENNYWEIGHT_STRICT");
    strict = s && *s && std::strcmp(s, "0") != 0;
    const char* f = std::getenv("PENNYWEIGHT_FORCE");
    if (!f || !*f) return;
    environment = check_name(f);
    if (environment.code != Code::ok) return;
    forced_name = f;
    forced = forced_name.c_str();
  }
};
State& state() {
  static State s;
  return s;
}

// The index of the implementation called `name`, or of the best that ranks below it.
int find_forced(const OpInfo& info, const char* name) {
  const int wanted = rank(name);
  for (int i = 0; i < info.implementation_count; ++i)
    if (rank(info.implementations[i].name) <= wanted) return i;
  return info.implementation_count - 1;
}

std::string reasons(const OpInfo& info, const void* op) {
  std::string text;
  for (int i = 0; i < info.implementation_count; ++i) {
    const char* why = info.implementations[i].why_not(op, device());
    text += std::string(i ? "; " : "") + info.implementations[i].name + ": " + (why ? why : "runs");
  }
  return text;
}

std::array<const OpInfo*, kOps> find_all() {
  std::array<const OpInfo*, kOps> all = {};
  for (int i = 0; i < kOps; ++i) {
    for (auto find : {cpu::quantize_info, cpu::attention_info, cpu::linear_info, cpu::pack_info, cpu::calibrate_info})
      if (const OpInfo* info = find(static_cast<OpId>(i))) all[i] = info;
    if (all[i]) continue;
    std::fprintf(stderr, "pennyweight: op %d has no table\n", i);
    std::abort();
  }
  return all;
}

}  // namespace

void cpu::stop_if_interrupted() {
  bool (*check)() = state().interrupt_check.load();
  if (check && check()) throw Interrupted();
}

const Device& device() {
  static const Device d = detect();
  return d;
}

const OpInfo& op_info(OpId id) {
  static const std::array<const OpInfo*, kOps> all = find_all();
  return *all[static_cast<int>(id)];
}

int choose(OpId id, const void* op, const char* implementation, Status* status) {
  const OpInfo& info = op_info(id);
  State& s = state();
  if (s.environment.code != Code::ok) {
    if (status) *status = s.environment;
    return -1;
  }
  const char* name = implementation ? implementation : s.forced.load();
  if (name && (implementation || rank(name) >= 0)) {  // a name of cards leaves the CPU alone
    if (const Status bad = check_name(name); bad.code != Code::ok) {
      if (status) *status = bad;
      return -1;
    }
    const int i = find_forced(info, name);
    if (const char* why = info.implementations[i].why_not(op, device())) {
      say(status, Code::unsupported,
          std::string(info.name) + ": " + info.implementations[i].name + " was forced but " + why);
      return -1;
    }
    return i;
  }
  for (int i = 0; i < info.implementation_count; ++i) {
    if (info.implementations[i].why_not(op, device())) continue;
    if (i > 0 && s.strict) {
      say(status, Code::unsupported,
          std::string(info.name) + ": PENNYWEIGHT_STRICT refuses anything slower than the best implementation (" +
              reasons(info, op) + "); unset it to run " + info.implementations[i].name);
      return -1;
    }
    return i;
  }
  say(status, Code::unsupported, std::string(info.name) + ": nothing fits (" + reasons(info, op) + ")");
  return -1;
}

Status run(OpId id, const void* op, const Executor& executor, const char* implementation) {
  Status status;
  const int i = choose(id, op, implementation, &status);
  if (i < 0) return status;
  const Implementation& chosen = op_info(id).implementations[i];
  try {
    chosen.run(op, executor);
    cpu::release_scratch();
  } catch (const std::bad_alloc&) {
    say(&status, Code::memory, std::string(op_info(id).name) + ": out of memory for workspace");
    return status;
  } catch (const cpu::Interrupted&) {
    say(&status, Code::interrupted, std::string(op_info(id).name) + ": interrupted");
    return status;
  }
  state().counts[static_cast<int>(id)][i].fetch_add(1, std::memory_order_relaxed);
  state().last[static_cast<int>(id)].store(chosen.name, std::memory_order_relaxed);
  return status;
}

Status force(const char* implementation) {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  if (!implementation) {
    s.forced = nullptr;
    s.environment = Status{};
    return {};
  }
  const Status status = check_name(implementation);
  if (status.code == Code::ok) s.forced = known(implementation);
  return status;
}

const char* forced() { return state().forced.load(); }
void set_interrupt_check(bool (*check)()) { state().interrupt_check = check; }
bool strict() { return state().strict; }
int64_t run_count(OpId id, int implementation) { return state().counts[static_cast<int>(id)][implementation].load(); }
const char* last_run(OpId id) { return state().last[static_cast<int>(id)].load(); }

}  // namespace pennyweight
