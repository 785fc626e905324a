// A tile of few queries over pages of 8 or 4 bits: 16 rows (8 of heads of 256), which are (token, head) pairs of one KV head, and a part of the keys. Its block's four
// warps take their own steps of the keys in turn, each against all rows.
#pragma once

#include "kernels/attention/hide.cuh"
#include "kernels/attention/join.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {

constexpr int kStepKeys = 32;

// What this warp takes, in steps of the keys. A thread knows rows lane / 4 and + 8.
struct CodeTile {
  const AttentionPlan& p;
  int64_t first_position, first_row, row[2], position[2];
  int part, kv_head;
  int64_t offset[2];               // of each row in q and in the results, in elements
  int64_t first_visible, visible;  // keys that no row is behind, and keys that the last row sees
  int64_t first, begin, end;       // steps: the block's are begin .. end - 1, this warp's every kJoinWarps-th of them from `first` on

  // Long divisions take as long as a read from memory: there are two.
  __device__ explicit CodeTile(const AttentionPlan& plan)
      : p(plan),
        first_position(p.args.position ? *p.args.position : p.args.first_position),
        first_row((p.tiles - 1 - blockIdx.x) * p.tile_rows),  // the longest first
        part(static_cast<int>(blockIdx.z)),
        kv_head(static_cast<int>(blockIdx.y)) {
    const auto group = static_cast<int>(p.group);
    const int64_t first_token = first_row / group;
    const auto head = static_cast<int>(first_row - first_token * group);  // of the group
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int local = static_cast<int>(threadIdx.x) % 32 / 4 + 8 * i, token = (head + local) / group;
      row[i] = first_row + local;
      position[i] = first_position + first_token + token;
      offset[i] = ((first_token + token) * p.args.heads + kv_head * group + (head + local - token * group)) * p.args.kv.head_dim;
    }
    const int rows = static_cast<int>(min(p.tile_rows, p.rows - first_row));
    first_visible = first_position + first_token;
    visible = first_visible + (head + rows - 1) / group + 1;
    const KeyRange range(ceil_div(visible, kStepKeys), unseen_steps(first_visible, p.args.span, kStepKeys), p.parts, part);
    begin = range.begin;
    end = range.end;
    first = begin + threadIdx.x / 32;
  }
  // As join_block takes them.
  __device__ JoinedRows joined() const {
    return {part, kv_head, static_cast<int>(first_row), static_cast<int>(min(p.tile_rows, p.rows - first_row)), p.counters + kv_head * p.tiles + (p.tiles - 1 - blockIdx.x)};
  }
  // The head's K block of the page that token is in; V lies behind it.
  template <PageFormat kFormat>
  __device__ const char* block(int64_t token) const {
    return static_cast<const char*>(p.args.kv.pages[token / kPageTokens]) + (p.args.kv.layer * p.args.kv.kv_heads + kv_head) * 2 * page_block_bytes(kFormat, p.args.kv.head_dim);
  }
  // Whether a row does not see all keys of the step from `token` on.
  __device__ bool crosses(int64_t token) const { return token + kStepKeys > first_visible + 1 || (p.args.span > 0 && token < visible - p.args.span); }
};

// Of a token: two blocks of dimensions in a word. `scales`: those of the step's keys or values [32, D / 32].
template <int D>
__device__ inline void load_scales(const char* scales, int token, uint32_t (&out)[D / 64]) {
  const char* from = scales + token * (D / 16);
  if constexpr (D == 256) *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(from);
  else if constexpr (D == 128) *reinterpret_cast<uint2*>(out) = *reinterpret_cast<const uint2*>(from);
  else out[0] = *reinterpret_cast<const uint32_t*>(from);
}

}  // namespace longview::kernels
