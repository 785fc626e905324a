// Which tokens of a chunk are probed.
#pragma once

#include "kernels/index/tile.cuh"

namespace longview::kernels {

// Rows (probe, head) of heads first_head .. + heads - 1, the heads of a probe side by side.
struct ProbeRows {
  int64_t tokens;
  int probes, first_head, heads;

  __device__ ProbeRows(const SparsePlan& p, int first, int count) : tokens(p.args.tokens), probes(static_cast<int>(probe_count(tokens))), first_head(first), heads(count) {}
  __device__ static ProbeRows of_kv_head(const SparsePlan& p, int kv_head) {
    const int group = static_cast<int>(p.args.heads / p.args.kv.kv_heads);
    return {p, kv_head * group, group};
  }
  __device__ int count() const { return probes * heads; }
  // Of the chunk; rows behind the last are like it.
  __device__ int token(int row) const { return probe_token(tokens, probes, min(row, count() - 1) / heads); }
  __device__ int head(int row) const { return first_head + row % heads; }
  // Where a row has its own among values [H, kProbeTokens].
  __device__ int64_t place(int row) const { return static_cast<int64_t>(head(row)) * kProbeTokens + row / heads; }
  // Null for a row that does not exist.
  template <int D>
  __device__ const __nv_bfloat16* query(const SparsePlan& p, int row) const {
    return row < count() ? query_of<D>(p, token(row), head(row)) : nullptr;
  }
};

}  // namespace longview::kernels
