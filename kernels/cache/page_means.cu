// Means of pages: made when a page is full, gathered for a layer in the layout of K and V blocks.
#include "kernels/api/sparse.h"
#include "kernels/cache/fault.cuh"
#include "kernels/cache/keys.cuh"
#include "kernels/cache/page_means.cuh"
#include "kernels/cache/q4.cuh"
#include "kernels/cache/q8.cuh"
#include "kernels/cache/quantize_block.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256;

// A block of K or V (blockIdx.y = 2 * kv_head + is_value) of a page: eight dimensions a thread, the tokens shared out.
template <PageFormat kFormat>
__global__ void __launch_bounds__(kThreads) page_means_kernel(const PagedKv kv, int64_t first_page) {
  const int d = static_cast<int>(kv.head_dim), chunks = d / 8, parts = kThreads / chunks;
  const int chunk = threadIdx.x % chunks, part = threadIdx.x / chunks;
  __shared__ float sums[kThreads][8];
  auto* page = static_cast<char*>(kv.pages[first_page + blockIdx.x]);
  const char* block = page + (kv.layer * kv.kv_heads * 2 + blockIdx.y) * page_block_bytes(kFormat, d);
  float sum[8] = {}, reference[8];
  if constexpr (kFormat == PageFormat::kQ4) unpack_q4_reference(block, d, chunk * 8, reference);
  if (part < parts)
    for (int token = part; token < kPageTokens; token += parts) {
      float x[8];
      if constexpr (kFormat == PageFormat::kQ8) unpack_q8x8(block, d, token, chunk * 8, x);
      else if constexpr (kFormat == PageFormat::kQ4) unpack_q4x8(block, d, token, chunk * 8, reference, x);
      else unpack_bf16x8(*reinterpret_cast<const uint4*>(block + 2 * page_offset(token, chunk * 8)), x);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] += x[i];
    }
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[threadIdx.x][i] = sum[i];
  __syncthreads();
  if (part != 0) return;
  for (int other = 1; other < parts; ++other)
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += sums[other * chunks + chunk][i];
  constexpr float kShare = 1.0f / kPageTokens;
  char* to = page + page_mean_bytes(kFormat, kv.layers, kv.kv_heads, d, kv.layer, 0) + (blockIdx.y * d + chunk * 8) * 2;
  *reinterpret_cast<uint4*>(to) = {pack_bf16(sum[0] * kShare, sum[1] * kShare), pack_bf16(sum[2] * kShare, sum[3] * kShare),
                                   pack_bf16(sum[4] * kShare, sum[5] * kShare), pack_bf16(sum[6] * kShare, sum[7] * kShare)};
}

// The same of e4m3 pages. K: four dimensions a thread, the tokens shared out. V, whose rows are the dimensions: a dimension's run of tokens
// a thread, in whatever order they stand.
template <int D>
__global__ void __launch_bounds__(kThreads) e4m3_means_kernel(const PagedKv kv, int64_t first_page) {
  constexpr int kTokens = static_cast<int>(kPageTokens), kParts = kThreads / D, kRun = kTokens / kParts, kChunks = D / 4;
  __shared__ float sums[kThreads / kChunks][D];
  auto* page = static_cast<char*>(kv.pages[first_page + blockIdx.x]);
  const char* block = page + (kv.layer * kv.kv_heads * 2 + blockIdx.y) * page_block_bytes(PageFormat::kE4M3, D);
  const bool is_value = blockIdx.y % 2;
  const int thread = static_cast<int>(threadIdx.x), parts = is_value ? kParts : kThreads / kChunks;
  float x[4], sum[4] = {};
  const auto add = [&](int64_t offset) {
    unpack_e4m3x4(*reinterpret_cast<const uint32_t*>(block + offset), 1.0f, x);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += x[i];
  };
  if (is_value) {
    for (int i = 0; i < kRun; i += 4) add(thread / kParts * kTokens + thread % kParts * kRun + i);
    sums[thread % kParts][thread / kParts] = sum[0] + sum[1] + (sum[2] + sum[3]);
  } else {
    for (int token = thread / kChunks; token < kTokens; token += kThreads / kChunks) add(e4m3_key_offset(D, token, thread % kChunks * 4));
    *reinterpret_cast<float4*>(sums[thread / kChunks] + thread % kChunks * 4) = {sum[0], sum[1], sum[2], sum[3]};
  }
  __syncthreads();
  if (thread >= D) return;
  float all = 0;
  for (int part = 0; part < parts; ++part) all += sums[part][thread];
  char* to = page + page_mean_bytes(PageFormat::kE4M3, kv.layers, kv.kv_heads, D, kv.layer, 0) + (blockIdx.y * D + thread) * 2;
  *reinterpret_cast<__nv_bfloat16*>(to) = __float2bfloat16(all * (e4m3_scale_of<D>(block) / kTokens));
}

// 16 bytes a thread. blockIdx.y is the KV head.
__global__ void __launch_bounds__(kThreads) gather_means_kernel(const PagedKv kv, int64_t pages, __nv_bfloat16* blocks, float* gains) {
  const int d = static_cast<int>(kv.head_dim), chunks = d / 8;
  const int64_t padded = ceil_div(pages, kPageTokens) * kPageTokens, item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= padded * 2 * chunks) return;
  const int chunk = static_cast<int>(item % chunks), is_value = static_cast<int>(item / chunks % 2);
  const int64_t page = item / chunks / 2;
  uint4 words = {0, 0, 0, 0};
  if (page < pages) {
    const char* means = static_cast<const char*>(kv.pages[page]) + page_mean_bytes(kv.format, kv.layers, kv.kv_heads, d, kv.layer, blockIdx.y);
    words = *reinterpret_cast<const uint4*>(means + (is_value * d + chunk * 8) * 2);
    if (!is_value && faults_of(words)) {
      words = {0, 0, 0, 0};
      gains[blockIdx.y * padded + page] = NAN;
    }
  }
  __nv_bfloat16* block = blocks + ((static_cast<int64_t>(blockIdx.y) * (padded / kPageTokens) + page / kPageTokens) * 2 + is_value) * kPageTokens * d;
  *reinterpret_cast<uint4*>(block + page_offset(page % kPageTokens, chunk * 8)) = words;
}

// A page of a KV head (blockIdx.y) a block: eight dimensions a thread, the tokens of a mean shared out.
template <int D, PageFormat kFormat>
__global__ void __launch_bounds__(kThreads) fine_means_kernel(const PagedKv kv, int64_t mean_blocks, __nv_bfloat16* blocks) {
  constexpr int kMeans = static_cast<int>(kFineMeans), kTokens = static_cast<int>(kPageTokens) / kMeans, kChunks = D / 8, kParts = kThreads / kChunks / kMeans;
  __shared__ float sums[kMeans][kParts][D];
  const int chunk = static_cast<int>(threadIdx.x) % kChunks, part = static_cast<int>(threadIdx.x) / kChunks % kParts, mean = static_cast<int>(threadIdx.x) / kChunks / kParts;
  const char* block = static_cast<const char*>(kv.pages[blockIdx.x]) + (kv.layer * kv.kv_heads + blockIdx.y) * 2 * page_block_bytes(kFormat, D);
  float sum[8] = {};
#pragma unroll
  for (int token = part; token < kTokens; token += kParts) {
    float x[8];
    unpack_keyx8<D, kFormat>(block, mean * kTokens + token, chunk * 8, x);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += x[i];
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[mean][part][chunk * 8 + i] = sum[i];
  __syncthreads();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kMeans;
  __nv_bfloat16* to = blocks + (blockIdx.y * kMeans * mean_blocks + first / kPageTokens) * kPageTokens * D;
  const float scale = key_scale<D, kFormat>(block) / kTokens;
  for (int item = static_cast<int>(threadIdx.x); item < kMeans * D; item += kThreads) {
    float all = 0;
    for (int i = 0; i < kParts; ++i) all += sums[item / D][i][item % D];
    to[page_offset(first % kPageTokens + item / D, item % D)] = __float2bfloat16(all * scale);
  }
}

// A block of K or V a block of threads.
template <int D>
__global__ void __launch_bounds__(kQuantizeThreads) narrow_means_kernel(const __nv_bfloat16* blocks, char* codes, int64_t blocks_of_head, int64_t full) {
  const int64_t first = blockIdx.x / 2 % blocks_of_head * kPageTokens;  // page
  const __nv_bfloat16* from = blocks + static_cast<int64_t>(blockIdx.x) * kPageTokens * D;
  quantize_block<D>(codes + static_cast<int64_t>(blockIdx.x) * page_block_bytes(PageFormat::kE4M3, D), blockIdx.x % 2, 0, static_cast<int>(kPageTokens), [&](int token, float(&x)[D / 32]) {
#pragma unroll
    for (int i = 0; i < D / 32; ++i)
      if (first + token < full) x[i] = __bfloat162float(from[page_offset(token, static_cast<int>(threadIdx.x) % 32 * (D / 32) + i)]);
  });
}

}  // namespace

Status launch_page_means(const PagedKv& kv, int64_t first_position, int64_t tokens, Stream stream) {
  const int64_t first_page = first_position / kPageTokens, pages = (first_position + tokens) / kPageTokens - first_page;
  if (kv.layers == 0 || pages <= 0) return kOk;
  const int64_t d = kv.head_dim;
  const auto kernel = kv.format == PageFormat::kE4M3 ? (d == 64 ? e4m3_means_kernel<64> : d == 128 ? e4m3_means_kernel<128> : e4m3_means_kernel<256>)
                      : kv.format == PageFormat::kQ8 ? page_means_kernel<PageFormat::kQ8>
                      : kv.format == PageFormat::kQ4 ? page_means_kernel<PageFormat::kQ4>
                                                     : page_means_kernel<PageFormat::kBFloat16>;
  kernel<<<dim3(static_cast<unsigned>(pages), static_cast<unsigned>(kv.kv_heads * 2)), kThreads, 0, cuda(stream)>>>(kv, first_page);
  return launched();
}

Status launch_gather_means(const PagedKv& kv, int64_t pages, void* blocks, float* gains, Stream stream) {
  if (pages <= 0) return kOk;
  const int64_t items = ceil_div(pages, kPageTokens) * kPageTokens * 2 * (kv.head_dim / 8);
  gather_means_kernel<<<dim3(static_cast<unsigned>(ceil_div(items, kThreads)), static_cast<unsigned>(kv.kv_heads)), kThreads, 0, cuda(stream)>>>(kv, pages, static_cast<__nv_bfloat16*>(blocks), gains);
  return launched();
}

Status launch_fine_means(const PagedKv& kv, int64_t full, int64_t mean_blocks, void* blocks, Stream stream) {
  if (full <= 0) return kOk;
  const int64_t d = kv.head_dim;
  constexpr PageFormat kWide = PageFormat::kBFloat16, kNarrow = PageFormat::kE4M3;
  const auto kernel = kv.format == kNarrow ? (d == 64 ? fine_means_kernel<64, kNarrow> : fine_means_kernel<128, kNarrow>)
                      : d == 64            ? fine_means_kernel<64, kWide>
                      : d == 128           ? fine_means_kernel<128, kWide>
                                           : fine_means_kernel<256, kWide>;
  kernel<<<dim3(static_cast<unsigned>(full), static_cast<unsigned>(kv.kv_heads)), kThreads, 0, cuda(stream)>>>(kv, mean_blocks, static_cast<__nv_bfloat16*>(blocks));
  return launched();
}

Status launch_narrow_means(const PagedKv& kv, int64_t pages, int64_t full, const void* blocks, void* codes, Stream stream) {
  const int64_t blocks_of_head = ceil_div(pages, kPageTokens);
  const auto kernel = kv.head_dim == 64 ? narrow_means_kernel<64> : narrow_means_kernel<128>;
  kernel<<<static_cast<unsigned>(kv.kv_heads * blocks_of_head * 2), kQuantizeThreads, 0, cuda(stream)>>>(static_cast<const __nv_bfloat16*>(blocks), static_cast<char*>(codes), blocks_of_head, full);
  return launched();
}

}  // namespace longview::kernels
