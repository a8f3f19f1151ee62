// SPDX-License-Identifier: Apache-2.0
// launches_sm90.cpp: the host's half of Hopper's GEMMs without a card. Linked with their objects in place of the CUDA
// runtime, it takes what they ask for: tensor maps, held against the rules of cuTensorMapEncodeTiled and against the
// operands; shared memory; the grid. Anything else that a launch would ask the runtime is a fault: it could not be
// captured into a graph, or costs time at every call.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "gemm_w8a8_sm90_tiles.h"
#include "pennyweight/formats.h"

namespace {

int faults = 0, launches = 0;
std::string what;  // is launched

void check(bool holds, const std::string& rule) {
  if (holds) return;
  ++faults;
  std::printf("%s: %s\n", what.c_str(), rule.c_str());
}

struct Map {
  uintptr_t address;
  std::vector<uint64_t> sizes, strides;  // innermost first; strides in bytes, from the second on
};
std::vector<Map> maps;
dim3 grid;

CUresult encode(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address, const cuuint64_t* size,
                const cuuint64_t* stride, const cuuint32_t* box, const cuuint32_t* step,
                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                CUtensorMapFloatOOBfill fill) {
  const uint64_t bytes = type == CU_TENSOR_MAP_DATA_TYPE_UINT16 ? 2 : 1;
  const uint64_t span = swizzle == CU_TENSOR_MAP_SWIZZLE_128B ? 128 : swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? 64 : 32;
  check(type == CU_TENSOR_MAP_DATA_TYPE_UINT8 || type == CU_TENSOR_MAP_DATA_TYPE_UINT16, "another element type");
  check(reinterpret_cast<uintptr_t>(map) % 64 == 0, "a tensor map that does not begin at a multiple of 64");
  check(reinterpret_cast<uintptr_t>(address) % 16 == 0, "an operand that does not begin at a multiple of 16");
  check(interleave == CU_TENSOR_MAP_INTERLEAVE_NONE && swizzle != CU_TENSOR_MAP_SWIZZLE_NONE, "no swizzle");
  check(fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE, "what does not exist is not read as zero");
  check(box[0] * bytes % 16 == 0 && box[0] * bytes <= span, "a box that its swizzle does not take");
  for (cuuint32_t i = 0; i < rank; ++i) {
    check(size[i] >= 1 && size[i] <= uint64_t{1} << 32, "a size of " + std::to_string(size[i]));
    check(box[i] >= 1 && box[i] <= 256 && step[i] == 1, "a box of " + std::to_string(box[i]));
    if (i + 1 < rank)
      check(stride[i] % 16 == 0 && stride[i] < uint64_t{1} << 40, "a stride of " + std::to_string(stride[i]));
  }
  maps.push_back({reinterpret_cast<uintptr_t>(address), {size, size + rank}, {stride, stride + rank - 1}});
  std::memset(map, 0, sizeof *map);
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  check(std::strcmp(name, "cuTensorMapEncodeTiled") == 0, std::string("asks the driver for ") + name);
  *function = reinterpret_cast<void*>(&encode);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute attribute, int value) {
  check(attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value <= 227 << 10,
        std::to_string(value) + " bytes of shared memory");
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void*, void**) {
  ++launches;
  grid = config->gridDim;
  check(config->blockDim.x == 384 && config->dynamicSmemBytes <= 227 << 10, "another block");
  check(config->stream == reinterpret_cast<cudaStream_t>(0x1234), "another stream");
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDevice(int*) {
  check(false, "asks for the current device");
  return cudaErrorUnknown;
}
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int) {
  check(false, "asks for an attribute of the device");
  return cudaErrorUnknown;
}

// What nvcc's host code calls when a program starts.
void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
unsigned __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return 0; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorUnknown; }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaErrorUnknown; }

}  // extern "C"

namespace pennyweight::cuda {
namespace {

// An operand's tensor map: `rows` of `columns` elements, `stride` bytes apart, and nothing beside it.
void check_map(const void* operand, uint64_t columns, uint64_t rows, uint64_t stride) {
  for (const Map& map : maps)
    if (map.address == reinterpret_cast<uintptr_t>(operand))
      return check(map.sizes == std::vector<uint64_t>{columns, rows, 1} && map.strides[0] == stride,
                   "a map of " + std::to_string(map.sizes[1]) + " rows of " + std::to_string(map.sizes[0]));
  check(false, "an operand without a map");
}

template <class T>
void launch(const char* name, int m, int n, int k, int blocks) {
  what = std::string(name) + " m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(k) +
         " on " + std::to_string(blocks);
  alignas(16) static const char x[16] = {}, weight[16] = {};
  alignas(16) static char y[16] = {};
  static const float scales[1] = {};
  GemmSm90 p{};
  p.x = x;
  p.weight = weight;
  p.y = y;
  p.row_scale = p.col_scale = scales;
  p.bias = m % 2 ? scales : nullptr;
  p.m = m;
  p.n = n;
  p.k = k;
  p.x_stride = code_row_bytes(k) + 16;
  p.weight_stride = code_row_bytes(k);
  p.y_stride = round_up(n, 8) + 8;
  p.bf16 = k % 2;
  p.band = 1;
  p.blocks = blocks;
  maps.clear();
  const int before = launches;
  check(launch_sm90<T>(p, reinterpret_cast<void*>(0x1234)) == 0 && launches == before + 1, "not launched");
  check(maps.size() == 3, std::to_string(maps.size()) + " tensor maps");
  check_map(x, k, m, p.x_stride);
  check_map(weight, k, n, p.weight_stride);
  check_map(y, n, m, 2 * p.y_stride);
  const bool outputs = T::rows == Rows::outputs;
  const int64_t rows = outputs ? n : m, columns = outputs ? m : n;
  const int64_t down = T::pair == Pair::below ? 2 : 1, beside = T::pair == Pair::beside ? 2 : 1;
  const int64_t tiles = round_up((rows + T::BM - 1) / T::BM, down) * round_up((columns + T::BN - 1) / T::BN, beside);
  const int64_t there = int64_t{grid.x} * grid.y * grid.z;
  check(there >= 1 && there <= blocks && there <= tiles && grid.x % down == 0 && grid.y % beside == 0,
        "a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " for " + std::to_string(tiles) +
            " tiles");
}

template <class T>
void launches_of(const char* name) {
  struct Shape {
    int m, n, k;
  };
  for (const Shape& s : {Shape{1, 1, 1}, Shape{17, 67, 515}, Shape{255, 129, 16}, Shape{1000, 4096, 8192}})
    for (int blocks : {132, 114}) launch<T>(name, s.m, s.n, s.k, blocks);
}

}  // namespace
}  // namespace pennyweight::cuda

int main() {
  using namespace pennyweight::cuda;
#define PW_LAUNCHES(...) launches_of<__VA_ARGS__>(#__VA_ARGS__);
  PW_SM90_TILES(PW_LAUNCHES)
  std::printf("%d launches, %d faults\n", launches, faults);
  return faults != 0;
}
