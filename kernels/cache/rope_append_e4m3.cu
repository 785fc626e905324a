// Rotary positions, fused with writing K and V into e4m3 pages: a block of threads takes K or V of a page and head, so that the largest
// magnitude of what begins a page is at hand.
#include "kernels/cache/quantize_block.cuh"
#include "kernels/cache/rope_append.cuh"
#include "kernels/cache/rotate_head.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = kQuantizeThreads, kWarps = kQuantizeWarps;

// K or V (`is_value`) of a page and head: those of its tokens that are written now.
template <int D>
__device__ inline void append_block(const RopeAppendArgs& p, int64_t begin, int64_t page, int head, bool is_value) {
  const auto* heads = static_cast<const __nv_bfloat16*>(is_value ? p.v : p.k) + head * p.head_dim;
  const int64_t offset = begin - page * kPageTokens;  // of the first token, in the page or before it
  char* block = static_cast<char*>(p.kv.pages[page]) + ((p.kv.layer * p.kv.kv_heads + head) * 2 + is_value) * page_block_bytes(PageFormat::kE4M3, D);
  quantize_block<D>(block, is_value, static_cast<int>(max(offset, int64_t{0})), static_cast<int>(min(offset + p.tokens, kPageTokens)), [&](int token, float(&x)[D / 32]) {
    read_head<D>(p, heads + (token - offset) * p.kv.kv_heads * p.head_dim, token - offset, !is_value, x);
  });
}

// Blocks of threads for K and V of the pages first, then for the queries, a head of a token a warp.
template <int D>
__global__ void __launch_bounds__(kThreads, 4) rope_append_e4m3_kernel(const RopeAppendArgs p, int kv_blocks) {
  ptx::wait_for_previous();
  ptx::start_dependents();  // not before, as in rope_append
  const int index = static_cast<int>(blockIdx.x), kv_heads = static_cast<int>(p.kv.kv_heads), heads = static_cast<int>(p.heads);
  if (index < kv_blocks) {
    const int64_t begin = p.position ? *p.position : p.first_position;
    append_block<D>(p, begin, begin / kPageTokens + index / (2 * kv_heads), index % (2 * kv_heads) / 2, index % 2);
    return;
  }
  const int item = (index - kv_blocks) * kWarps + static_cast<int>(threadIdx.x) / 32, t = item / heads;
  if (t < p.tokens) rotate_query<D>(p, t, item % heads);
}

}  // namespace

Status launch_rope_append_e4m3(const RopeAppendArgs& args, Stream stream) {
  const int64_t warps = args.tokens * args.heads, pages = (args.first_position + args.tokens - 1) / kPageTokens - args.first_position / kPageTokens + 1;
  const int64_t kv_blocks = pages * args.kv.kv_heads * 2, blocks = kv_blocks + ceil_div(warps, kWarps);
  if (warps > kLargestGrid - kWarps || blocks > kLargestGrid) return kInvalidShape;
  const auto kernel = args.kv.head_dim == 64 ? rope_append_e4m3_kernel<64> : rope_append_e4m3_kernel<128>;
  return launch_dependent(kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, args, static_cast<int>(kv_blocks));
}

}  // namespace longview::kernels
