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

// Keys that are means, of the pages from `first_page` on (a multiple of 32): a page that is no candidate or is visited does not
// count, the others stand for 128 keys each.
template <int kCount>
__device__ inline void hide_visited(float (&score)[kCount], const Tile& t, const uint32_t* bits, int first_page, float scale0, float scale1) {
  const float bias[2] = {kMeanBias / scale0, kMeanBias / scale1};
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
