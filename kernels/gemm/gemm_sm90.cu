// out [M, N] = x [M, K] * weight [N, K]^T + bias on the tensor cores of sm_90, in bf16 or e4m3. One warpgroup brings tiles of
// 128 and 256 rows, 128 bytes of K each, through a ring of four stages by the copy engine; two others multiply, 64 x 256 each. A
// block takes one tile after another, so that the next tile's first stages arrive while the last one is written out.
#include <cuda.h>

#include "kernels/common/e4m3.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/gemm/gemm.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace longview::kernels {
namespace {

constexpr int kRows = kGroupRows, kColumns = 256, kStepBytes = 128, kStages = 4, kThreads = 384;
constexpr uint32_t kXBytes = kRows * kStepBytes, kWeightBytes = kColumns * kStepBytes, kStageBytes = kXBytes + kWeightBytes;
template <WeightType kType>
constexpr int kStep = kType == WeightType::kE4M3 ? kStepBytes : kStepBytes / 2;  // columns
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

// The tile's group; 0 where there are none.
__device__ inline int64_t group_of(const Params& p, const Tile& tile) { return p.args.groups ? p.args.groups[tile.row / kRows] : 0; }

// What a pair of sums is added to: two neighbours, zeros where there are none.
__device__ inline float2 read_pair(const Params& p, int64_t row, int64_t column) {
  if (!p.args.add || row >= p.args.m || column >= p.args.n) return {0, 0};
  const auto* from = static_cast<const float*>(p.args.out) + row * p.args.n + column;
  if (p.args.n % 2 == 0) return *reinterpret_cast<const float2*>(from);
  return {from[0], column + 1 < p.args.n ? from[1] : 0.0f};
}

// Two neighbouring sums as they are, whatever N is.
template <typename Out>
__device__ inline void store(const Params& p, int64_t row, int64_t column, float a, float b) {
  if (row >= p.args.m || column >= p.args.n) return;
  Out* to = static_cast<Out*>(p.args.out) + row * p.args.n + column;
  const bool second = column + 1 < p.args.n;
  if constexpr (sizeof(Out) == 4) {
    if (second && p.args.n % 2 == 0) {
      *reinterpret_cast<float2*>(to) = {a, b};
    } else {
      to[0] = a;
      if (second) to[1] = b;
    }
  } else {
    to[0] = __float2bfloat16(a);
    if (second) to[1] = __float2bfloat16(b);
  }
}

// Pairs of four neighbouring groups of eight columns, each held by the four threads that share a row: afterwards each thread has
// one group whole.
__device__ inline void gather_group(uint32_t (&pairs)[4]) {
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    const bool high = lane & step;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const uint32_t got = __shfl_xor_sync(0xffffffffu, high ? pairs[i] : pairs[i + step], step);
      if (high) pairs[i] = got;
      else pairs[i + step] = got;
    }
  }
}

// Where a thread's sums of a tile belong, what they are scaled by and what is added.
template <WeightType kType>
struct Epilogue {
  const Params& p;
  int64_t row, column;  // of its first sum; the second row is eight on
  float x_scale[2] = {1, 1};

  __device__ Epilogue(const Params& params, int64_t first_row, int64_t first_column) : p(params), row(first_row), column(first_column) {
    if constexpr (kType == WeightType::kE4M3) {
      for (int i = 0; i < 2; ++i) x_scale[i] = row + 8 * i < p.args.m ? e4m3_scale(p.args.x, p.args.m, p.args.k, row + 8 * i) : 0.0f;
    }
  }

  // The sums of both rows at columns at, at + 1.
  __device__ float4 finish(int64_t at, float a, float b, float c, float d) const {
    const bool first = at < p.args.n, second = at + 1 < p.args.n;
    float4 out = {a, b, c, d};
    if constexpr (kType == WeightType::kE4M3) {
      const float left = first ? e4m3_scale(p.args.weight, p.args.n, p.args.k, at) : 0.0f, right = second ? e4m3_scale(p.args.weight, p.args.n, p.args.k, at + 1) : 0.0f;
      out = {a * x_scale[0] * left, b * x_scale[0] * right, c * x_scale[1] * left, d * x_scale[1] * right};
    }
    if (!p.args.bias) return out;
    const float left = first ? p.args.bias[at] : 0.0f, right = second ? p.args.bias[at + 1] : 0.0f;
    return {out.x + left, out.y + right, out.z + left, out.w + right};
  }

  __device__ void write_float(const float (&sum)[128]) const {
    constexpr int kAhead = 8;  // reads under way before the first write
#pragma unroll
    for (int j = 0; j < 32; j += kAhead) {
      float2 before[kAhead][2];
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
#pragma unroll
        for (int r = 0; r < 2; ++r) before[i][r] = read_pair(p, row + 8 * r, column + (j + i) * 8);
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t at = column + (j + i) * 8;
        const float4 v = finish(at, sum[4 * (j + i)], sum[4 * (j + i) + 1], sum[4 * (j + i) + 2], sum[4 * (j + i) + 3]);
        store<float>(p, row, at, before[i][0].x + v.x, before[i][0].y + v.y);
        store<float>(p, row + 8, at, before[i][1].x + v.z, before[i][1].y + v.w);
      }
    }
  }

  // 16 bytes a thread where the rows allow it.
  __device__ void write_bf16(const float (&sum)[128]) const {
    const bool whole = p.args.n % 8 == 0;
#pragma unroll
    for (int j = 0; j < 32; j += 4) {
      uint32_t pairs[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t at = column + (j + i) * 8;
        const float4 v = finish(at, sum[4 * (j + i)], sum[4 * (j + i) + 1], sum[4 * (j + i) + 2], sum[4 * (j + i) + 3]);
        pairs[0][i] = pack_bf16(v.x, v.y);
        pairs[1][i] = pack_bf16(v.z, v.w);
        if (!whole) {
          store<__nv_bfloat16>(p, row, at, v.x, v.y);
          store<__nv_bfloat16>(p, row + 8, at, v.z, v.w);
        }
      }
      if (!whole) continue;
      const int64_t at = column - threadIdx.x % 4 * 2 + (j + threadIdx.x % 4) * 8;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        gather_group(pairs[i]);
        if (row + 8 * i < p.args.m && at < p.args.n)
          *reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(p.args.out) + (row + 8 * i) * p.args.n + at) = {pairs[i][0], pairs[i][1], pairs[i][2], pairs[i][3]};
      }
    }
  }
};

// One stage's part of 64 x 256 products. In bf16 the tensor cores' own sums last for all of K, and one product stays under way.
__device__ inline void multiply_bf16(float (&sum)[128], uint64_t x, uint64_t weight, bool first) {
  ptx::wgmma_hold(sum);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4; ++i) ptx::wgmma_m64n256k16(sum, x + 2 * i, weight + 2 * i, !first || i > 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<1>();
}

// In e4m3 they last for 128 of K, then go to float32 (as in DeepGEMM). Half of the columns at a time, for want of registers: the
// other warpgroup multiplies meanwhile.
__device__ inline void multiply_e4m3(float (&sum)[128], uint64_t x, uint64_t weight) {
  constexpr uint64_t kHalf = kWeightBytes / 2 / 16;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float part[64];
    ptx::wgmma_hold(part);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; ++i) ptx::wgmma_m64n128k32_e4m3(part, x + 2 * i, weight + half * kHalf + 2 * i, i > 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(part);
#pragma unroll
    for (int i = 0; i < 64; ++i) sum[64 * half + i] += part[i];
  }
}

template <WeightType kType, typename Out>
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
      const int64_t group = group_of(p, tile);
      if (group < 0) continue;
      for (int32_t step = 0; step < p.steps; ++step) {
        ptx::mbarrier_wait(empty + 8 * stage, parity ^ 1);  // passes at once in the first round
        const uint32_t to = ring + stage * kStageBytes, barrier = full + 8 * stage;
        ptx::mbarrier_arrive_expect(barrier, kStageBytes);
        ptx::tma_load_2d(to, &x_map, step * kStep<kType>, static_cast<int32_t>(tile.row), barrier);
        ptx::tma_load_2d(to + kXBytes, &weight_map, step * kStep<kType>, static_cast<int32_t>(group * p.args.n + tile.column), barrier);
        advance();
      }
    }
  } else {
    ptx::registers_up<232>();
    const int thread = threadIdx.x % 128;
    const auto release = [&](uint32_t done) {
      if (thread == 0) ptx::mbarrier_arrive(empty + 8 * done);
    };
    for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
      const Tile tile = tile_at(p, index);
      if (group_of(p, tile) < 0) continue;
      float sum[128] = {};
      for (int32_t step = 0; step < p.steps; ++step) {
        ptx::mbarrier_wait(full + 8 * stage, parity);
        const uint64_t x = ptx::wgmma_descriptor(ring + stage * kStageBytes + (warpgroup - 1) * (kXBytes / 2));
        const uint64_t weight = ptx::wgmma_descriptor(ring + stage * kStageBytes + kXBytes);
        if constexpr (kType == WeightType::kE4M3) {
          multiply_e4m3(sum, x, weight);
          release(stage);
        } else {
          multiply_bf16(sum, x, weight, step == 0);
          if (step > 0) release((stage + kStages - 1) % kStages);  // the stage before is done with
        }
        advance();
      }
      if constexpr (kType != WeightType::kE4M3) {
        ptx::wgmma_wait<0>();
        ptx::wgmma_hold(sum);
        release((stage + kStages - 1) % kStages);
      }
      const Epilogue<kType> epilogue(p, tile.row + (warpgroup - 1) * 64 + thread / 32 * 16 + thread % 32 / 4, tile.column + thread % 4 * 2);
      if constexpr (sizeof(Out) == 4) epilogue.write_float(sum);
      else epilogue.write_bf16(sum);
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

// A matrix [rows, columns] in boxes of box_rows x 128 bytes.
Status describe(CUtensorMap* map, const void* data, WeightType type, int64_t rows, int64_t columns, uint32_t box_rows) {
  static const Encode encode = find_encode();
  if (!encode) return cudaErrorNotSupported;
  const bool coded = type == WeightType::kE4M3;
  const uint32_t element_bytes = coded ? 1 : 2;
  const cuuint64_t extent[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t stride[1] = {static_cast<cuuint64_t>(columns) * element_bytes};
  const cuuint32_t box[2] = {kStepBytes / element_bytes, box_rows}, step[2] = {1, 1};
  const CUresult result = encode(map, coded ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), extent, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? kOk : static_cast<Status>(cudaErrorInvalidValue);
}

template <WeightType kType, typename Out>
Status launch(const Params& p, unsigned blocks, const CUtensorMap& x, const CUtensorMap& weight, Stream stream) {
  if (const Status error = allow_shared(gemm_sm90_kernel<kType, Out>, kSharedBytes)) return error;
  gemm_sm90_kernel<kType, Out><<<blocks, kThreads, kSharedBytes, cuda(stream)>>>(p, x, weight);
  return launched();
}

template <WeightType kType>
Status launch(const GemmArgs& args, int32_t multiprocessors, Stream stream) {
  if (args.m > kLargestGrid || args.n > kLargestGrid / args.group_count || args.k > kLargestGrid - kStep<kType>) return kInvalidShape;
  const Params p{args, ceil_div(args.m, kRows), ceil_div(args.n, kColumns), static_cast<int32_t>(ceil_div(args.k, kStep<kType>))};
  CUtensorMap x, weight;
  if (const Status status = describe(&x, args.x, kType, args.m, args.k, kRows)) return status;
  if (const Status status = describe(&weight, args.weight, kType, args.n * args.group_count, args.k, kColumns)) return status;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(p.tiles_m * p.tiles_n, multiprocessors));
  return args.element == Element::kFloat32 ? launch<kType, float>(p, blocks, x, weight, stream) : launch<kType, __nv_bfloat16>(p, blocks, x, weight, stream);
}

}  // namespace

Status launch_gemm_sm90(const GemmArgs& args, int32_t multiprocessors, Stream stream) {
  return args.type == WeightType::kE4M3 ? launch<WeightType::kE4M3>(args, multiprocessors, stream) : launch<WeightType::kBFloat16>(args, multiprocessors, stream);
}

}  // namespace longview::kernels
