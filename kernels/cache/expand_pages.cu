// One layer of q8 pages in bf16, in the layout that tensor cores read. Bound by memory: what is read once is written twice as wide.
#include "kernels/cache/q8.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256, kRun = 16;  // codes of a thread's access

// A block of K or V (blockIdx.y = 2 * kv_head + is_value) of a page a block of threads.
template <int D>
__global__ void __launch_bounds__(kThreads) expand_pages_kernel(const ExpandPagesArgs p) {
  constexpr int kRuns = D / kRun, kItems = static_cast<int>(kPageTokens) * kRuns / kThreads;
  const PagedKv& kv = p.from;
  const bool means = kv.layers > 0;
  const auto* page = static_cast<const char*>(kv.pages[blockIdx.x]);
  const char* from = page + (kv.layer * kv.kv_heads * 2 + blockIdx.y) * page_block_bytes(PageFormat::kQ8, D);
  auto* to = static_cast<char*>(p.to[blockIdx.x]);
  char* block = to + blockIdx.y * page_block_bytes(PageFormat::kBFloat16, D);
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
  if (means && threadIdx.x < D / 8) {
    const char* mean = page + page_mean_bytes(PageFormat::kQ8, kv.layers, kv.kv_heads, D, kv.layer, 0) + blockIdx.y * D * 2;
    char* mean_to = to + page_mean_bytes(PageFormat::kBFloat16, 1, kv.kv_heads, D, 0, 0) + blockIdx.y * D * 2;
    reinterpret_cast<uint4*>(mean_to)[threadIdx.x] = reinterpret_cast<const uint4*>(mean)[threadIdx.x];
  }
}

}  // namespace

Status launch_expand_pages(const ExpandPagesArgs& args, Stream stream) {
  const PagedKv& kv = args.from;
  if (kv.format != PageFormat::kQ8) return kUnsupportedType;
  if (args.pages <= 0 || args.pages > kLargestGrid || kv.kv_heads <= 0 || kv.kv_heads > 4096) return kInvalidShape;
  if (kv.head_dim != 64 && kv.head_dim != 128) return kInvalidShape;
  if (kv.layer < 0 || (kv.layers != 0 && kv.layer >= kv.layers)) return kInvalidShape;
  const auto kernel = kv.head_dim == 64 ? expand_pages_kernel<64> : expand_pages_kernel<128>;
  kernel<<<dim3(static_cast<unsigned>(args.pages), static_cast<unsigned>(kv.kv_heads * 2)), kThreads, 0, cuda(stream)>>>(args);
  return launched();
}

}  // namespace longview::kernels
