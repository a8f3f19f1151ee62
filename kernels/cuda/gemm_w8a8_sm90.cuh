// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_sm90.cuh: y = (x . weight^T) * row_scale * col_scale + bias, codes of 8 bits, on Hopper's wgmma by CUTLASS
//
//   y[m,n] = ((float)(sum_k x[m,k] * w[n,k]) * row_scale[m]) * col_scale[n] + bias[n]        rounded once, to bf16 or
//   f16
//
// Shapes    x (M,K) E4M3 or int8 rows; weight CODE_ROWS (docs/layouts.md); y (M,N); rows of all three begin at
// multiples
//           of 16 bytes
// Needs     sm_90a; any M, N, K: what does not exist the copy engine reads as zero and does not write
// Tile      BM x BN x BK, as in gemm_w8a8_sm90_tiles.h. A block is a warp that copies and two groups of four warps that
//           multiply; it stays on its multiprocessor and takes tile after tile. As many copies are under way as shared
//           memory has room for, some 200 KB, so that even one tile per multiprocessor keeps the memory busy.
//
//              groups share a tile                 groups alternate
//              copy   │ 0 │ 1 │ 2 │ ...            copy   │ 0 │ 1 │ 2 │ ...
//              both   ╰▶ multiply ─ store ─ ...    one    ╰▶ multiply 0 ─ store 0 ─ multiply 2 ...
//                                                  other      (waits)  multiply 1 ─ store 1 ...
//
//           Few tokens: rows are outputs and columns tokens, y^T = weight . x^T. wgmma has at least 64 rows but as few
//           as 8 columns, so that M = 16 wastes nothing; y is written transposed, which costs it nothing.
// Epilogue  a tree of CUTLASS's visitors: row and column vectors, two products, and a last node of our own (Rounded)
//           that adds the bias and rounds, by a flag to bf16 or f16: one kernel for both, and with or without bias
// Limit     2 M N K operations over the FP8 or INT8 peak (1979 T/s on an H100 SXM); for M <= 64 the weight's N K bytes
//           over the memory's bandwidth. Per 128 inputs a block multiplies for BM BN / 32 cycles and copies
//           128 (BM + BN) bytes from L2, the operand that a pair of blocks shares counting half: 128 x 256 needs 32
//           bytes per cycle, 128 x 128 needs 48.
// Numerics  INT8: sums exact modulo 2^32, hence without error for K < 131072; the float operations are the CPU's in
// their
//           order (compiled without contraction): the same bits. FP8: products exact; Sums::fast leaves sums in the
//           tensor core, which keeps what is above 2^-13 of the largest of its addends; Sums::exact adds them up in
//           float32 every 128 inputs. Bounds in tests/cuda/gemm_w8a8_sm90_test.cu. No sum depends on the tile's place
//           or on how many blocks there are, so runs repeat bit for bit.
// Reference kernels/reference/linear.cpp          Source  CUTLASS 3 (collectives and their builders), the epilogue own
// Tried     not yet run on a card. Machine code: 168 registers, no stack in any tile. 128 x 256 with groups that
// alternate
//           spills 5 KB (128 sums per thread and group, and the same again); with assertions left in, wgmma is
//           serialized around their calls.
#pragma once
#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include "gemm_w8a8_sm90_tiles.h"
#include "ptx/convert.cuh"
#include "runtime.cuh"

namespace pennyweight::cuda {
namespace sm90 {

namespace fusion = cutlass::epilogue::fusion;

// The last step of the epilogue, a node of its tree: adds the bias, if there is one, and rounds to y's dtype. Both
// 16-bit dtypes are one kernel: what they have in common is all but these few conversions.
struct Rounded {
  struct SharedStorage {};
  struct Arguments {
    bool bf16, bias;
  };
  using Params = Arguments;
  template <class Problem>
  static constexpr Params to_underlying_arguments(const Problem&, const Arguments& args, void*) {
    return args;
  }
  template <class Problem>
  static bool can_implement(const Problem&, const Arguments&) {
    return true;
  }
  template <class Problem>
  static size_t get_workspace_size(const Problem&, const Arguments&) {
    return 0;
  }
  template <class Problem>
  static cutlass::Status initialize_workspace(const Problem&, const Arguments&, void*, cudaStream_t,
                                              cutlass::CudaHostAdapter* = nullptr) {
    return cutlass::Status::kSuccess;
  }

  CUTLASS_HOST_DEVICE Rounded() {}
  CUTLASS_HOST_DEVICE Rounded(const Params& params, const SharedStorage&) : params(params) {}
  CUTLASS_DEVICE bool is_producer_load_needed() const { return false; }
  CUTLASS_DEVICE bool is_C_load_needed() const { return false; }
  template <class... Args>
  CUTLASS_DEVICE auto get_producer_load_callbacks(const fusion::ProducerLoadArgs<Args...>&) {
    return fusion::EmptyProducerLoadCallbacks{};
  }

  struct ConsumerStoreCallbacks : fusion::EmptyConsumerStoreCallbacks {
    const Params& params;
    CUTLASS_DEVICE ConsumerStoreCallbacks(const Params& params) : params(params) {}

    template <class Sum, int count>
    CUTLASS_DEVICE cutlass::Array<uint16_t, count> visit(const cutlass::Array<Sum, count>&, int, int, int,
                                                         const cutlass::Array<uint16_t, count>& bias,
                                                         const cutlass::Array<float, count>& scaled) {
      static_assert(count % 2 == 0);
      cutlass::Array<uint16_t, count> out;
      uint32_t* pair = reinterpret_cast<uint32_t*>(out.data());
      if (params.bf16) {
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < count; i += 2) {
          float low = scaled[i], high = scaled[i + 1];
          if (params.bias) {
            low += bits_f32(static_cast<uint32_t>(bias[i]) << 16);
            high += bits_f32(static_cast<uint32_t>(bias[i + 1]) << 16);
          }
          pair[i / 2] = ptx::bf16x2_of_f32(low, high);
        }
      } else {
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < count; i += 2) {
          float low = scaled[i], high = scaled[i + 1];
          if (params.bias) {
            low += ptx::f32_of_f16(bias[i]);
            high += ptx::f32_of_f16(bias[i + 1]);
          }
          pair[i / 2] = ptx::f16x2_of_f32(low, high);
        }
      }
      return out;
    }
  };
  template <bool, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(const fusion::ConsumerStoreArgs<Args...>&) {
    return ConsumerStoreCallbacks(params);
  }

  Params params;
};

// A vector with an element per row, or per column, of the tile. No alignment is asked of it.
template <class T, class Tile>
using PerRow = fusion::Sm90ColBroadcast<0, Tile, T, T, cute::Stride<cute::_1, cute::_0, cute::_0>, 1>;
template <class T, class Tile>
using PerColumn = fusion::Sm90RowBroadcast<0, Tile, T, T, cute::Stride<cute::_0, cute::_1, cute::_0>, 1>;

template <class T>
struct Types {
  static constexpr bool int8 = T::codes == Codes::int8, swapped = T::rows == Rows::outputs;
  static constexpr bool share = T::groups == Groups::share, fast = T::sums == Sums::fast && !int8;
  using Code = cute::conditional_t<int8, int8_t, cutlass::float_e4m3_t>;
  using Sum = cute::conditional_t<int8, int32_t, float>;
  using Tile = cute::Shape<cute::Int<T::BM>, cute::Int<T::BN>, cute::Int<T::BK>>;
  static constexpr int down = T::pair == Pair::below ? 2 : 1, beside = T::pair == Pair::beside ? 2 : 1;
  using Cluster = cute::Shape<cute::Int<down>, cute::Int<beside>, cute::_1>;

  // ((float)sum * row_scale) * col_scale + bias, each step rounded on its own
  template <class V>
  using PerToken = cute::conditional_t<swapped, PerColumn<V, Tile>, PerRow<V, Tile>>;
  template <class V>
  using PerOutput = cute::conditional_t<swapped, PerRow<V, Tile>, PerColumn<V, Tile>>;
  using Product = fusion::Sm90Compute<cutlass::multiplies, float, float, cutlass::FloatRoundStyle::round_to_nearest>;
  using ByRow = fusion::Sm90EVT<Product, PerToken<float>, fusion::Sm90AccFetch>;
  using ByColumn = fusion::Sm90EVT<Product, PerOutput<float>, ByRow>;
  using Epilogue = fusion::Sm90EVT<Rounded, PerOutput<uint16_t>, ByColumn>;

  using LayoutY = cute::conditional_t<swapped, cutlass::layout::ColumnMajor, cutlass::layout::RowMajor>;
  using EpilogueSchedule = cute::conditional_t<share, cutlass::epilogue::TmaWarpSpecializedCooperative,
                                               cutlass::epilogue::TmaWarpSpecialized>;
  using Store = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, Sum, float, void, LayoutY, 8, uint16_t, LayoutY, 8,
      EpilogueSchedule, Epilogue>::CollectiveOp;

  using Plain = cute::conditional_t<share, cutlass::gemm::KernelTmaWarpSpecializedCooperative,
                                    cutlass::gemm::KernelTmaWarpSpecializedPingpong>;
  using Fast = cute::conditional_t<share, cutlass::gemm::KernelTmaWarpSpecializedCooperativeFP8FastAccum,
                                   cutlass::gemm::KernelTmaWarpSpecializedPingpongFP8FastAccum>;
  using Multiply = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Code, cutlass::layout::RowMajor, 16, Code,
      cutlass::layout::ColumnMajor, 16, Sum, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Store::SharedStorage))>,
      cute::conditional_t<fast, Fast, Plain>>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Multiply, Store,
                                                      cutlass::gemm::PersistentScheduler>;
};

}  // namespace sm90

// Named after our tile, not after the types inside: ptxas treats kernels whose names it knows differently.
template <class T>
__global__ void __launch_bounds__(sm90::Types<T>::Kernel::MaxThreadsPerBlock, 1)
    __cluster_dims__(sm90::Types<T>::down, sm90::Types<T>::beside, 1)
        gemm_w8a8_sm90(const __grid_constant__ typename sm90::Types<T>::Kernel::Params params) {
  extern __shared__ __align__(1024) unsigned char sm90_shared[];
  typename sm90::Types<T>::Kernel kernel;
  kernel(params, reinterpret_cast<char*>(sm90_shared));
}

template <class T>
int launch_sm90(const GemmSm90& p, void* stream) {
  using Types = sm90::Types<T>;
  using Kernel = typename Types::Kernel;
  using Code = typename Types::Code;
  using EpilogueArguments = typename Types::Epilogue::Arguments;
  constexpr bool swapped = Types::swapped;
  typename Kernel::Arguments args{};
  args.mode = cutlass::gemm::GemmUniversalMode::kGemm;
  args.problem_shape = swapped ? cute::make_shape(p.n, p.m, p.k, 1) : cute::make_shape(p.m, p.n, p.k, 1);
  const Code* x = static_cast<const Code*>(p.x);
  const Code* weight = static_cast<const Code*>(p.weight);
  args.mainloop.ptr_A = swapped ? weight : x;
  args.mainloop.ptr_B = swapped ? x : weight;
  cute::get<0>(args.mainloop.dA) = swapped ? p.weight_stride : p.x_stride;
  cute::get<0>(args.mainloop.dB) = swapped ? p.x_stride : p.weight_stride;
  args.epilogue.thread = EpilogueArguments{{p.bias ? static_cast<const uint16_t*>(p.bias) : nullptr, uint16_t{0}, {}},
                                           {{p.col_scale, 0.0f, {}}, {{p.row_scale, 0.0f, {}}, {}, {}}, {}},
                                           {p.bf16, p.bias != nullptr}};
  args.epilogue.ptr_D = static_cast<uint16_t*>(p.y);
  cute::get<swapped ? 1 : 0>(args.epilogue.dD) = p.y_stride;
  args.hw_info.sm_count = p.blocks;
  args.scheduler.max_swizzle_size = p.band;
  const auto params = Kernel::to_underlying_arguments(args, nullptr);
  return launch(gemm_w8a8_sm90<T>, Kernel::get_grid_shape(params), dim3(Kernel::MaxThreadsPerBlock),
                Kernel::SharedStorageSize, stream, params);
}

}  // namespace pennyweight::cuda
