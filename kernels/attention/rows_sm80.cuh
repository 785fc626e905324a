// What a warp of sm_80 does with its 16 rows: scores against tiles of keys, online softmax, weighted values. Shared by dense and
// sparse attention, which differ in the tiles that they bring.
#pragma once

#include "kernels/attention/hide.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {

constexpr int kKeys = 64;

// Rows of D bf16; the 16-byte chunk turns with the row, so that eight rows of one column lie in eight bank groups.
template <int D>
__device__ inline uint32_t swizzled(int row, int chunk) {
  return row * (D * 2) + ((chunk ^ (row & 7)) << 4);
}

// Starts copying K at `keys`, a block of a page's layout, and V behind it: kCount tokens from `first` on, zeros for those behind
// the first `valid`. kAtOnce: of a thread's copies; few registers are left beside the results of a head of 256.
template <int D, int kThreads, int kCount = kKeys, int kAtOnce = (D > 128 ? 4 : 8)>
__device__ inline void load_keys(uint32_t to, const __nv_bfloat16* keys, int first, int valid) {
  const __nv_bfloat16* values = keys + kPageTokens * D;
#pragma unroll kAtOnce
  for (int i = 0; i < kCount * (D / 8) / kThreads; ++i) {
    const int item = static_cast<int>(threadIdx.x) + i * kThreads, row = item / (D / 8), chunk = item % (D / 8);
    const int64_t offset = page_offset(row < valid ? first + row : 0, chunk * 8);
    ptx::cp_async_16(to + swizzled<D>(row, chunk), keys + offset, row < valid);
    ptx::cp_async_16(to + kCount * D * 2 + swizzled<D>(row, chunk), values + offset, row < valid);
  }
}

// Tiles of kCount keys. A thread holds parts of rows lane / 4 and + 8 (attention/hide.cuh). Queries of heads of 256, whose results take 128
// registers, stay in shared memory and are read for each tile again, unless kHeld.
template <int D, int kCount = kKeys, bool kHeld = (D <= 128)>
struct RowsSm80 {
  float score[kCount / 2], maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, out[D / 8][4] = {};
  uint32_t query[kHeld ? D / 16 : 1][4];

  // The warp's 16 queries from rows first .. first + 15 at `shared`.
  __device__ void load(uint32_t shared, int first) {
    kept = shared + first * (D * 2);
#pragma unroll
    for (int i = 0; i < (kHeld ? D / 16 : 0); ++i) load_queries(query[i], i);
  }
  __device__ void multiply_keys(uint32_t keys) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) score[i] = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      if constexpr (!kHeld) load_queries(query[0], i);
#pragma unroll
      for (int j = 0; j < kCount / 16; ++j) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b, keys + swizzled<D>(j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
        ptx::mma_bf16(*reinterpret_cast<float(*)[4]>(&score[8 * j]), query[kHeld ? i : 0], b[0], b[1]);
        ptx::mma_bf16(*reinterpret_cast<float(*)[4]>(&score[8 * j + 4]), query[kHeld ? i : 0], b[2], b[3]);
      }
    }
  }
  // Scores become weights, earlier results shrink.
  __device__ void soften(float scale) {
    float highest[2] = {maximum[0], maximum[1]};
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) highest[i / 2 % 2] = fmaxf(highest[i / 2 % 2], score[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = quad_max(highest[r]);
      const float base = highest[r] == -INFINITY ? 0.0f : highest[r];  // a row that has seen nothing yet
      const float factor = ptx::exp2((maximum[r] - base) * scale);
      maximum[r] = highest[r];
      sum[r] *= factor;
#pragma unroll
      for (int j = 0; j < D / 8; ++j) {
        out[j][2 * r] *= factor;
        out[j][2 * r + 1] *= factor;
      }
      highest[r] = base * scale;
    }
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      score[i] = ptx::exp2(fmaf(score[i], scale, -highest[i / 2 % 2]));
      sum[i / 2 % 2] += score[i];
    }
  }
  __device__ void multiply_values(uint32_t values) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < kCount / 16; ++j) {
      uint32_t weight[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) weight[i] = pack_bf16(score[8 * j + 2 * i], score[8 * j + 2 * i + 1]);
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        uint32_t b[4];
        ptx::ldmatrix_x4_transposed(b, values + swizzled<D>(j * 16 + lane % 16, i * 2 + lane / 16));
        ptx::mma_bf16(out[2 * i], weight, b[0], b[1]);
        ptx::mma_bf16(out[2 * i + 1], weight, b[2], b[3]);
      }
    }
  }
  // Sums of the four threads of a row, in each of them.
  __device__ void join() {
#pragma unroll
    for (float& of_row : sum) of_row = quad_sum(of_row);
  }
  // Divides row r's results by its sum and stores them.
  __device__ void store(int r, __nv_bfloat16* to) const {
    const float factor = 1.0f / sum[r];
#pragma unroll
    for (int j = 0; j < D / 8; ++j)
      *reinterpret_cast<uint32_t*>(to + j * 8 + threadIdx.x % 4 * 2) = pack_bf16(out[j][2 * r] * factor, out[j][2 * r + 1] * factor);
  }

 private:
  uint32_t kept;  // where the queries are

  __device__ void load_queries(uint32_t (&to)[4], int i) const { ptx::ldmatrix_x4(to, kept + swizzled<D>(threadIdx.x % 16, i * 2 + threadIdx.x % 32 / 16)); }
};

}  // namespace longview::kernels
