// Attention of few queries (decode): 16 rows or fewer of a KV head, bound by reading K and V once.
//
// A head's keys are split over as many blocks as the device holds (parts). A block walks tiles of them; each of its four warps
// takes its own keys of every tile, through two stages of cp.async that no other warp waits for, against all rows (attention/join.cuh).
// Heads of 256 have room for one stage: its keys are replaced while its values are multiplied, and the other way round.
#include "kernels/attention/append_token.cuh"
#include "kernels/attention/join.cuh"
#include "kernels/attention/rows_sm80.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = kJoinWarps, kThreads = kJoinThreads;

// What a warp takes of a tile: as many keys and values as 8 KiB hold, but not fewer than the 16 that a product takes. A tile lies within a page.
template <int D>
constexpr int kWarpKeys = D <= 128 ? 2048 / D : 16;
template <int D>
constexpr int kStages = D <= 128 ? 2 : 1;
template <int D>
constexpr int kStageBytes = 2 * kWarpKeys<D> * D * 2;
template <int D>
constexpr int kRingBytes = kWarps * kStages<D> * kStageBytes<D>;
template <int D>
constexpr bool kFits = kRingBytes<D> <= decode_shared_bytes(D) && kPageTokens % (kWarps * kWarpKeys<D>) == 0;
static_assert(kFits<64> && kFits<128> && kFits<256>);

// Starts copying a warp's keys of a page and, where kBoth, the values behind them: tokens first (a multiple of 8) .. first + kWarpKeys - 1,
// zeros for those behind the first `valid`. `keys` is the head's K block of the page, in its layout.
template <int D, bool kBoth = true>
__device__ inline void load_warp_keys(uint32_t to, const __nv_bfloat16* keys, int first, int valid) {
  constexpr int kCount = kWarpKeys<D>, kChunks = D / 8;
  const __nv_bfloat16* begin = keys + first * 64;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  constexpr int kAtOnce = D <= 128 ? 8 : 4;  // all of them, or as many as registers are left for
#pragma unroll kAtOnce
  for (int i = 0; i < kCount * kChunks / 32; ++i) {
    const int row = (lane + 32 * i) / kChunks, chunk = (lane + 32 * i) % kChunks;
    const auto offset = static_cast<int>(page_offset(row, chunk * 8));
    ptx::cp_async_16(to + swizzled<D>(row, chunk), begin + offset, row < valid);
    if constexpr (kBoth) ptx::cp_async_16(to + kCount * D * 2 + swizzled<D>(row, chunk), begin + kPageTokens * D + offset, row < valid);
  }
}

template <int D>
__global__ void __maxnreg__(join_registers(D)) decode_attention_kernel(const AttentionPlan p) {
  constexpr int kTile = kWarps * kWarpKeys<D>;
  constexpr bool kInTurns = kStages<D> == 1;  // keys are brought, then values
  extern __shared__ __align__(128) char shared[];
  const AttentionArgs& a = p.args;
  const int64_t first_position = a.position ? *a.position : a.first_position;
  const int64_t part = blockIdx.x, kv_head = blockIdx.y;
  const int group = static_cast<int>(p.group), rows_count = static_cast<int>(p.rows), warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  const int64_t visible = first_position + a.tokens;
  const KeyRange range(ceil_div(visible, kTile), unseen_steps(first_position, a.span, kTile), p.parts, part);
  const int64_t begin = range.begin, end = range.end;
  const int64_t head_offset = (a.kv.layer * a.kv.kv_heads + kv_head) * 2 * kPageTokens * D;
  const uint32_t ring = ptx::shared_address(shared) + warp * kStages<D> * kStageBytes<D>;
  const auto load = [&](int64_t tile, int is_value = 0) {
    if (tile < end) {
      const int64_t token = tile * kTile + warp * kWarpKeys<D>;
      auto* keys = static_cast<__nv_bfloat16*>(a.kv.pages[token / kPageTokens]) + head_offset;
      const int valid = static_cast<int>(max(int64_t{0}, min(static_cast<int64_t>(kWarpKeys<D>), visible - token)));
      const uint32_t stage = ring + static_cast<uint32_t>((tile - begin) % kStages<D>) * kStageBytes<D>;
      if constexpr (kInTurns) {
        load_warp_keys<D, false>(stage + is_value * (kStageBytes<D> / 2), keys + is_value * kPageTokens * D, static_cast<int>(token % kPageTokens), valid);
      } else {
        if (a.appended.k && token <= first_position && first_position < token + kWarpKeys<D>) append_token<D>(a.appended, static_cast<int>(kv_head), keys, static_cast<int>(first_position % kPageTokens));
        load_warp_keys<D>(stage, keys, static_cast<int>(token % kPageTokens), valid);
      }
    }
    ptx::cp_async_commit();
  };
  const auto load_first = [&] {  // two groups, as there are at the beginning of each turn of the loop
    load(begin);
    if constexpr (kInTurns) load(begin, 1);
    else load(begin + 1);
  };

  // Recorded work reads keys that lie there already (api/attention.h): they need not wait for the kernel that writes the last one.
  const bool early = a.position && min(begin + kStages<D>, end) * kTile <= first_position;
  if (early) load_first();
  ptx::start_dependents();  // all blocks have their place: the next kernel's take what is left
  ptx::wait_for_previous();
  if (!early) load_first();

  // This thread's two rows, their positions and running state.
  const int row[2] = {lane / 4, lane / 4 + 8};
  const int64_t position[2] = {first_position + row[0] / group, first_position + row[1] / group};
  RowsSm80<D, kWarpKeys<D>, true> rows;
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = row[j % 2];
      const auto* q = static_cast<const __nv_bfloat16*>(a.q) + (at / group * a.heads + kv_head * group + at % group) * D + i * 16 + j / 2 * 8 + lane % 4 * 2;
      rows.query[i][j] = at < rows_count ? *reinterpret_cast<const uint32_t*>(q) : 0u;
    }
  if constexpr (!kInTurns)
    if (a.appended.k) rotate_queries<D>(a.appended, rows.query);

  for (int64_t tile = begin; tile < end; ++tile) {
    ptx::cp_async_wait<1>();
    __syncwarp();
    const uint32_t keys = ring + static_cast<uint32_t>((tile - begin) % kStages<D>) * kStageBytes<D>;
    rows.multiply_keys(keys);
    const int64_t token = tile * kTile + warp * kWarpKeys<D>;
    if ((tile + 1) * kTile > first_position + 1)  // the diagonal crosses this tile
      hide_behind(rows.score, static_cast<int>(position[0] - token), static_cast<int>(position[1] - token));
    if (a.span > 0 && tile * kTile < visible - a.span)  // the end of a span crosses it
      hide_between(rows.score, 0, static_cast<int>(position[0] - a.span - token), static_cast<int>(position[1] - a.span - token));
    if constexpr (kInTurns) {
      __syncwarp();
      load(tile + 1);
    }
    rows.soften(p.scale);
    if constexpr (kInTurns) {
      ptx::cp_async_wait<1>();
      __syncwarp();
    }
    rows.multiply_values(keys + kWarpKeys<D> * D * 2);
    __syncwarp();
    if constexpr (kInTurns) load(tile + 1, 1);
    else load(tile + kStages<D>);
  }
  ptx::cp_async_wait<0>();
  rows.join();
  __syncthreads();

  join_block<D>(p, {static_cast<int>(part), static_cast<int>(kv_head), 0, rows_count, p.counters + kv_head}, shared, [&](const WarpResults<D>& to) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (row[r] >= to.rows) continue;
      if (lane % 4 == 0) to.set(row[r], rows.maximum[r] * p.scale, rows.sum[r]);
#pragma unroll
      for (int j = 0; j < D / 8; ++j) *reinterpret_cast<float2*>(to.result(row[r], j * 8 + lane % 4 * 2)) = {rows.out[j][2 * r], rows.out[j][2 * r + 1]};
    }
  });
}

template <int D>
Status launch(const AttentionPlan& p, Stream stream) {
  constexpr int64_t kBytes = decode_shared_bytes(D);
  if (const Status error = allow_shared(decode_attention_kernel<D>, kBytes)) return error;
  return launch_dependent(decode_attention_kernel<D>, dim3(static_cast<unsigned>(p.parts), static_cast<unsigned>(p.args.kv.kv_heads)), kThreads, static_cast<size_t>(kBytes), stream, p);
}

}  // namespace

Status launch_decode_attention(const AttentionPlan& plan, Stream stream) {
  const int64_t d = plan.args.kv.head_dim;
  return d == 64 ? launch<64>(plan, stream) : d == 128 ? launch<128>(plan, stream) : launch<256>(plan, stream);
}

}  // namespace longview::kernels
