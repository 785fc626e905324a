// out [M, N] = x [M, K] * weight [N, K]^T + bias on the tensor cores of sm_90. One warpgroup brings tiles of 128 x 64 and
// 256 x 64 through a ring of four stages by the copy engine; two others multiply, 64 x 256 each. A block takes one tile after
// another, so that the next tile's first stages arrive while the last one is written out.
#include <cuda.h>

#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/gemm/gemm.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace longview::kernels {
namespace {

constexpr int kRows = 128, kColumns = 256, kStep = 64, kStages = 4, kThreads = 384;
constexpr uint32_t kXBytes = kRows * kStep * 2, kWeightBytes = kColumns * kStep * 2, kStageBytes = kXBytes + kWeightBytes;
constexpr int kSharedBytes = kStages * kStageBytes + 1024;  // the ring begins at a multiple of 1,024
// Column tiles that a wave of blocks shares: what it reads stays in the second-level cache.
constexpr int64_t kBand = 8;

struct Params {
  GemmArgs args;
  int64_t tiles_m, tiles_n;
  int32_t steps;
};

struct Tile {
  int64_t row, column;
};
__device__ inline Tile tile_at(const Params& p, int64_t index) {
  const int64_t band = index / (kBand * p.tiles_m), in_band = index % (kBand * p.tiles_m);
  const int64_t width = min(kBand, p.tiles_n - band * kBand);
  return {in_band / width * kRows, (band * kBand + in_band % width) * kColumns};
}

template <typename Out>
__device__ inline void store(const Params& p, int64_t row, int64_t column, float a, float b) {
  if (row >= p.args.m || column >= p.args.n) return;
  Out* to = static_cast<Out*>(p.args.out) + row * p.args.n + column;
  const bool pair = column + 1 < p.args.n && p.args.n % 2 == 0;
  if constexpr (sizeof(Out) == 4) {
    if (pair) {
      *reinterpret_cast<float2*>(to) = {a, b};
    } else {
      to[0] = a;
      if (column + 1 < p.args.n) to[1] = b;
    }
  } else if (pair) {
    *reinterpret_cast<uint32_t*>(to) = pack_bf16(a, b);
  } else {
    to[0] = __float2bfloat16(a);
    if (column + 1 < p.args.n) to[1] = __float2bfloat16(b);
  }
}

template <typename Out>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_sm90_kernel(const Params p, const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap weight_map) {
  extern __shared__ char shared_bytes[];
  __shared__ uint64_t barriers[2 * kStages];
  const uint32_t ring = (ptx::shared_address(shared_bytes) + 1023) & ~1023u;
  const uint32_t full = ptx::shared_address(barriers), empty = full + kStages * 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::mbarrier_init(full + 8 * i, 1);
      ptx::mbarrier_init(empty + 8 * i, 2);
    }
    ptx::fence_mbarrier_init();
    ptx::tma_prefetch(&x_map);
    ptx::tma_prefetch(&weight_map);
  }
  __syncthreads();

  const int64_t tiles = p.tiles_m * p.tiles_n;
  uint32_t stage = 0, parity = 0;
  const auto advance = [&] {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  };
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    ptx::registers_down<40>();
    if (threadIdx.x != 0) return;
    for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
      const Tile tile = tile_at(p, index);
      for (int32_t step = 0; step < p.steps; ++step) {
        ptx::mbarrier_wait(empty + 8 * stage, parity ^ 1);  // passes at once in the first round
        const uint32_t to = ring + stage * kStageBytes, barrier = full + 8 * stage;
        ptx::mbarrier_arrive_expect(barrier, kStageBytes);
        ptx::tma_load_2d(to, &x_map, step * kStep, static_cast<int32_t>(tile.row), barrier);
        ptx::tma_load_2d(to + kXBytes, &weight_map, step * kStep, static_cast<int32_t>(tile.column), barrier);
        advance();
      }
    }
  } else {
    ptx::registers_up<232>();
    const int thread = threadIdx.x % 128;
    for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
      float sum[128];
      for (int32_t step = 0; step < p.steps; ++step) {
        ptx::mbarrier_wait(full + 8 * stage, parity);
        const uint64_t x = ptx::wgmma_descriptor(ring + stage * kStageBytes + (warpgroup - 1) * (kXBytes / 2));
        const uint64_t weight = ptx::wgmma_descriptor(ring + stage * kStageBytes + kXBytes);
        ptx::wgmma_hold(sum);
        ptx::wgmma_fence();
#pragma unroll
        for (int i = 0; i < kStep / 16; ++i) ptx::wgmma_m64n256k16(sum, x + 2 * i, weight + 2 * i, step > 0 || i > 0);
        ptx::wgmma_commit();
        // One product stays under way; the stage before it can be filled again.
        ptx::wgmma_wait<1>();
        if (step > 0 && thread == 0) ptx::mbarrier_arrive(empty + 8 * ((stage + kStages - 1) % kStages));
        advance();
      }
      ptx::wgmma_wait<0>();
      ptx::wgmma_hold(sum);
      if (thread == 0) ptx::mbarrier_arrive(empty + 8 * ((stage + kStages - 1) % kStages));

      const Tile tile = tile_at(p, index);
      const int64_t row = tile.row + (warpgroup - 1) * 64 + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
      for (int j = 0; j < 32; ++j) {
        const int64_t column = tile.column + j * 8 + thread % 4 * 2;
        const float bias0 = p.args.bias && column < p.args.n ? p.args.bias[column] : 0.0f;
        const float bias1 = p.args.bias && column + 1 < p.args.n ? p.args.bias[column + 1] : 0.0f;
        store<Out>(p, row, column, sum[4 * j] + bias0, sum[4 * j + 1] + bias1);
        store<Out>(p, row + 8, column, sum[4 * j + 2] + bias0, sum[4 * j + 3] + bias1);
      }
    }
  }
}

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's, asked for at run time: the library links no driver.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result) != cudaSuccess) return nullptr;
  return result == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(function) : nullptr;
}

// A bf16 matrix [rows, columns] in boxes of box_rows x 64.
Status describe(CUtensorMap* map, const void* data, int64_t rows, int64_t columns, uint32_t box_rows) {
  static const Encode encode = find_encode();
  if (!encode) return cudaErrorNotSupported;
  const cuuint64_t extent[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t stride[1] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[2] = {kStep, box_rows}, step[2] = {1, 1};
  const CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), extent, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? kOk : static_cast<Status>(cudaErrorInvalidValue);
}

template <typename Out>
Status launch(const Params& p, unsigned blocks, const CUtensorMap& x, const CUtensorMap& weight, Stream stream) {
  if (const auto error = cudaFuncSetAttribute(gemm_sm90_kernel<Out>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes)) return static_cast<Status>(error);
  gemm_sm90_kernel<Out><<<blocks, kThreads, kSharedBytes, cuda(stream)>>>(p, x, weight);
  return launched();
}

}  // namespace

Status launch_gemm_sm90(const GemmArgs& args, int32_t multiprocessors, Stream stream) {
  if (args.m > kLargestGrid || args.n > kLargestGrid || args.k > kLargestGrid - kStep) return kInvalidShape;
  const Params p{args, ceil_div(args.m, kRows), ceil_div(args.n, kColumns), static_cast<int32_t>(ceil_div(args.k, kStep))};
  CUtensorMap x, weight;
  if (const Status status = describe(&x, args.x, args.m, args.k, kRows)) return status;
  if (const Status status = describe(&weight, args.weight, args.n, args.k, kColumns)) return status;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(p.tiles_m * p.tiles_n, multiprocessors));
  return args.element == Element::kFloat32 ? launch<float>(p, blocks, x, weight, stream) : launch<__nv_bfloat16>(p, blocks, x, weight, stream);
}

}  // namespace longview::kernels
