// What a warp has of the rows of its tile (attention/code_tile.cuh), of whatever format of 8 or 4 bits the pages are.
//
// Keys, and of values dimensions, are the 16 rows of the tensor cores' products; the 8 columns are rows of the tile, of which one token
// seldom has more. With them as the products' rows, half of the scores and results would be of no row.
#pragma once

#include "kernels/attention/code_tile.cuh"
#include "kernels/ptx/exp2.cuh"

namespace longview::kernels {

// kEights: of rows, 1 or 2. A thread has rows 8 n + lane % 4 * 2 + c: scores of keys 16 j + 8 h + lane / 4 of the step at
// score[j][n][2 h + c], results of dimensions 32 b + lane / 4 * 4 + 2 e + h at out[2 b + e][n][2 h + c]. Of queries it has row 8 n + lane / 4.
template <int D, int kEights>
struct CodeRows {
  float score[2][kEights][4], maximum[kEights][2], sum[kEights][2] = {}, out[D / 16][kEights][4] = {};
  uint32_t query[kEights][D / 16][2];

  __device__ CodeRows() {
#pragma unroll
    for (int n = 0; n < kEights; ++n) maximum[n][0] = maximum[n][1] = -INFINITY;
  }
  // In bf16, four dimensions from dimension_of(i) on.
  template <typename Dimension>
  __device__ void read_queries(const CodeTile& tile, Dimension dimension_of) {
#pragma unroll
    for (int n = 0; n < kEights; ++n)
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        uint2 four = {0, 0};
        if (tile.row[n] < tile.p.rows) four = *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(tile.p.args.q) + tile.offset[n] + dimension_of(i));
        query[n][i][0] = four.x;
        query[n][i][1] = four.y;
      }
  }
  // Hides keys of the step from `token` on that a row does not see.
  __device__ void hide(const CodeTile& tile, int64_t token) {
    const int lane = threadIdx.x % 32, span = tile.p.args.span > 0 ? static_cast<int>(min(tile.p.args.span, int64_t{1} << 30)) : 1 << 30;
#pragma unroll
    for (int n = 0; n < kEights; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int last = __shfl_sync(0xffffffffu, static_cast<int>(tile.position[n] - token), (lane % 4 * 2 + c) * 4);
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int h = 0; h < 2; ++h)
            if (const int key = 16 * j + 8 * h + lane / 4; key > last || key <= last - span) score[j][n][2 * h + c] = -INFINITY;
      }
  }
  // Scores become weights, earlier results shrink. A weight is 2^(score * slope + lift + raise), over that of the largest so far without
  // `raise`; what it counts in the sum is `share` of it.
  __device__ void soften(const float (&slope)[kEights][2], float lift, float raise, float share) {
    float factor[kEights][2];
    bool shrinks = false;
#pragma unroll
    for (int n = 0; n < kEights; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float highest = column_max(fmaxf(fmaxf(score[0][n][c], score[0][n][2 + c]), fmaxf(score[1][n][c], score[1][n][2 + c])));
        highest = fmaxf(maximum[n][c], fmaf(highest, slope[n][c], lift));
        const float finite = highest == -INFINITY ? 0.0f : highest;  // a row that has seen nothing yet
        factor[n][c] = ptx::exp2(maximum[n][c] - finite);
        shrinks |= factor[n][c] != 1.0f;
        maximum[n][c] = highest;
        const float base = finite - lift - raise;
        float added = 0;
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int h = 0; h < 2; ++h) added += score[j][n][2 * h + c] = ptx::exp2(fmaf(score[j][n][2 * h + c], slope[n][c], -base));
        sum[n][c] = fmaf(sum[n][c], factor[n][c], added * share);
      }
    if (__any_sync(0xffffffffu, shrinks))
#pragma unroll
      for (int j = 0; j < D / 16; ++j)
#pragma unroll
        for (int n = 0; n < kEights; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) out[j][n][i] *= factor[n][i % 2];
  }
  // Results become themselves times `unit`, those of odd dimensions times `odd`.
  __device__ void put(const WarpResults<D>& to, float unit) const { put(to, unit, unit); }
  __device__ void put(const WarpResults<D>& to, float unit, float odd) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < kEights; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int row = 8 * n + lane % 4 * 2 + c;
        const float all = column_sum(sum[n][c]);
        if (row >= to.rows) continue;
        if (lane < 4) to.set(row, maximum[n][c], all);
#pragma unroll
        for (int b = 0; b < D / 32; ++b) {
          const auto &near = out[2 * b][n], &far = out[2 * b + 1][n];
          *reinterpret_cast<float4*>(to.result(row, b * 32 + lane / 4 * 4)) = {near[c] * unit, near[2 + c] * odd, far[c] * unit, far[2 + c] * odd};
        }
      }
  }
};

}  // namespace longview::kernels
