// Flash-style prefill attention on the tensor cores of sm_90. Rows are (token, head) pairs of one KV head, as in
// attention_sm80. One warp copies blocks of K and V, a page's or half of them, by the copy engine, stages ahead; two warpgroups of 64
// rows multiply. The scores of the next block are computed while the weights of this one meet its values.
#include "kernels/attention/attention.cuh"
#include "kernels/attention/rows_e4m3_sm90.cuh"
#include "kernels/attention/rows_sm90.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/common/sink.cuh"

namespace longview::kernels {
namespace {

template <class Rows>
constexpr uint32_t kSharedBytes = 2 * Rows::kWarpgroupBytes + Rows::Stages::kBytes + 1024;  // the tiles begin at a multiple of 1,024

template <int D, class Rows>
__global__ void __launch_bounds__(kThreads, 1) attention_sm90_kernel(const AttentionPlan p) {
  using Stages = typename Rows::Stages;
  extern __shared__ char shared_bytes[];
  __shared__ uint64_t barriers[4 * Stages::kStages];
  const uint32_t queries = (ptx::shared_address(shared_bytes) + 1023) & ~1023u;
  const Stages stages(queries + 2 * Rows::kWarpgroupBytes, ptx::shared_address(barriers));
  if (threadIdx.x == 0) {
    stages.init();
    ptx::fence_mbarrier_init();
  }
  __syncthreads();

  const AttentionArgs& a = p.args;
  const int64_t kv_head = blockIdx.y, first_row = (p.tiles - 1 - blockIdx.x) * kRows;  // the longest first
  const int64_t last_token = (min(first_row + kRows, p.rows) - 1) / p.group;
  constexpr int kBlockKeys = Rows::kBlockKeys, kBlocksOfPage = kKeys / kBlockKeys;
  const int64_t first_visible = a.first_position + first_row / p.group, visible = a.first_position + last_token + 1;  // of the tile's first row, and to its last one
  const int unseen = static_cast<int>(unseen_steps(first_visible, a.span, kBlockKeys)), blocks = static_cast<int>(ceil_div(visible, kBlockKeys)) - unseen;

  const int warpgroup = static_cast<int>(threadIdx.x / 128) - 1;
  if (warpgroup < 0) {
    ptx::registers_down<24>();
    if (threadIdx.x != 0) return;
    const int64_t head_bytes = (a.kv.layer * a.kv.kv_heads + kv_head) * 2 * Rows::kBlockBytes;
    const auto from = [&](int block) { return static_cast<const char*>(a.kv.pages[(unseen + block) / kBlocksOfPage]) + head_bytes + (unseen + block) % kBlocksOfPage * kBlockKeys * 128; };
    const char *keys = from(0), *before = nullptr;
    for (int block = 0; block < blocks; ++block) {
      stages.bring_keys(block, keys);
      const char* values = keys;
      if (block + 1 < blocks) keys = from(block + 1);
      if (block > 0) stages.bring_values(block - 1, before);
      before = values;
    }
    stages.bring_values(blocks - 1, before);
    return;
  }

  ptx::registers_up<240>();
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32, group = static_cast<int>(p.group);

  Rows rows;
  const uint32_t own = queries + warpgroup * Rows::kWarpgroupBytes;
  Rows::template load_queries<128>(own, [&](int row) {
    const int64_t at = first_row + warpgroup * 64 + row;
    return at < p.rows ? static_cast<const __nv_bfloat16*>(a.q) + (at / group * a.heads + kv_head * group + at % group) * D : nullptr;
  }, thread);
  ptx::cp_async_wait<0>();
  ptx::fence_proxy_async();
  asm volatile("bar.sync %0, 128;" ::"r"(1 + warpgroup) : "memory");
  rows.take_scales(own);

  const int64_t row0 = first_row + warpgroup * 64 + warp * 16 + lane / 4, row1 = row0 + 8;
  const int64_t position[2] = {a.first_position + row0 / group, a.first_position + row1 / group};
  const int bounded = a.span > 0 ? static_cast<int>(ceil_div(visible - a.span, kBlockKeys)) - unseen : 0;  // blocks that the end of a row's span may cross
  const auto hide = [&](int block) {
    const int64_t begin = static_cast<int64_t>(unseen + block) * kBlockKeys;
    if (begin + kBlockKeys > first_visible + 1)  // the diagonal crosses this block
      hide_behind(rows.score, static_cast<int>(position[0] - begin), static_cast<int>(position[1] - begin));
    if (block < bounded)
      hide_between(rows.score, 0, static_cast<int>(position[0] - a.span - begin), static_cast<int>(position[1] - a.span - begin));
  };

  rows.begin();
  rows.multiply_keys(stages, own, 0);
  ptx::wgmma_wait<0>();
  rows.scores_done(stages, 0);
  rows.keys_done(stages, 0);
  hide(0);
  rows.soften(p.scale);
  rows.pack();
  for (int block = 1; block < blocks; ++block) {
    rows.multiply_keys(stages, own, block);
    rows.multiply_values(stages, block - 1, block == 1);
    ptx::wgmma_wait<1>();
    rows.scores_done(stages, block);
    rows.keys_done(stages, block);
    const float earlier[2] = {rows.factor[0], rows.factor[1]};
    hide(block);
    rows.soften(p.scale);
    ptx::wgmma_wait<0>();
    rows.values_done(stages, block - 1);
    rows.collect(block == 1, earlier);
    rows.shrink();
    rows.pack();
  }
  rows.multiply_values(stages, blocks - 1, blocks == 1);
  ptx::wgmma_wait<0>();
  rows.values_done(stages, blocks - 1);
  rows.collect(blocks == 1, rows.factor);
  const auto place = [&](int64_t row) { return row < p.rows ? static_cast<__nv_bfloat16*>(a.out) + (row / group * a.heads + kv_head * group + row % group) * D : nullptr; };
  if (a.sinks && lane % 4 == 0) {
    rows.sum[0] += sink_weight(a.sinks, kv_head * group + row0 % group, rows.base(p.scale, 0));
    rows.sum[1] += sink_weight(a.sinks, kv_head * group + row1 % group, rows.base(p.scale, 1));
  }
  rows.store(place(row0), place(row1), rows.sum);
}

template <int D, class Rows>
Status launch(const AttentionPlan& p, Stream stream) {
  const auto kernel = attention_sm90_kernel<D, Rows>;
  if (const Status error = allow_shared(kernel, kSharedBytes<Rows>)) return error;
  const dim3 grid(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.args.kv.kv_heads));
  kernel<<<grid, kThreads, kSharedBytes<Rows>, cuda(stream)>>>(p);
  return launched();
}

template <int D>
Status launch(const AttentionPlan& p, Stream stream) {
  return p.args.kv.format == PageFormat::kE4M3 ? launch<D, RowsE4M3Sm90<D>>(p, stream) : launch<D, RowsSm90<D>>(p, stream);
}

}  // namespace

Status launch_attention_sm90(const AttentionPlan& plan, Stream stream) {
  const int64_t d = plan.args.kv.head_dim;
  return d == 64 ? launch<64>(plan, stream) : d == 128 ? launch<128>(plan, stream) : launch<256, RowsSm90<256>>(plan, stream);
}

}  // namespace longview::kernels
