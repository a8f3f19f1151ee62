// SPDX-License-Identifier: Apache-2.0
// limits.cpp: what this machine can do at most, to judge kernels by: memory bandwidth and the peaks of the
// instructions that the kernels are made of. Built by roofline.py for the machine at hand (-march=native):
//
//   double limit(int what, int threads, void* buffer, long bytes)    bytes per second, or operations per second
//   void   evict(int threads, void* buffer, long bytes)              leaves only the buffer in the caches
//
// An operation is a multiplication or an addition of a product. 0 where the processor lacks the instruction.
#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Keeps the calling thread on one of the processors it may use, as long as this lives: two threads that the system puts
// on one core would measure half the machine.
class Pinned {
 public:
  explicit Pinned(int index) {
    sched_getaffinity(0, sizeof before_, &before_);
    const int count = CPU_COUNT(&before_);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &before_) && seen++ == index % count) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
      }
  }
  ~Pinned() { sched_setaffinity(0, sizeof before_, &before_); }
  Pinned(const Pinned&) = delete;

 private:
  cpu_set_t before_;
};

// Runs work(thread) on every thread at once; from the moment when all are there to the moment when the last is done.
template <class F>
double timed(int threads, F work) {
  std::atomic<int> there{0};
  std::vector<double> begin(threads), end(threads);
  auto run = [&](int thread) {
    const Pinned pinned(thread);
    ++there;
    while (there < threads) std::this_thread::yield();
    begin[thread] = seconds();
    work(thread);
    end[thread] = seconds();
  };
  std::vector<std::thread> others;  // started first: they inherit what the caller may use
  for (int i = 1; i < threads; ++i) others.emplace_back(run, i);
  run(0);
  for (auto& t : others) t.join();
  return *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
}

#if defined(__AVX512F__)
using Register = __m512i;
void store_around_caches(Register* to, Register value) { _mm512_stream_si512(to, value); }
#else
using Register = __m256i;
void store_around_caches(Register* to, Register value) { _mm256_stream_si256(to, value); }
#endif

// Four streams per thread, so that several pages are open at once.
double read_bandwidth(int threads, const char* buffer, long bytes) {
  const long quarter = bytes / threads / 4 / 64 * 64;
  const double time = timed(threads, [=](int thread) {
    Register sum[4] = {};
    const char* base = buffer + thread * 4 * quarter;
    for (long i = 0; i < quarter; i += sizeof(Register))
      for (int s = 0; s < 4; ++s) sum[s] ^= *reinterpret_cast<const Register*>(base + s * quarter + i);
    asm volatile("" : : "x"(sum[0]), "x"(sum[1]), "x"(sum[2]), "x"(sum[3]));
  });
  return 4.0 * quarter * threads / time;
}

// The first half of the buffer to the second; bytes read and bytes written both count.
template <bool around_caches>
double copy_bandwidth(int threads, char* buffer, long bytes) {
  const long half = bytes / 2 / 4096 * 4096, share = half / threads / 4096 * 4096;
  const double time = timed(threads, [=](int thread) {
    for (long i = thread * share; i < (thread + 1) * share; i += sizeof(Register)) {
      const Register value = *reinterpret_cast<const Register*>(buffer + i);
      Register* to = reinterpret_cast<Register*>(buffer + half + i);
      if constexpr (around_caches)
        store_around_caches(to, value);
      else
        *const_cast<volatile Register*>(to) = value;  // volatile: stays a loop of stores, not memcpy
    }
    _mm_sfence();
  });
  return 2.0 * share * threads / time;
}

constexpr long kSteps = 300'000;  // about a millisecond, since it is measured between calls that take as long
constexpr int kChains = 12;       // independent accumulators: more than latency times ports of any x86

// kSteps rounds of kChains independent steps; operations per second when each does `operations`. `step` is written in
// assembly: compilers move intrinsics' accumulators through memory here.
template <class V, class F>
double peak(int threads, int operations, V start, F step) {
  const double time = timed(threads, [=](int) {
    V a = start, b = start, c = start, d = start, e = start, f = start;
    V g = start, h = start, i = start, j = start, k = start, l = start;
    for (long n = 0; n < kSteps; ++n) {
      step(a), step(b), step(c), step(d), step(e), step(f);
      step(g), step(h), step(i), step(j), step(k), step(l);
    }
  });
  return static_cast<double>(kSteps) * kChains * operations * threads / time;
}

double vnni_peak(int threads) {
#if defined(__AVX512VNNI__)
  const __m512i x = _mm512_set1_epi8(1);
  return peak(threads, 128, x, [x](__m512i& v) { asm volatile("vpdpbusd %1, %1, %0" : "+v"(v) : "v"(x)); });
#else
  return 0;
#endif
}

double bf16_peak(int threads) {
#if defined(__AVX512BF16__)
  const __m512 x = _mm512_castsi512_ps(_mm512_set1_epi16(0x3f00));
  return peak(threads, 64, x, [x](__m512& v) { asm volatile("vdpbf16ps %1, %1, %0" : "+v"(v) : "v"(x)); });
#else
  return 0;
#endif
}

double fma256_peak(int threads) {
#if defined(__FMA__)
  const __m256 x = _mm256_set1_ps(0.5f);
  return peak(threads, 16, x, [x](__m256& v) { asm volatile("vfmadd231ps %1, %1, %0" : "+x"(v) : "x"(x)); });
#else
  return 0;
#endif
}

double fma_peak(int threads) {
#if defined(__AVX512F__)
  const __m512 x = _mm512_set1_ps(0.5f);
  return peak(threads, 32, x, [x](__m512& v) { asm volatile("vfmadd231ps %1, %1, %0" : "+v"(v) : "v"(x)); });
#else
  return fma256_peak(threads);
#endif
}

// What AVX2 has for integers is a product of pairs that must be added by a second instruction. 16-bit pairs:
double madd16_peak(int threads) {
#if defined(__AVX2__)
  const __m256i x = _mm256_set1_epi16(1);
  return peak(threads, 32, x, [x](__m256i& v) {
    __m256i pair;
    asm volatile("vpmaddwd %2, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(v), "=&x"(pair) : "x"(x));
  });
#else
  return 0;
#endif
}

// Bytes, for nibbles by codes, whose pairs fit 16 bits for a while:
double madd8_peak(int threads) {
#if defined(__AVX2__)
  const __m256i x = _mm256_set1_epi8(1);
  return peak(threads, 64, x, [x](__m256i& v) {
    __m256i pair;
    asm volatile("vpmaddubsw %2, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(v), "=&x"(pair) : "x"(x));
  });
#else
  return 0;
#endif
}

}  // namespace

extern "C" double limit(int what, int threads, void* buffer, long bytes) {
  switch (what) {
    case 0:
      return read_bandwidth(threads, static_cast<const char*>(buffer), bytes);
    case 1:
      return copy_bandwidth<true>(threads, static_cast<char*>(buffer), bytes);
    case 2:
      return copy_bandwidth<false>(threads, static_cast<char*>(buffer), bytes);
    case 3:
      return vnni_peak(threads);
    case 4:
      return bf16_peak(threads);
    case 5:
      return fma_peak(threads);
    case 6:
      return fma256_peak(threads);
    case 7:
      return madd16_peak(threads);
    default:
      return madd8_peak(threads);
  }
}

// One load per line, by every thread, since each core has caches of its own. (Stores would leave lines behind that are
// written back while the next call is timed; a large memset goes around the caches.)
extern "C" void evict(int threads, void* buffer, long bytes) {
  const long share = bytes / threads / 64 * 64;
  timed(threads, [=](int thread) {
    const volatile int32_t* line = reinterpret_cast<const int32_t*>(static_cast<char*>(buffer) + thread * share);
    for (long i = 0; i < share / 4; i += 16) (void)line[i];
  });
}
