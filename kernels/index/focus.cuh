// Squared softmax weights by key. A first walk over the keys brings each row's softmax sum, a second one the weights.
#pragma once

#include "kernels/api/focus.h"
#include "kernels/common/sink.cuh"
#include "kernels/index/row_sums.cuh"

namespace longview::kernels {

struct FocusPlan {
  FocusArgs args;
  float scale;  // log2(e) / sqrt(D)
  int parts;
};

// Of a block: 128 rows (token, head of a KV head), and a part of the pages. Grid: (tiles of rows, KV heads, parts).
struct FocusTile {
  const FocusPlan& p;
  const int group, all_rows, first_row, kv_head, part;
  int begin, end;  // pages

  __device__ explicit FocusTile(const FocusPlan& plan)
      : p(plan), group(static_cast<int>(p.args.heads / p.args.kv.kv_heads)), all_rows(static_cast<int>(p.args.tokens) * group), first_row(static_cast<int>(blockIdx.x) * kTileRows), kv_head(static_cast<int>(blockIdx.y)), part(static_cast<int>(blockIdx.z)) {
    const int64_t pages = position(kTileRows - 1) / kBlockKeys + 1;
    begin = static_cast<int>(pages * part / p.parts);
    end = static_cast<int>(pages * (part + 1) / p.parts);
  }
  __device__ int position(int row) const { return static_cast<int>(p.args.first_position) + min(first_row + row, all_rows - 1) / group; }
  // Where part i keeps maximum and sum of a row.
  __device__ float2* sums(int i, int row) const { return reinterpret_cast<float2*>(p.args.workspace) + (static_cast<int64_t>(i) * p.args.kv.kv_heads + kv_head) * all_rows + first_row + row; }
  __device__ bool exists(int row) const { return first_row + row < all_rows; }

  // Calls each(page, score): minus infinity where a row does not see the key.
  template <int D, class Machine, typename Each>
  __device__ void walk(char* shared, int row0, Each each) const {
    const auto place = [&](int row) {
      const int at = first_row + row;
      return exists(row) ? static_cast<const __nv_bfloat16*>(p.args.q) + (static_cast<int64_t>(at / group) * p.args.heads + kv_head * group + at % group) * D : nullptr;
    };
    PageScores<D, Machine>(shared, p.args.kv, kv_head).walk(begin, end, place, [&](int page, float (&score)[64]) {
      hide_future(score, page, position(row0), position(row0 + 8));
      each(page, score);
    });
  }
};

template <int D, class Machine>
__global__ void __launch_bounds__(kIndexThreads, kIndexBlocks<D, Machine>) focus_sums_kernel(const FocusPlan p) {
  extern __shared__ char shared_bytes[];
  const FocusTile tile(p);
  const int row0 = first_row_of_thread();
  RowSums rows;
  tile.walk<D, Machine>(shared_bytes, row0, [&](int, float (&score)[64]) { rows.add(score, p.scale); });
  rows.join(p.scale);
  if (threadIdx.x % 4 != 0) return;
  for (int r = 0; r < 2; ++r)
    if (tile.exists(row0 + 8 * r)) *tile.sums(tile.part, row0 + 8 * r) = {rows.maximum[r] * p.scale, rows.sum[r]};
}

template <int D, class Machine>
__global__ void __launch_bounds__(kIndexThreads, kIndexBlocks<D, Machine>) focus_kernel(const FocusPlan p) {
  extern __shared__ char shared_bytes[];
  const FocusTile tile(p);
  const int row0 = first_row_of_thread();
  // A weight is 2^(score * scale + offset); rows that do not exist have none.
  float offset[2] = {-INFINITY, -INFINITY};
  for (int r = 0; r < 2; ++r) {
    if (!tile.exists(row0 + 8 * r)) continue;
    float maximum = -INFINITY, sum = 0;
    for (int i = 0; i < p.parts; ++i) maximum = fmaxf(maximum, tile.sums(i, row0 + 8 * r)->x);
    for (int i = 0; i < p.parts; ++i) {
      const float2 part = *tile.sums(i, row0 + 8 * r);
      sum = fmaf(ptx::exp2(part.x - maximum), part.y, sum);
    }
    sum += sink_weight(p.args.sinks, tile.kv_head * tile.group + (tile.first_row + row0 + 8 * r) % tile.group, maximum);
    offset[r] = -maximum - __log2f(sum);
  }
  tile.walk<D, Machine>(shared_bytes, row0, [&](int page, float (&score)[64]) {
    const int64_t key = static_cast<int64_t>(page) * kBlockKeys;
    sum_columns<2>(score, p.scale, offset, [&](int at, float sum) {
      if (key + at < p.args.keys && sum > 0) atomicAdd(p.args.focus + key + at, sum);
    });
  });
}

template <int D, class Machine>
Status launch_focus(const FocusPlan& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(p.args.tokens * (p.args.heads / p.args.kv.kv_heads), kTileRows)), static_cast<unsigned>(p.args.kv.kv_heads), static_cast<unsigned>(p.parts));
  for (const auto kernel : {focus_sums_kernel<D, Machine>, focus_kernel<D, Machine>}) {
    if (const Status error = allow_shared(kernel, page_scores_bytes<D, Machine>)) return error;
    kernel<<<grid, kIndexThreads, page_scores_bytes<D, Machine>, cuda(stream)>>>(p);
    if (const Status status = launched()) return status;
  }
  return kOk;
}

Status launch_focus_sm80(const FocusPlan& plan, Stream stream);
Status launch_focus_sm90(const FocusPlan& plan, Stream stream);

}  // namespace longview::kernels
