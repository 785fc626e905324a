// What the kernels of few rows share: a block has a tile of 16 weight rows, whose elements its warps divide, and adds up what they have.
#pragma once

#include <cuda_bf16.h>

#include "kernels/api/gemm.h"
#include "kernels/common/dequantize.cuh"

namespace longview::kernels {

constexpr int kMatvecWarps = 8;
constexpr int kMatvecTile = 16;  // weight rows
static_assert(kMatvecRows == 8);

struct MatvecParams {
  const uint8_t* weight;
  const uint4* x;  // 8 elements each
  const float* bias;
  void* out;
  int64_t m, n, k, row_bytes;
  bool wide;

  // Rows behind the last stand for it; what becomes of them is not stored.
  __device__ const uint8_t* weight_row(int64_t row) const { return weight + min(row, n - 1) * row_bytes; }
  __device__ const uint4* x_row(int64_t row) const { return x + min(row, m - 1) * (k / 8); }
};

// sum: what a thread has of its warp's part of the tile's products with 8 rows of x, as mma.sync leaves it.
template <WeightType kType>
__device__ inline void store_tile(const MatvecParams& p, int64_t first, const float (&sum)[4]) {
  __shared__ float sums[kMatvecWarps][kMatvecTile][kMatvecRows];
  const int warp = threadIdx.x / 32, row = threadIdx.x % 32 / 4, part = threadIdx.x % 4;
  *reinterpret_cast<float2*>(&sums[warp][row][2 * part]) = {sum[0], sum[1]};
  *reinterpret_cast<float2*>(&sums[warp][row + 8][2 * part]) = {sum[2], sum[3]};
  __syncthreads();
  if (threadIdx.x >= kMatvecTile * kMatvecRows) return;
  const int64_t token = threadIdx.x / kMatvecTile, to = first + threadIdx.x % kMatvecTile;
  if (token >= p.m || to >= p.n) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kMatvecWarps; ++w) total += sums[w][threadIdx.x % kMatvecTile][token];
  if constexpr (kType == WeightType::kE4M3) total *= e4m3_scale(p.weight, p.n, p.k, to);
  if (p.bias) total += p.bias[to];
  if (p.wide) static_cast<float*>(p.out)[token * p.n + to] = total;
  else static_cast<__nv_bfloat16*>(p.out)[token * p.n + to] = __float2bfloat16(total);
}

// launch_matvec of weights that are met in groups, whose rows begin at multiples of 16 bytes; kUnsupportedType of others.
Status launch_matvec_staged(const MatvecParams& params, WeightType type, Stream stream);

}  // namespace longview::kernels
