// One layer of pages of 8 or 4 bits in bf16, in the layout that tensor cores read. Bound by memory: what is read once is written two or four times as wide.
#include "kernels/cache/e4m3_pages.cuh"
#include "kernels/cache/q4.cuh"
#include "kernels/cache/q8.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256, kRun = 16;  // codes of a thread's access

template <int D>
__device__ inline void copy_mean(const ExpandPagesArgs& p) {
  const PagedKv& kv = p.from;
  if (kv.layers == 0 || threadIdx.x >= D / 8) return;
  const char* from = static_cast<const char*>(kv.pages[blockIdx.x]) + page_mean_bytes(kv.format, kv.layers, kv.kv_heads, D, kv.layer, 0) + blockIdx.y * D * 2;
  char* to = static_cast<char*>(p.to[blockIdx.x]) + page_mean_bytes(PageFormat::kBFloat16, 1, kv.kv_heads, D, 0, 0) + blockIdx.y * D * 2;
  reinterpret_cast<uint4*>(to)[threadIdx.x] = reinterpret_cast<const uint4*>(from)[threadIdx.x];
}

// A block of K or V (blockIdx.y = 2 * kv_head + is_value) of a page a block of threads.
template <int D>
__global__ void __launch_bounds__(kThreads) expand_q8_kernel(const ExpandPagesArgs p) {
  constexpr int kRuns = D / kRun, kItems = static_cast<int>(kPageTokens) * kRuns / kThreads;
  const PagedKv& kv = p.from;
  const char* from = static_cast<const char*>(kv.pages[blockIdx.x]) + (kv.layer * kv.kv_heads * 2 + blockIdx.y) * page_block_bytes(PageFormat::kQ8, D);
  char* block = static_cast<char*>(p.to[blockIdx.x]) + blockIdx.y * page_block_bytes(PageFormat::kBFloat16, D);
  uint4 codes[kItems];
  __nv_bfloat16 scales[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int item = static_cast<int>(threadIdx.x) + i * kThreads;
    codes[i] = reinterpret_cast<const uint4*>(from)[item];
    scales[i] = q8_scale(from, D, item / kRuns, item % kRuns * kRun);
  }
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int item = static_cast<int>(threadIdx.x) + i * kThreads, token = item / kRuns, dimension = item % kRuns * kRun;
    const __nv_bfloat162 both = {scales[i], scales[i]};
    const uint32_t words[4] = {codes[i].x, codes[i].y, codes[i].z, codes[i].w};
#pragma unroll
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<uint4*>(block + 2 * page_offset(token, dimension + 8 * half)) = {q8_bits(q8_low(words[2 * half]), both), q8_bits(q8_high(words[2 * half]), both),
                                                                                         q8_bits(q8_low(words[2 * half + 1]), both), q8_bits(q8_high(words[2 * half + 1]), both)};
  }
  copy_mean<D>(p);
}

// The same of q4 pages. A word, eight dimensions, a thread: what a warp writes are whole lines.
template <int D>
__global__ void __launch_bounds__(kThreads) expand_q4_kernel(const ExpandPagesArgs p) {
  constexpr int kRuns = D / 8, kItems = static_cast<int>(kPageTokens) * kRuns / kThreads;
  static_assert(kThreads % kRuns == 0);  // all of a thread's words are of the same dimensions
  const PagedKv& kv = p.from;
  const char* from = static_cast<const char*>(kv.pages[blockIdx.x]) + (kv.layer * kv.kv_heads * 2 + blockIdx.y) * page_block_bytes(PageFormat::kQ4, D);
  char* block = static_cast<char*>(p.to[blockIdx.x]) + blockIdx.y * page_block_bytes(PageFormat::kBFloat16, D);
  const int first = static_cast<int>(threadIdx.x) / kRuns, dimension = static_cast<int>(threadIdx.x) % kRuns * 8;
  uint32_t codes[kItems];
  float scales[kItems], reference[8], x[8];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    codes[i] = reinterpret_cast<const uint32_t*>(from)[static_cast<int>(threadIdx.x) + i * kThreads];
    scales[i] = q4_scale(from, D, first + i * (kThreads / kRuns), dimension);
  }
  unpack_q4_reference(from, D, dimension, reference);
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    q4_values(codes[i], scales[i], reference, x);
    *reinterpret_cast<uint4*>(block + 2 * page_offset(first + i * (kThreads / kRuns), dimension)) = {pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7])};
  }
  copy_mean<D>(p);
}

// The same of e4m3 pages. V is turned on the way: a thread takes a word, four tokens, of eight dimensions.
template <int D>
__global__ void __launch_bounds__(kThreads) expand_e4m3_kernel(const ExpandPagesArgs p) {
  const PagedKv& kv = p.from;
  const char* from = static_cast<const char*>(kv.pages[blockIdx.x]) + (kv.layer * kv.kv_heads * 2 + blockIdx.y) * page_block_bytes(PageFormat::kE4M3, D);
  char* block = static_cast<char*>(p.to[blockIdx.x]) + blockIdx.y * page_block_bytes(PageFormat::kBFloat16, D);
  const float scale = e4m3_scale_of<D>(from);
  const auto write = [&](int64_t token, int dimension, const float(&x)[8]) {
    *reinterpret_cast<uint4*>(block + 2 * page_offset(token, dimension)) = {pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7])};
  };
  copy_mean<D>(p);
  if (blockIdx.y % 2 == 0) {
    for (int item = static_cast<int>(threadIdx.x); item < kPageTokens * (D / 8); item += kThreads) {
      const int token = item / (D / 8), dimension = item % (D / 8) * 8;
      const uint2 words = *reinterpret_cast<const uint2*>(from + e4m3_key_offset(D, token, dimension));
      float x[8];
      unpack_e4m3x4(words.x, scale, reinterpret_cast<float(&)[4]>(x[0]));
      unpack_e4m3x4(words.y, scale, reinterpret_cast<float(&)[4]>(x[4]));
      write(token, dimension, x);
    }
    return;
  }
  for (int item = static_cast<int>(threadIdx.x); item < D / 8 * static_cast<int>(kPageTokens) / 4; item += kThreads) {
    const int dimension = item / (static_cast<int>(kPageTokens) / 4) * 8, word = item % (static_cast<int>(kPageTokens) / 4), token = word / 4 * 16 + word % 4 * 2;
    float x[8][4], turned[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) unpack_e4m3x4(*reinterpret_cast<const uint32_t*>(from + e4m3_value_offset(token, dimension + i)), scale, x[i]);
#pragma unroll
    for (int t = 0; t < 4; ++t) {
#pragma unroll
      for (int i = 0; i < 8; ++i) turned[i] = x[i][t];
      write(token + t / 2 * 8 + t % 2, dimension, turned);
    }
  }
}

}  // namespace

Status launch_expand_pages(const ExpandPagesArgs& args, Stream stream) {
  const PagedKv& kv = args.from;
  if (kv.format == PageFormat::kBFloat16) return kUnsupportedType;
  if (args.pages <= 0 || args.pages > kLargestGrid || kv.kv_heads <= 0 || kv.kv_heads > 4096) return kInvalidShape;
  const int64_t d = kv.head_dim;
  if (d != 64 && d != 128 && d != 256) return kInvalidShape;
  if (kv.layer < 0 || (kv.layers != 0 && kv.layer >= kv.layers)) return kInvalidShape;
  const auto kernel = kv.format == PageFormat::kE4M3 ? (d == 64 ? expand_e4m3_kernel<64> : d == 128 ? expand_e4m3_kernel<128> : expand_e4m3_kernel<256>)
                      : kv.format == PageFormat::kQ4 ? (d == 64 ? expand_q4_kernel<64> : d == 128 ? expand_q4_kernel<128> : expand_q4_kernel<256>)
                                                     : (d == 64 ? expand_q8_kernel<64> : d == 128 ? expand_q8_kernel<128> : expand_q8_kernel<256>);
  kernel<<<dim3(static_cast<unsigned>(args.pages), static_cast<unsigned>(kv.kv_heads * 2)), kThreads, 0, cuda(stream)>>>(args);
  return launched();
}

}  // namespace longview::kernels
