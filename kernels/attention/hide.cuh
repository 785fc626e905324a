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

// Steps of so many keys that no row at or behind `position` sees of what it sees `span` tokens of (0: everything).
__device__ inline int64_t unseen_steps(int64_t position, int64_t span, int64_t keys) { return span > 0 ? max(position + 1 - span, int64_t{0}) / keys : 0; }

// What keys that stand for pages have in their scores' exponents (log2), of pages `first` .. + kCount - 1 within a multiple of 32: the weight of
// 128 keys and the page's gain, minus infinity where the page is no candidate or is visited.
template <int kCount>
__device__ inline void stand_in_biases(const Tile& t, const uint32_t* bits, int first, const float (&gains)[kCount], float (&biases)[kCount]) {
  const uint32_t counts = mean_bits(t, bits, first / 32) >> first % 32;
#pragma unroll
  for (int i = 0; i < kCount; ++i) biases[i] = counts >> i & 1 ? kMeanBias + gains[i] : -INFINITY;
}

// Adds what stand-ins have in their exponents to unscaled scores: biases_of(key), of this key of the block and the next. The warp waits
// after every second read: read all at once, they take registers that RowsE4M3Sm90 needs, which cost it a fifth of its time.
template <int kCount, typename Biases>
__device__ inline void add_biases(float (&score)[kCount], float scale0, float scale1, Biases biases_of) {
  const float inverse[2] = {1 / scale0, 1 / scale1};
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    const float2 bias = biases_of(j * 8 + static_cast<int>(threadIdx.x) % 4 * 2);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      score[4 * j + 2 * r] = fmaf(bias.x, inverse[r], score[4 * j + 2 * r]);
      score[4 * j + 2 * r + 1] = fmaf(bias.y, inverse[r], score[4 * j + 2 * r + 1]);
    }
    if (j % 2 == 1) __syncwarp();
  }
}

}  // namespace longview::kernels
