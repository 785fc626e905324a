// What stands for a page that is not visited: means of its keys and values weighed by what the probes look at, and a gain.
#include <type_traits>

#include "kernels/cache/keys.cuh"
#include "kernels/index/probes.cuh"
#include "kernels/index/sparse.cuh"
#include "kernels/ptx/exp2.cuh"

namespace longview::kernels {
namespace {

constexpr int kStandInThreads = 256;
constexpr int kPagesOfBlock = 8;  // the probes' queries are read once for all of them
// Of a page with less the probes know nothing. A gain is that of 1/56 to 7.5 times the weight of 128 keys.
constexpr float kLeastWeight = 1e-30f, kLeastGain = -5.8f, kMostGain = 2.9f;

// A weighed sum of the tokens of a page, in parts that are still to be added up: sums[part][dimension] for parts 0 .. kParts - 1.
// Of K, and of V of bf16 pages: eight dimensions a thread, the tokens shared out.
template <int D, PageFormat kFormat>
struct TokenSums {
  static constexpr int kChunks = D / 8, kParts = kStandInThreads / kChunks;
  static __device__ void add(const char* block, const float* weights, float (*sums)[D]) {
    const int chunk = static_cast<int>(threadIdx.x) % kChunks, part = static_cast<int>(threadIdx.x) / kChunks;
    float sum[8] = {};
    for (int token = part; token < kBlockKeys; token += kParts) {
      float x[8];
      unpack_keyx8<D, kFormat>(block, token, chunk * 8, x);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] = fmaf(weights[token], x[i], sum[i]);
    }
    const float scale = key_scale<D, kFormat>(block);
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[part][chunk * 8 + i] = sum[i] * scale;
  }
};

// Of V of e4m3 pages, whose rows are the dimensions: part of a row a thread. `weights` stand as the tokens of dimension 0 do.
template <int D>
struct ValueRowSums {
  static constexpr int kParts = kStandInThreads / D, kRunTokens = 16;
  static __device__ void add(const char* block, const float* weights, float (*sums)[D]) {
    const int dimension = static_cast<int>(threadIdx.x) / kParts, part = static_cast<int>(threadIdx.x) % kParts;
    float sum = 0;
    for (int run = part; run < kBlockKeys / kRunTokens; run += kParts) {
      const uint4 codes = *reinterpret_cast<const uint4*>(block + dimension * kBlockKeys + run * kRunTokens);
      const float* of_run = weights + (run ^ dimension % 8) * kRunTokens;
      const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float x[4];
        unpack_e4m3x4(words[i], 1.0f, x);
#pragma unroll
        for (int j = 0; j < 4; ++j) sum = fmaf(of_run[4 * i + j], x[j], sum);
      }
    }
    sums[part][dimension] = sum * e4m3_scale_of<D>(block);
  }
};

// kPagesOfBlock pages of a KV head a block. Grid: (pages that are full, KV heads).
template <int D, PageFormat kFormat>
__global__ void __launch_bounds__(kStandInThreads) stand_ins_kernel(const SparsePlan p, int first_kv_head) {
  using KeySums = TokenSums<D, kFormat>;
  using ValueSums = std::conditional_t<kFormat == PageFormat::kE4M3, ValueRowSums<D>, KeySums>;
  static_assert(D <= kStandInThreads && kBlockKeys % 32 == 0 && kPagesOfBlock <= kStandInThreads);
  __shared__ float weights[2][kBlockKeys], sums[2][KeySums::kParts][D], found[kPagesOfBlock], expected[kStandInThreads / 32][kPagesOfBlock];
  __shared__ float4 keys[kPagesOfBlock][D / 4];
  const int thread = static_cast<int>(threadIdx.x), kv_head = first_kv_head + static_cast<int>(blockIdx.y);
  const int full = static_cast<int>((p.args.first_position + p.args.tokens) / kBlockKeys), begin = static_cast<int>(blockIdx.x) * kPagesOfBlock, pages = min(kPagesOfBlock, full - begin);

  for (int i = 0; i < kPagesOfBlock; ++i) {
    const int page = begin + i;
    float weight = 0;
    if (thread < kBlockKeys && i < pages) weight = p.key_weights[(static_cast<int64_t>(blockIdx.y) * p.pages + page) * kBlockKeys + thread];
    if (thread < kBlockKeys) {
      weights[0][thread] = weight;
      weights[1][kFormat == PageFormat::kE4M3 ? e4m3_value_offset(thread, 0) : thread] = weight;
    }
    if (thread < D / 4) keys[i][thread] = {};
    __syncthreads();
    float all = 0;  // every warp adds up all of them
    for (int key = thread % 32; key < kBlockKeys; key += 32) all += weights[0][key];
    all = warp_sum(all);
    const bool known = all > kLeastWeight;
    if (thread == 0) found[i] = known ? all : 0;
    if (known) {
      const char* blocks = static_cast<const char*>(p.args.kv.pages[page]) + (p.args.kv.layer * p.args.kv.kv_heads + kv_head) * 2 * page_block_bytes(kFormat, D);
      KeySums::add(blocks, weights[0], sums[0]);
      ValueSums::add(blocks + page_block_bytes(kFormat, D), weights[1], sums[1]);
      __syncthreads();
      const auto write_mean = [&](int item) {
        const int v = item / D, dimension = item % D;
        float sum = 0;
        for (int j = 0; j < (v == 0 ? KeySums::kParts : ValueSums::kParts); ++j) sum += sums[v][j][dimension];
        const __nv_bfloat16 mean = __float2bfloat16(sum / all);
        const_cast<__nv_bfloat16*>(mean_block<D>(p, page / kBlockKeys, kv_head))[v * kBlockKeys * D + page_offset(page % kBlockKeys, dimension)] = mean;
        if (v == 0) reinterpret_cast<float*>(keys[i])[dimension] = __bfloat162float(mean);
      };
      if (thread < 2 * D) write_mean(thread);
      if constexpr (2 * D > kStandInThreads) write_mean(kStandInThreads + thread);
    }
    __syncthreads();
  }

  // What the probes would find by the stand-ins, for one key each.
  const ProbeRows probed = ProbeRows::of_kv_head(p, kv_head);
  float by_stand_in[kPagesOfBlock] = {};
  for (int row = thread; row < probed.count(); row += kStandInThreads) {
    const auto* query = reinterpret_cast<const uint4*>(probed.query<D>(p, row));
    float score[kPagesOfBlock] = {};
    for (int j = 0; j < D / 8; ++j) {
      float x[8];
      unpack_bf16x8(query[j], x);
#pragma unroll
      for (int i = 0; i < kPagesOfBlock; ++i) {
        const float4 low = keys[i][2 * j], high = keys[i][2 * j + 1];
        score[i] += x[0] * low.x + x[1] * low.y + x[2] * low.z + x[3] * low.w + x[4] * high.x + x[5] * high.y + x[6] * high.z + x[7] * high.w;
      }
    }
    const float offset = p.probe_offsets[probed.place(row)];
    const int whole = static_cast<int>((p.args.first_position + probed.token(row) + 1) / kBlockKeys) - begin;  // pages of the block that the row sees whole
#pragma unroll
    for (int i = 0; i < kPagesOfBlock; ++i)
      if (i < whole) by_stand_in[i] += ptx::exp2(fmaf(score[i], p.scale, offset));
  }
#pragma unroll
  for (int i = 0; i < kPagesOfBlock; ++i) {
    const float sum = warp_sum(by_stand_in[i]);
    if (thread % 32 == 0) expected[thread / 32][i] = sum;
  }
  __syncthreads();
  if (thread >= pages || found[thread] == 0) return;
  float sum = 0;
#pragma unroll
  for (const auto& of_warp : expected) sum += of_warp[thread];
  p.gains[static_cast<int64_t>(kv_head) * p.mean_blocks * kBlockKeys + begin + thread] = fminf(fmaxf(__log2f(found[thread]) - __log2f(sum) - kMeanBias, kLeastGain), kMostGain);
}

template <PageFormat kFormat>
Status launch(const SparsePlan& p, int64_t first_kv_head, int64_t count, Stream stream) {
  auto kernel = p.args.kv.head_dim == 64 ? stand_ins_kernel<64, kFormat> : stand_ins_kernel<128, kFormat>;
  if constexpr (kFormat == PageFormat::kBFloat16)
    if (p.args.kv.head_dim == 256) kernel = stand_ins_kernel<256, kFormat>;
  const int64_t full = (p.args.first_position + p.args.tokens) / kBlockKeys;
  if (full == 0) return kOk;
  kernel<<<dim3(static_cast<unsigned>(ceil_div(full, kPagesOfBlock)), static_cast<unsigned>(count)), kStandInThreads, 0, cuda(stream)>>>(p, static_cast<int>(first_kv_head));
  return launched();
}

}  // namespace

Status launch_stand_ins(const SparsePlan& p, int64_t first_kv_head, int64_t count, Stream stream) {
  return p.args.kv.format == PageFormat::kE4M3 ? launch<PageFormat::kE4M3>(p, first_kv_head, count, stream) : launch<PageFormat::kBFloat16>(p, first_kv_head, count, stream);
}

}  // namespace longview::kernels
