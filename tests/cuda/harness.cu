// SPDX-License-Identifier: Apache-2.0
// harness.cu: see harness.h.   cuda_tests [name part] [--seeds FIRST LAST] [--compute 80] [--small] [--list]
#include "harness.h"

namespace pennyweight {

// This program has the CUDA half of the library alone: nothing is forced, and ops have no CPU side.
const char* forced() { return nullptr; }
bool strict() { return tests::settings().strict; }
const OpInfo& op_info(OpId id) {
  static OpInfo info;
  info = {id, "op", 0, nullptr, 0, nullptr, 0};
  return info;
}

namespace tests {
namespace {

int failures = 0;

int run_case(const Case& one) {
  failures = 0;
  try {
    one.run();
  } catch (const std::exception& error) {
    ++failures;
    std::printf("    %s\n", error.what());
  }
  std::printf("%s %s seed %d\n", failures ? "FAIL" : "ok  ", one.name, static_cast<int>(settings().seed));
  return failures != 0;
}

}  // namespace

Settings& settings() {
  static Settings s;
  return s;
}
std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

void check(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  if (failures <= 5) std::printf("    %s\n", what.c_str());
}

void finish(int launch_error) {
  if (launch_error) throw std::runtime_error("launch: " + std::to_string(launch_error));
#if !defined(PW_EMULATED)
  check_cuda(cudaDeviceSynchronize());
#endif
}

Card card() {
  Card found;
#if defined(PW_EMULATED)
  found.compute = emulator::options().compute;
  found.multiprocessors = 4;
  found.shared_bytes = emulator::options().shared_bytes;
#else
  const Status status = find_card(0, &found);
  if (status.code != Code::ok) throw std::runtime_error(status.message);
#endif
  return found;
}

void run_on_card(OpId id, const void* op, const char* implementation) {
  const Card here = card();
  Buffer<unsigned char> workspace(cuda_workspace_bytes(id, op, here, implementation));
  const Status status = run_cuda(id, op, {here, nullptr, workspace.data}, implementation);
  if (status.code != Code::ok) throw std::runtime_error(status.message);
  finish(0);
}

}  // namespace tests
}  // namespace pennyweight

int main(int argc, char** argv) {
  using namespace pennyweight::tests;
  std::string filter, without = "\n";  // parts of names, the second of those to leave out
  uint64_t first = 0, last = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--seeds" && i + 2 < argc) {
      first = std::strtoull(argv[++i], nullptr, 10);
      last = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--compute" && i + 1 < argc) {
#if defined(PW_EMULATED)
      pennyweight::emulator::options().compute = std::atoi(argv[++i]);
      pennyweight::emulator::options().shared_bytes = pennyweight::emulator::options().compute == 80   ? 163 * 1024
                                                      : pennyweight::emulator::options().compute >= 90 ? 227 * 1024
                                                                                                       : 99 * 1024;
#else
      ++i;
#endif
    } else if (argument == "--small") {
      settings().small = true;
    } else if (argument == "--without" && i + 1 < argc) {
      without = argv[++i];
    } else if (argument == "--list") {
      for (const Case& one : cases()) std::printf("%s\n", one.name);
      return 0;
    } else {
      filter = argument;
    }
  }
  int failed = 0, ran = 0;
  for (settings().seed = first; settings().seed <= last; ++settings().seed) {
#if defined(PW_EMULATED)
    pennyweight::emulator::options().seed = settings().seed;
#endif
    for (const Case& one : cases())
      if (const std::string name = one.name; name.find(filter) != name.npos && name.find(without) == name.npos) {
        ++ran;
        failed += run_case(one);
      }
  }
  std::printf("%d of %d failed\n", failed, ran);
  return failed || !ran;
}
