// Which keys the probes look at: the softmax weights of each key, summed over the probes of all heads of its KV head that see its page
// whole. Coverage has left the probes' softmax sums.
#pragma once

#include "kernels/index/row_sums.cuh"

namespace longview::kernels {

// 128 rows (probe, head) of a KV head a block, and a part of the keys. Grid: (tiles of rows, KV heads, parts).
template <int D, class Machine>
__global__ void __launch_bounds__(kIndexThreads, 2) probe_weights_kernel(const SparsePlan p, int first_kv_head) {
  extern __shared__ char shared_bytes[];
  const int group = static_cast<int>(p.args.heads / p.args.kv.kv_heads), kv_head = first_kv_head + static_cast<int>(blockIdx.y);
  const int probes = static_cast<int>(probe_count(p.args.tokens)), all_rows = probes * group, first_row = static_cast<int>(blockIdx.x) * kTileRows;
  const auto token_of = [&](int row) { return probe_token(p.args.tokens, probes, min(row, all_rows - 1) / group); };
  const auto head_of = [&](int row) { return kv_head * group + row % group; };
  const auto position_of = [&](int row) { return static_cast<int>(p.args.first_position) + token_of(row); };
  const int pages = (position_of(first_row + kTileRows - 1) + 1) / kBlockKeys, parts = static_cast<int>(gridDim.z), part = static_cast<int>(blockIdx.z);

  // A weight is 2^(score * scale + offset); rows that do not exist have none.
  int position[2];
  float offset[2] = {-INFINITY, -INFINITY};
  for (int r = 0; r < 2; ++r) {
    const int row = first_row + first_row_of_thread() + 8 * r;
    position[r] = position_of(row);
    if (row < all_rows) offset[r] = p.probe_offsets[head_of(row) * kProbeTokens + row / group];
  }
  float* to = p.key_weights + static_cast<int64_t>(blockIdx.y) * p.pages * kBlockKeys;
  const auto place = [&](int row) {
    const int at = first_row + row;
    return at < all_rows ? query_of<D>(p, token_of(at), head_of(at)) : nullptr;
  };
  score_pages<D, Machine>(shared_bytes, p.args.kv, kv_head, pages * part / parts, pages * (part + 1) / parts, place, [&](int page, float (&score)[64]) {
    const int last = (page + 1) * kBlockKeys - 1;
    const float of_whole[2] = {position[0] < last ? -INFINITY : offset[0], position[1] < last ? -INFINITY : offset[1]};
    add_columns<1>(score, p.scale, of_whole, to + static_cast<int64_t>(page) * kBlockKeys, kBlockKeys);
  });
}

template <int D, class Machine>
Status launch_probe_weights(const SparsePlan& p, int64_t first_kv_head, int64_t count, Stream stream) {
  constexpr int kBytes = score_pages_bytes<D, Machine>;
  if (const auto error = cudaFuncSetAttribute(probe_weights_kernel<D, Machine>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) return static_cast<Status>(error);
  // As many parts as fill the device twice, of eight pages at least.
  const int64_t tiles = ceil_div(probe_count(p.args.tokens) * (p.args.heads / p.args.kv.kv_heads), kTileRows);
  const int64_t parts = std::clamp<int64_t>(ceil_div(2 * p.args.multiprocessors, tiles * count), 1, std::max<int64_t>(1, p.pages / 8));
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(count), static_cast<unsigned>(parts));
  probe_weights_kernel<D, Machine><<<grid, kIndexThreads, kBytes, cuda(stream)>>>(p, static_cast<int>(first_kv_head));
  return launched();
}

}  // namespace longview::kernels
