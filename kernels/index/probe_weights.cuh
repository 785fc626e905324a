// Which keys the probes look at: the softmax weights of each key, summed over the probes of all heads of its KV head that see its page
// whole. Coverage has left the probes' softmax sums. Every sum has one order, so that the same chunk is read to the same bits again.
#pragma once

#include "kernels/index/probes.cuh"
#include "kernels/index/row_sums.cuh"

namespace longview::kernels {

// A part of the keys of a KV head a block, which goes through all rows (probe, head), 128 at a time. Grid: (parts, KV heads).
template <int D, class Machine>
__global__ void __launch_bounds__(kIndexThreads, kIndexBlocks<D, Machine>) probe_weights_kernel(const SparsePlan p, int first_kv_head) {
  extern __shared__ char shared_bytes[];
  __shared__ float sums[kIndexWarps][kBlockKeys];
  const int kv_head = first_kv_head + static_cast<int>(blockIdx.y), first_position = static_cast<int>(p.args.first_position);
  const ProbeRows probed = ProbeRows::of_kv_head(p, kv_head);
  const int full = static_cast<int>((p.args.first_position + p.args.tokens) / kBlockKeys), parts = static_cast<int>(gridDim.x), part = static_cast<int>(blockIdx.x);
  const int begin = full * part / parts, end = full * (part + 1) / parts, last_row = (probed.count() - 1) / kTileRows * kTileRows;
  float* to = p.key_weights + static_cast<int64_t>(blockIdx.y) * p.pages * kBlockKeys;
  PageScores<D, Machine> scores(shared_bytes, p.args.kv, kv_head);
  // The last rows, which see the most, go through the whole part and leave zeros where they see nothing; the others add to that.
  for (int first_row = last_row; first_row >= 0; first_row -= kTileRows) {
    // A weight is 2^(score * scale + offset); rows that do not exist have none.
    int whole[2];  // pages that the row sees whole
    float offset[2];
    for (int r = 0; r < 2; ++r) {
      const int row = first_row + first_row_of_thread() + 8 * r;
      whole[r] = row < probed.count() ? (first_position + probed.token(row) + 1) / kBlockKeys : 0;
      offset[r] = row < probed.count() ? p.probe_offsets[probed.place(row)] : 0;
    }
    const int seen = first_row == last_row ? end : min(end, (first_position + probed.token(first_row + kTileRows - 1) + 1) / kBlockKeys);
    const auto place = [&](int row) { return probed.query<D>(p, first_row + row); };
    scores.walk(begin, seen, place, [&](int page, float (&score)[64]) {
      const float of_whole[2] = {page < whole[0] ? offset[0] : -INFINITY, page < whole[1] ? offset[1] : -INFINITY};
      sum_columns<1>(score, p.scale, of_whole, [&](int key, float sum) { sums[threadIdx.x / 32][key] = sum; });
      __syncthreads();
      if (threadIdx.x >= kBlockKeys) return;
      float* weight = to + static_cast<int64_t>(page) * kBlockKeys + threadIdx.x;
      float sum = first_row == last_row ? 0 : *weight;
      for (const auto& of_warp : sums) sum += of_warp[threadIdx.x];
      *weight = sum;
    });
  }
}

template <int D, class Machine>
Status launch_probe_weights(const SparsePlan& p, int64_t first_kv_head, int64_t count, Stream stream) {
  constexpr int kBytes = page_scores_bytes<D, Machine>;
  if (const Status error = allow_shared(probe_weights_kernel<D, Machine>, kBytes)) return error;
  // As many parts as fill the device twice, of eight pages at least.
  const int64_t parts = std::clamp<int64_t>(ceil_div(2 * p.args.multiprocessors, count), 1, std::max<int64_t>(1, p.pages / 8));
  probe_weights_kernel<D, Machine><<<dim3(static_cast<unsigned>(parts), static_cast<unsigned>(count)), kIndexThreads, kBytes, cuda(stream)>>>(p, static_cast<int>(first_kv_head));
  return launched();
}

}  // namespace longview::kernels
