// Flash-style attention on the tensor cores of sm_80, for more rows than decode_attention takes.
//
// The H / G query heads of a KV head go together: a tile's rows are (token, head) pairs, so K and V are read once for all of
// them. Tiles of 64 keys (half a page; of heads of 256 a quarter) come through two stages of cp.async. Few queries
// are split over parts of the keys; a second kernel merges the parts by their maxima.
#include "kernels/attention/attention.cuh"
#include "kernels/attention/rows_sm80.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/common/sink.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

template <int D, int kWarps>
__global__ void __launch_bounds__(kWarps * 32) attention_sm80_kernel(const AttentionPlan p) {
  constexpr int kThreads = kWarps * 32, kRows = kWarps * 16, kChunks = D / 8, kKeys = attention_sm80_keys(D);
  constexpr uint32_t kKeyBytes = kKeys * D * 2, kStageBytes = 2 * kKeyBytes;
  extern __shared__ __align__(128) char shared_bytes[];
  const uint32_t shared_q = ptx::shared_address(shared_bytes), shared_kv = shared_q + kRows * D * 2;

  ptx::start_dependents();
  ptx::wait_for_previous();
  const AttentionArgs& a = p.args;
  const int64_t first_position = a.position ? *a.position : a.first_position;
  const int64_t part = blockIdx.y % p.parts, kv_head = blockIdx.y / p.parts;
  const int64_t first_row = (p.tiles - 1 - blockIdx.x) * kRows;  // the longest first
  const int group = static_cast<int>(p.group), warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  const auto* q = static_cast<const __nv_bfloat16*>(a.q);
  for (int item = threadIdx.x; item < kRows * kChunks; item += kThreads) {
    const int row = item / kChunks, chunk = item % kChunks;
    const int64_t at = first_row + row;
    const bool valid = at < p.rows;
    const int64_t offset = valid ? (at / group * a.heads + kv_head * group + at % group) * D + chunk * 8 : 0;
    ptx::cp_async_16(shared_q + swizzled<D>(row, chunk), q + offset, valid);
  }

  // Keys that a row of the tile sees, and this part of them.
  const int64_t last_token = (min(first_row + kRows, p.rows) - 1) / group;
  const int64_t first_visible = first_position + first_row / group;  // of the tile's first row
  const int64_t visible = first_position + last_token + 1, unseen = unseen_steps(first_visible, a.span, kKeys), key_tiles = ceil_div(visible, kKeys) - unseen;
  const int64_t begin = unseen + key_tiles * part / p.parts, end = unseen + key_tiles * (part + 1) / p.parts;
  const int64_t head_offset = (a.kv.layer * a.kv.kv_heads + kv_head) * 2 * kPageTokens * D;

  const auto load = [&](int64_t tile) {
    const int64_t token = tile * kKeys;
    const auto* keys = static_cast<const __nv_bfloat16*>(a.kv.pages[token / kPageTokens]) + head_offset;
    const int valid = static_cast<int>(min(static_cast<int64_t>(kKeys), visible - token));
    load_keys<D, kThreads, kKeys>(shared_kv + static_cast<uint32_t>(tile & 1) * kStageBytes, keys, static_cast<int>(token % kPageTokens), valid);
  };

  if (begin < end) load(begin);
  ptx::cp_async_commit();

  // This thread's two rows, their positions and running state.
  const int64_t row0 = first_row + warp * 16 + lane / 4, row1 = row0 + 8;
  const int64_t position[2] = {first_position + row0 / group, first_position + row1 / group};
  RowsSm80<D, kKeys> rows;

  for (int64_t tile = begin; tile < end; ++tile) {
    if (tile + 1 < end) load(tile + 1);
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    __syncthreads();
    if (tile == begin) rows.load(shared_q, warp * 16);
    const uint32_t keys = shared_kv + static_cast<uint32_t>(tile & 1) * kStageBytes;
    rows.multiply_keys(keys);
    if ((tile + 1) * kKeys > first_visible + 1)  // the diagonal crosses this tile
      hide_behind(rows.score, static_cast<int>(position[0] - tile * kKeys), static_cast<int>(position[1] - tile * kKeys));
    if (a.span > 0 && tile * kKeys < visible - a.span)  // the end of a span crosses it
      hide_between(rows.score, 0, static_cast<int>(position[0] - a.span - tile * kKeys), static_cast<int>(position[1] - a.span - tile * kKeys));
    rows.soften(p.scale);
    rows.multiply_values(keys + kKeyBytes);
    __syncthreads();
  }

  rows.join();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t row = r == 0 ? row0 : row1;
    if (row >= p.rows) continue;
    if (p.parts > 1) {
      const int64_t at = (part * a.kv.kv_heads + kv_head) * p.rows + row;
      if (lane % 4 == 0) {
        p.maximum[at] = rows.maximum[r] * p.scale;
        p.sum[at] = rows.sum[r];
      }
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
        *reinterpret_cast<float2*>(p.output + at * D + j * 8 + lane % 4 * 2) = {rows.out[j][2 * r], rows.out[j][2 * r + 1]};
    } else {
      rows.sum[r] += sink_weight(a.sinks, kv_head * group + row % group, rows.maximum[r] * p.scale);
      rows.store(r, static_cast<__nv_bfloat16*>(a.out) + (row / group * a.heads + kv_head * group + row % group) * D);
    }
  }
}

constexpr int kMergeThreads = 256;

// A row a block. First every part's factor, then the parts' results, a few groups of D threads taking turns.
template <int D>
__global__ void __launch_bounds__(kMergeThreads) merge_kernel(const AttentionPlan p) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  constexpr int kGroups = kMergeThreads / D, kWarps = kMergeThreads / 32;
  __shared__ float factors[kMostParts], gathered[kWarps], results[kGroups][D];
  const int64_t row = blockIdx.x, kv_head = blockIdx.y, stride = p.args.kv.kv_heads * p.rows, base = kv_head * p.rows + row;
  const int parts = static_cast<int>(p.parts), thread = threadIdx.x;
  // Every thread's value by `reduce`, then all warps' by the same.
  const auto over_block = [&](float value, auto reduce, auto combine) {
    value = reduce(value);
    __syncthreads();
    if (thread % 32 == 0) gathered[thread / 32] = value;
    __syncthreads();
    value = gathered[0];
    for (int i = 1; i < kWarps; ++i) value = combine(value, gathered[i]);
    return value;
  };

  float maximum = -INFINITY;
  for (int part = thread; part < parts; part += kMergeThreads) maximum = fmaxf(maximum, p.maximum[part * stride + base]);
  maximum = over_block(maximum, warp_max, [](float a, float b) { return fmaxf(a, b); });
  float sum = 0;
  for (int part = thread; part < parts; part += kMergeThreads) {
    const float factor = ptx::exp2(p.maximum[part * stride + base] - maximum);  // 0 for a part of which the row sees nothing
    factors[part] = factor;
    sum = fmaf(factor, p.sum[part * stride + base], sum);
  }
  sum = over_block(sum, warp_sum, [](float a, float b) { return a + b; });
  sum += sink_weight(p.args.sinks, kv_head * p.group + row % p.group, maximum);

  float value = 0;
#pragma unroll 8
  for (int part = thread / D; part < parts; part += kGroups) value = fmaf(factors[part], p.output[(part * stride + base) * D + thread % D], value);
  results[thread / D][thread % D] = value;
  __syncthreads();
  if (thread >= D) return;
  for (int i = 1; i < kGroups; ++i) value += results[i][thread];
  auto* out = static_cast<__nv_bfloat16*>(p.args.out);
  out[(row / p.group * p.args.heads + kv_head * p.group + row % p.group) * D + thread] = __float2bfloat16(value / sum);
}

// The rows' results of all parts to one.
Status launch_merge(const AttentionPlan& plan, Stream stream) {
  const dim3 grid(static_cast<unsigned>(plan.rows), static_cast<unsigned>(plan.args.kv.kv_heads));
  const int64_t d = plan.args.kv.head_dim;
  return launch_dependent(d == 64 ? merge_kernel<64> : d == 128 ? merge_kernel<128> : merge_kernel<256>, grid, kMergeThreads, 0, stream, plan);
}

template <int D, int kWarps>
Status launch(const AttentionPlan& p, Stream stream) {
  constexpr auto kSharedBytes = static_cast<int>(attention_sm80_shared_bytes(kWarps * 16, D));
  if (const Status error = allow_shared(attention_sm80_kernel<D, kWarps>, kSharedBytes)) return error;
  const dim3 grid(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.args.kv.kv_heads * p.parts));
  if (const Status status = launch_dependent(attention_sm80_kernel<D, kWarps>, grid, kWarps * 32, kSharedBytes, stream, p)) return status;
  return p.parts == 1 ? kOk : launch_merge(p, stream);
}

template <int D>
Status launch_width(const AttentionPlan& p, Stream stream) {
  return p.tile_rows == 128 ? launch<D, 8>(p, stream) : launch<D, 4>(p, stream);
}

}  // namespace

Status launch_attention_sm80(const AttentionPlan& plan, Stream stream) {
  const int64_t d = plan.args.kv.head_dim;
  return d == 64 ? launch_width<64>(plan, stream) : d == 128 ? launch_width<128>(plan, stream) : launch_width<256>(plan, stream);
}

}  // namespace longview::kernels
