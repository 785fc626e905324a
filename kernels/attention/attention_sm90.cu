// Flash-style prefill attention on the tensor cores of sm_90. Rows are (token, head) pairs of one KV head, as in
// attention_sm80. One warp copies whole K and V blocks of a page by the copy engine, two stages ahead; two warpgroups of 64
// rows multiply. The scores of the next page are computed while the weights of this one meet its values.
#include "kernels/attention/attention.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace longview::kernels {
namespace {

constexpr int kRows = 128, kKeys = 128, kStages = 2, kThreads = 384;
constexpr uint32_t kTileBytes = kKeys * 128;  // 64 dimensions of a page

template <int D>
struct Shared {
  static constexpr uint32_t kBlockBytes = kKeys * D * 2;  // K or V of a page
  static constexpr uint32_t kQueryBytes = kRows * D * 2;
  static constexpr uint32_t kBytes = kQueryBytes + 2 * kStages * kBlockBytes;
};

template <int D>
__global__ void __launch_bounds__(kThreads, 1) attention_sm90_kernel(const AttentionPlan p) {
  constexpr uint32_t kBlockBytes = Shared<D>::kBlockBytes;
  extern __shared__ char shared_bytes[];
  __shared__ uint64_t barriers[4 * kStages];
  const uint32_t queries = (ptx::shared_address(shared_bytes) + 1023) & ~1023u;
  const uint32_t keys = queries + Shared<D>::kQueryBytes, values = keys + kStages * kBlockBytes;
  const uint32_t key_full = ptx::shared_address(barriers), key_empty = key_full + 8 * kStages;
  const uint32_t value_full = key_empty + 8 * kStages, value_empty = value_full + 8 * kStages;
  if (threadIdx.x == 0) {
    for (uint32_t i = 0; i < kStages; ++i) {
      ptx::mbarrier_init(key_full + 8 * i, 1);
      ptx::mbarrier_init(value_full + 8 * i, 1);
      ptx::mbarrier_init(key_empty + 8 * i, 2);
      ptx::mbarrier_init(value_empty + 8 * i, 2);
    }
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
    const char* next = static_cast<const char*>(a.kv.pages[0]);
    for (int page = 0; page < pages; ++page) {
      const uint32_t stage = page % kStages, parity = (page / kStages & 1) ^ 1;
      const char* from = next + head_bytes;
      if (page + 1 < pages) next = static_cast<const char*>(a.kv.pages[page + 1]);
      ptx::mbarrier_wait(key_empty + 8 * stage, parity);  // passes at once in the first round
      ptx::mbarrier_arrive_expect(key_full + 8 * stage, kBlockBytes);
      ptx::bulk_load(keys + stage * kBlockBytes, from, kBlockBytes, key_full + 8 * stage);
      ptx::mbarrier_wait(value_empty + 8 * stage, parity);
      ptx::mbarrier_arrive_expect(value_full + 8 * stage, kBlockBytes);
      ptx::bulk_load(values + stage * kBlockBytes, from + kBlockBytes, kBlockBytes, value_full + 8 * stage);
    }
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
  float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, factor[2];
  float score[64], out[D / 2];
  uint32_t weight[kKeys / 16][4];

  const auto multiply_keys = [&](int page) {
    const uint32_t stage = page % kStages;
    ptx::mbarrier_wait(key_full + 8 * stage, page / kStages & 1);
    const uint64_t q = ptx::wgmma_descriptor(own), k = ptx::wgmma_descriptor(keys + stage * kBlockBytes);
    ptx::wgmma_hold(score);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; ++i) ptx::wgmma_m64n128k16(score, q + i / 4 * (64 * 128 / 16) + i % 4 * 2, k + i / 4 * (kTileBytes / 16) + i % 4 * 2, i > 0);
    ptx::wgmma_commit();
  };
  const auto multiply_values = [&](int page) {
    const uint32_t stage = page % kStages;
    ptx::mbarrier_wait(value_full + 8 * stage, page / kStages & 1);
    const uint64_t v = ptx::wgmma_descriptor_transposed(values + stage * kBlockBytes, kTileBytes);
    ptx::wgmma_hold(out);
    ptx::wgmma_hold(weight);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) ptx::wgmma_m64k16_transposed(out, weight[i], v + i * 128, page > 0 || i > 0);
    ptx::wgmma_commit();
  };
  const auto release = [&](uint32_t barrier, int page) {
    if (thread == 0) ptx::mbarrier_arrive(barrier + 8 * (page % kStages));
  };
  // Scores become weights; `factor` is what earlier results shrink by.
  const auto soften = [&](int page) {
    const int64_t begin = static_cast<int64_t>(page) * kKeys;
    if (begin + kKeys > first_visible + 1) {  // the diagonal crosses this page
      const int limit[2] = {static_cast<int>(position[0] - begin), static_cast<int>(position[1] - begin)};
#pragma unroll
      for (int i = 0; i < 64; ++i)
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 > limit[i / 2 % 2]) score[i] = -INFINITY;
    }
    float highest[2] = {maximum[0], maximum[1]};
#pragma unroll
    for (int i = 0; i < 64; ++i) highest[i / 2 % 2] = fmaxf(highest[i / 2 % 2], score[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 2));
      factor[r] = ptx::exp2((maximum[r] - highest[r]) * p.scale);  // every row sees the first page: never infinity less infinity
      maximum[r] = highest[r];
      sum[r] *= factor[r];
      highest[r] *= p.scale;
    }
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      score[i] = ptx::exp2(fmaf(score[i], p.scale, -highest[i / 2 % 2]));
      sum[i / 2 % 2] += score[i];
    }
  };
  const auto pack = [&] {
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) weight[i][j] = pack_bf16(score[8 * i + 2 * j], score[8 * i + 2 * j + 1]);
  };

  multiply_keys(0);
  ptx::wgmma_wait<0>();
  ptx::wgmma_hold(score);
  release(key_empty, 0);
  soften(0);
  pack();
  for (int page = 1; page < pages; ++page) {
    multiply_keys(page);
    multiply_values(page - 1);
    ptx::wgmma_wait<1>();
    ptx::wgmma_hold(score);
    release(key_empty, page);
    soften(page);
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(out);
    ptx::wgmma_hold(weight);
    release(value_empty, page - 1);
#pragma unroll
    for (int i = 0; i < D / 2; ++i) out[i] *= factor[i / 2 % 2];
    pack();
  }
  multiply_values(pages - 1);
  ptx::wgmma_wait<0>();
  ptx::wgmma_hold(out);

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    const int64_t row = r == 0 ? row0 : row1;
    if (row >= p.rows) continue;
    const float inverse = 1.0f / sum[r];
    auto* to = static_cast<__nv_bfloat16*>(a.out) + (row / group * a.heads + kv_head * group + row % group) * D;
#pragma unroll
    for (int j = 0; j < D / 8; ++j)
      *reinterpret_cast<uint32_t*>(to + j * 8 + lane % 4 * 2) = pack_bf16(out[4 * j + 2 * r] * inverse, out[4 * j + 2 * r + 1] * inverse);
  }
}

template <int D>
Status launch(const AttentionPlan& p, Stream stream) {
  constexpr int kSharedBytes = static_cast<int>(Shared<D>::kBytes) + 1024;  // the tiles begin at a multiple of 1,024
  if (const auto error = cudaFuncSetAttribute(attention_sm90_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes)) return static_cast<Status>(error);
  const dim3 grid(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.args.kv.kv_heads));
  attention_sm90_kernel<D><<<grid, kThreads, kSharedBytes, cuda(stream)>>>(p);
  return launched();
}

}  // namespace

Status launch_attention_sm90(const AttentionPlan& plan, Stream stream) {
  return plan.args.kv.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
