// Flash-style prefill attention on the tensor cores of sm_90. Rows are (token, head) pairs of one KV head, as in
// attention_sm80. One warp copies whole K and V blocks of a page by the copy engine, stages ahead; two warpgroups of 64
// rows multiply. The scores of the next page are computed while the weights of this one meet its values.
#include "kernels/attention/attention.cuh"
#include "kernels/attention/rows_e4m3_sm90.cuh"
#include "kernels/attention/rows_sm90.cuh"
#include "kernels/common/launch.cuh"

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
  const int pages = static_cast<int>(ceil_div(a.first_position + last_token + 1, kPageTokens));

  const int warpgroup = static_cast<int>(threadIdx.x / 128) - 1;
  if (warpgroup < 0) {
    ptx::registers_down<24>();
    if (threadIdx.x != 0) return;
    const int64_t head_bytes = (a.kv.layer * a.kv.kv_heads + kv_head) * 2 * Rows::kBlockBytes;
    const auto from = [&](int page) { return static_cast<const char*>(a.kv.pages[page]) + head_bytes; };
    const char *keys = from(0), *before = nullptr;
    for (int page = 0; page < pages; ++page) {
      stages.bring_keys(page, keys);
      const char* values = keys;
      if (page + 1 < pages) keys = from(page + 1);
      if (page > 0) stages.bring_values(page - 1, before);
      before = values;
    }
    stages.bring_values(pages - 1, before);
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
  const int64_t first_visible = a.first_position + first_row / group;  // of the tile's first row
  const auto hide = [&](int page) {
    const int64_t begin = static_cast<int64_t>(page) * kKeys;
    if (begin + kKeys > first_visible + 1)  // the diagonal crosses this page
      hide_behind(rows.score, static_cast<int>(position[0] - begin), static_cast<int>(position[1] - begin));
  };

  rows.begin();
  rows.multiply_keys(stages, own, 0);
  ptx::wgmma_wait<0>();
  rows.scores_done(stages, 0);
  rows.keys_done(stages, 0);
  hide(0);
  rows.soften(p.scale);
  rows.pack();
  for (int page = 1; page < pages; ++page) {
    rows.multiply_keys(stages, own, page);
    rows.multiply_values(stages, page - 1, page == 1);
    ptx::wgmma_wait<1>();
    rows.scores_done(stages, page);
    rows.keys_done(stages, page);
    const float earlier[2] = {rows.factor[0], rows.factor[1]};
    hide(page);
    rows.soften(p.scale);
    ptx::wgmma_wait<0>();
    rows.values_done(stages, page - 1);
    rows.collect(page == 1, earlier);
    rows.shrink();
    rows.pack();
  }
  rows.multiply_values(stages, pages - 1, pages == 1);
  ptx::wgmma_wait<0>();
  rows.values_done(stages, pages - 1);
  rows.collect(pages == 1, rows.factor);
  const auto place = [&](int64_t row) { return row < p.rows ? static_cast<__nv_bfloat16*>(a.out) + (row / group * a.heads + kv_head * group + row % group) * D : nullptr; };
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
  return plan.args.kv.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
