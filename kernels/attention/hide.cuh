// Scores that do not count become minus infinity. A thread holds, of two rows and every eight columns, the two from
// threadIdx.x % 4 * 2 on: [4 j], [4 j + 1] of the first row, [4 j + 2], [4 j + 3] of the second.
#pragma once

#include "kernels/index/tile.cuh"

namespace longview::kernels {

// Hides keys behind each row's last visible one, counted from the block's first key.
template <int kCount>
__device__ inline void hide_behind(float (&score)[kCount], int limit0, int limit1) {
  const int limit[2] = {limit0, limit1}, column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    if (i / 4 * 8 + column + i % 2 > limit[i / 2 % 2]) score[i] = -INFINITY;
}

// Hides keys from `sink` on that lie at or before each row's `behind`, all counted from the block's first key.
template <int kCount>
__device__ inline void hide_between(float (&score)[kCount], int sink, int behind0, int behind1) {
  const int behind[2] = {behind0, behind1}, column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int key = i / 4 * 8 + column + i % 2;
    if (key >= sink && key <= behind[i / 2 % 2]) score[i] = -INFINITY;
  }
}

// Keys that stand for pages, from `first_page` on (a multiple of 32): a page that is no candidate or is visited does not count, the others
// weigh as 128 keys and their gain each. `gains`: of the KV head's pages from 0 on. The warp waits after every second read: read
// all at once, gains take registers that RowsE4M3Sm90 needs, which cost it a fifth of its time.
template <int kCount>
__device__ inline void hide_visited(float (&score)[kCount], const Tile& t, const uint32_t* bits, const float* gains, int first_page, float scale0, float scale1) {
  const float inverse[2] = {1 / scale0, 1 / scale1}, bias[2] = {kMeanBias * inverse[0], kMeanBias * inverse[1]};
  const float2* from = reinterpret_cast<const float2*>(gains + first_page) + threadIdx.x % 4;
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    const float2 gain = __ldg(from + j * 4);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      score[4 * j + 2 * r] = fmaf(gain.x, inverse[r], score[4 * j + 2 * r]);
      score[4 * j + 2 * r + 1] = fmaf(gain.y, inverse[r], score[4 * j + 2 * r + 1]);
    }
    if (j % 2 == 1) __syncwarp();
  }
#pragma unroll
  for (int word = 0; word < kCount / 16; ++word) {
    const uint32_t counts = mean_bits(t, bits, first_page / 32 + word) >> threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& x = score[word * 16 + i];
      x = counts >> (i / 4 * 8 + i % 2) & 1 ? x + bias[i / 2 % 2] : -INFINITY;
    }
  }
}

}  // namespace longview::kernels
