// Probes of what the index leaves out: exact softmax sums of some rows over all their keys, and over those they visit.
#pragma once

#include "kernels/index/probes.cuh"
#include "kernels/index/row_sums.cuh"

namespace longview::kernels {

// 128 rows (probe, head) of a group a block, and a part of the keys. Grid: (tiles of the probes, groups, parts).
template <int D, class Machine>
__global__ void __launch_bounds__(kIndexThreads, kIndexBlocks<D, Machine>) coverage_kernel(const SparsePlan p) {
  extern __shared__ char shared_bytes[];
  const HeadGroup group = p.args.groups[blockIdx.y];
  const ProbeRows probed(p, group.first_head, group.heads);
  const int first_row = static_cast<int>(blockIdx.x) * kTileRows;
  if (first_row >= probed.count()) return;
  const int first_position = static_cast<int>(p.args.first_position), pages = (first_position + probed.token(first_row + kTileRows - 1)) / kBlockKeys + 1;
  const int parts = static_cast<int>(p.probe_parts), part = static_cast<int>(blockIdx.z), begin = pages * part / parts, end = pages * (part + 1) / parts;

  const int row0 = first_row + first_row_of_thread(), row1 = row0 + 8;
  const int position[2] = {first_position + probed.token(row0), first_position + probed.token(row1)};
  const auto bits_of = [&](int row) {
    const int tiles = static_cast<int>(sparse_tiles(p.args.tokens, group.heads)), tile = (probed.token(row) * group.heads + row % group.heads) / kTileRows;
    return p.bits + (group.first_tile + tiles - 1 - tile) * p.words;
  };
  const uint32_t* bits[2] = {bits_of(row0), bits_of(row1)};
  RowSums rows;
  const auto place = [&](int row) { return probed.query<D>(p, first_row + row); };
  PageScores<D, Machine>(shared_bytes, p.args.kv, group.kv_head).walk(begin, end, place, [&](int page, float (&score)[64]) {
    hide_future(score, page, position[0], position[1]);
    const auto visits = [&](int r) { return static_cast<float>(bits[r][page / 32] >> page % 32 & 1); };
    if (!group.limited) return rows.add(score, p.scale, visits(0), visits(1));
    rows.add(score, p.scale);
    hide_between(score, group.sink - page * kBlockKeys, position[0] - group.window - page * kBlockKeys, position[1] - group.window - page * kBlockKeys);
    rows.choose(score, p.scale);
  });
  rows.join(p.scale);
  if (threadIdx.x % 4 != 0) return;
  for (int r = 0; r < 2; ++r) {
    const int row = row0 + 8 * r;
    if (row >= probed.count()) continue;
    float* to = p.probes + (part * p.args.heads * kProbeTokens + probed.place(row)) * 3;
    to[0] = rows.maximum[r] * p.scale;
    to[1] = rows.sum[r];
    to[2] = rows.chosen[r];
  }
}

// A head a block, a probe a thread: joins the parts.
static __global__ void __launch_bounds__(kProbeTokens) add_coverage_kernel(const SparsePlan p) {
  __shared__ double shares[kProbeTokens];
  const int probes = static_cast<int>(probe_count(p.args.tokens)), probe = threadIdx.x;
  shares[probe] = 0;
  if (probe < probes) {
    const auto at = [&](int64_t part) { return p.probes + ((part * p.args.heads + blockIdx.x) * kProbeTokens + probe) * 3; };
    float maximum = -INFINITY;
    for (int64_t part = 0; part < p.probe_parts; ++part) maximum = fmaxf(maximum, at(part)[0]);
    double sum = 0, chosen = 0;
    for (int64_t part = 0; part < p.probe_parts; ++part) {
      const float factor = ptx::exp2(at(part)[0] - maximum);
      sum += factor * at(part)[1];
      chosen += factor * at(part)[2];
    }
    shares[probe] = chosen / sum;
    p.probe_offsets[blockIdx.x * kProbeTokens + probe] = -maximum - static_cast<float>(log2(sum));
  }
  __syncthreads();
  if (probe != 0) return;
  double covered = 0;
  for (int i = 0; i < probes; ++i) covered += shares[i];
  p.args.counters[blockIdx.x].covered += covered;
  p.args.counters[blockIdx.x].probes += probes;
}

template <int D, class Machine>
Status launch_coverage(const SparsePlan& p, Stream stream) {
  constexpr int kBytes = page_scores_bytes<D, Machine>;
  if (const Status error = allow_shared(coverage_kernel<D, Machine>, kBytes)) return error;
  const int64_t group = p.args.heads / p.args.kv.kv_heads;
  const dim3 grid(static_cast<unsigned>(ceil_div(probe_count(p.args.tokens) * group, kTileRows)), static_cast<unsigned>(p.args.group_count), static_cast<unsigned>(p.probe_parts));
  coverage_kernel<D, Machine><<<grid, kIndexThreads, kBytes, cuda(stream)>>>(p);
  if (const Status status = launched()) return status;
  add_coverage_kernel<<<static_cast<unsigned>(p.args.heads), kProbeTokens, 0, cuda(stream)>>>(p);
  return launched();
}

}  // namespace longview::kernels
