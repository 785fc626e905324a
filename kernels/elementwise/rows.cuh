// Long rows that a block of threads reads once and keeps in registers: four vectors of eight elements a thread.
#pragma once

#include "kernels/api/elementwise.h"
#include "kernels/common/e4m3.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {

constexpr int kHeldVectors = 4, kMostRowThreads = static_cast<int>(kMostE4M3Columns) / 8 / kHeldVectors;

inline unsigned row_threads(int64_t cols) { return static_cast<unsigned>(ceil_div(cols / 8, kHeldVectors * 32) * 32); }

// The same in every thread. `parts` has room for a value of each warp; it can be used again behind another barrier.
template <typename Join>
__device__ inline float block_reduce(float value, float* parts, Join join) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = join(value, __shfl_xor_sync(0xffffffffu, value, step));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  value = parts[0];
  for (unsigned i = 1; i < blockDim.x / 32; ++i) value = join(value, parts[i]);
  return value;
}

// Writes a row that the block holds in bf16, thread t the vectors t, t + blockDim.x, ..., as row blockIdx.x of a kE4M3 matrix.
__device__ inline void write_e4m3_row(const uint4 (&held)[kHeldVectors], int vectors, void* matrix, int64_t rows, float* parts) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    if (static_cast<int>(threadIdx.x + i * blockDim.x) >= vectors) continue;
    float v[8];
    unpack_bf16x8(held[i], v);
#pragma unroll
    for (int j = 0; j < 8; ++j) largest = fmaxf(largest, fabsf(v[j]));
  }
  largest = block_reduce(largest, parts, [](float a, float b) { return fmaxf(a, b); });
  const bool empty = largest < kSmallestRow;
  const float inverse = empty ? 0.0f : kLargestE4M3 / largest;
  auto* codes = static_cast<uint2*>(matrix) + static_cast<int64_t>(blockIdx.x) * vectors;
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    const int at = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (at >= vectors) continue;
    float v[8];
    unpack_bf16x8(held[i], v);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] *= inverse;
    codes[at] = {pack_e4m3(v[0], v[1], v[2], v[3]), pack_e4m3(v[4], v[5], v[6], v[7])};
  }
  if (threadIdx.x == 0) reinterpret_cast<float*>(static_cast<uint2*>(matrix) + rows * vectors)[blockIdx.x] = empty ? 0.0f : largest / kLargestE4M3;
}

// launch_rms_norm of rows of float32; cols is a multiple of 8, at most kMostE4M3Columns.
Status launch_rms_norm_rows(const RmsNormArgs& args, Stream stream);

}  // namespace longview::kernels
