// A tile of few queries over 8-bit pages: 16 rows, which are (token, head) pairs of one KV head, and a part of the keys, a warp.
#pragma once

#include "kernels/attention/attention.cuh"
#include "kernels/attention/hide.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {

// What this block of 32 threads takes, in steps of `step_keys` keys. A thread has parts of rows lane / 4 and + 8.
struct CodeTile {
  const AttentionPlan& p;
  int64_t first_position, part, kv_head, first_row, row[2], position[2];
  int64_t first_visible, visible;  // keys that no row is behind, and keys that the last row sees
  int64_t begin, end;              // steps

  __device__ CodeTile(const AttentionPlan& plan, int step_keys)
      : p(plan),
        first_position(p.args.position ? *p.args.position : p.args.first_position),
        part(blockIdx.y % p.parts),
        kv_head(blockIdx.y / p.parts),
        first_row((p.tiles - 1 - blockIdx.x) * kCodeRows),  // the longest first
        row{first_row + threadIdx.x / 4, first_row + threadIdx.x / 4 + 8},
        position{first_position + row[0] / p.group, first_position + row[1] / p.group},
        first_visible(first_position + first_row / p.group),
        visible(first_position + (min(first_row + kCodeRows, p.rows) - 1) / p.group + 1) {
    const int64_t steps = ceil_div(visible, step_keys);
    begin = steps * part / p.parts;
    end = steps * (part + 1) / p.parts;
  }
  // Of row r in q and in the results, in elements.
  __device__ int64_t offset(int r) const { return (row[r] / p.group * p.args.heads + kv_head * p.group + row[r] % p.group) * p.args.kv.head_dim; }
  // Of row r among the parts' results.
  __device__ int64_t of_part(int r) const { return (part * p.args.kv.kv_heads + kv_head) * p.rows + row[r]; }
  // The head's K block of the page that token is in; V lies behind it.
  template <PageFormat kFormat>
  __device__ const char* block(int64_t token) const {
    return static_cast<const char*>(p.args.kv.pages[token / kPageTokens]) + (p.args.kv.layer * p.args.kv.kv_heads + kv_head) * 2 * page_block_bytes(kFormat, p.args.kv.head_dim);
  }
  // What a row sees no more of the keys from `token` on is hidden.
  template <int kCount>
  __device__ void hide(float (&score)[kCount], int64_t token, int step_keys) const {
    if (token + step_keys > first_visible + 1)  // the diagonal crosses these keys
      hide_behind(score, static_cast<int>(position[0] - token), static_cast<int>(position[1] - token));
  }
};

// Attention by `kernel`, and the parts' results to one.
inline Status launch_code_tiles(void (*kernel)(AttentionPlan), const AttentionPlan& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.args.kv.kv_heads * p.parts));
  if (const Status status = launch_dependent(kernel, grid, 32, 0, stream, p)) return status;
  return p.parts == 1 ? kOk : launch_merge(p, stream);
}

}  // namespace longview::kernels
