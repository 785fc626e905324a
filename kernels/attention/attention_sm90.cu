// Flash-style prefill attention on the tensor cores of sm_90. Rows are (token, head) pairs of one KV head, as in
// attention_sm80. One warp copies whole K and V blocks of a page by the copy engine, two stages ahead; two warpgroups of 64
// rows multiply. The scores of the next page are computed while the weights of this one meet its values.
#include "kernels/attention/attention.cuh"
#include "kernels/attention/rows_sm90.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

template <int D>
constexpr uint32_t kSharedBytes = kRows * D * 2 + KvStages<D>::kBytes + 1024;  // the tiles begin at a multiple of 1,024

template <int D>
__global__ void __launch_bounds__(kThreads, 1) attention_sm90_kernel(const AttentionPlan p) {
  constexpr uint32_t kBlockBytes = KvStages<D>::kBlockBytes;
  extern __shared__ char shared_bytes[];
  __shared__ uint64_t barriers[4 * kStages];
  const uint32_t queries = (ptx::shared_address(shared_bytes) + 1023) & ~1023u;
  const KvStages<D> stages(queries + kRows * D * 2, ptx::shared_address(barriers));
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
    const int64_t head_bytes = (a.kv.layer * a.kv.kv_heads + kv_head) * 2 * kBlockBytes;
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

  // This warpgroup's queries, in the layout of a page's tiles: [D / 64][64 rows][128 bytes].
  const uint32_t own = queries + warpgroup * 64 * D * 2;
  for (int item = thread; item < 64 * D / 8; item += 128) {
    const int row = item / (D / 8), chunk = item % (D / 8);
    const int64_t at = first_row + warpgroup * 64 + row;
    uint4 words = {0, 0, 0, 0};
    if (at < p.rows)
      words = *reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(a.q) + (at / group * a.heads + kv_head * group + at % group) * D + chunk * 8);
    const uint32_t to = own + chunk / 8 * 64 * 128 + row * 128 + (((chunk % 8) ^ (row % 8)) << 4);
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w) : "memory");
  }
  ptx::fence_proxy_async();
  asm volatile("bar.sync %0, 128;" ::"r"(1 + warpgroup) : "memory");

  const int64_t row0 = first_row + warpgroup * 64 + warp * 16 + lane / 4, row1 = row0 + 8;
  const int64_t position[2] = {a.first_position + row0 / group, a.first_position + row1 / group};
  const int64_t first_visible = a.first_position + first_row / group;  // of the tile's first row
  RowsSm90<D> rows;
  const auto hide = [&](int page) {
    const int64_t begin = static_cast<int64_t>(page) * kKeys;
    if (begin + kKeys > first_visible + 1)  // the diagonal crosses this page
      hide_behind(rows.score, static_cast<int>(position[0] - begin), static_cast<int>(position[1] - begin));
  };

  rows.begin();
  rows.multiply_keys(stages, own, 64 * 128, 0);
  ptx::wgmma_wait<0>();
  ptx::wgmma_hold(rows.score);
  rows.release(stages.key_empty, 0);
  hide(0);
  rows.soften(p.scale);
  rows.pack();
  for (int page = 1; page < pages; ++page) {
    rows.multiply_keys(stages, own, 64 * 128, page);
    rows.multiply_values(stages, page - 1, page == 1);
    ptx::wgmma_wait<1>();
    ptx::wgmma_hold(rows.score);
    rows.release(stages.key_empty, page);
    hide(page);
    rows.soften(p.scale);
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(rows.out);
    ptx::wgmma_hold(rows.weight);
    rows.release(stages.value_empty, page - 1);
    rows.shrink();
    rows.pack();
  }
  rows.multiply_values(stages, pages - 1, pages == 1);
  ptx::wgmma_wait<0>();
  ptx::wgmma_hold(rows.out);
  const auto place = [&](int64_t row) { return row < p.rows ? static_cast<__nv_bfloat16*>(a.out) + (row / group * a.heads + kv_head * group + row % group) * D : nullptr; };
  rows.store(place(row0), place(row1), rows.sum);
}

template <int D>
Status launch(const AttentionPlan& p, Stream stream) {
  if (const auto error = cudaFuncSetAttribute(attention_sm90_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kSharedBytes<D>))) return static_cast<Status>(error);
  const dim3 grid(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.args.kv.kv_heads));
  attention_sm90_kernel<D><<<grid, kThreads, kSharedBytes<D>, cuda(stream)>>>(p);
  return launched();
}

}  // namespace

Status launch_attention_sm90(const AttentionPlan& plan, Stream stream) {
  return plan.args.kv.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
