// Rotary positions, fused with writing K and V into e4m3 pages: a block of threads takes K or V of a page and head, so that the largest
// magnitude of what begins a page is at hand. Of a single token a warp takes a head: it waits for little else than its instructions,
// which are then a tenth as many.
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
  const auto *keys = static_cast<const __nv_bfloat16*>(p.k) + head * p.head_dim, *values = static_cast<const __nv_bfloat16*>(p.v) + head * p.head_dim;
  const int64_t offset = begin - page * kPageTokens;  // of the first token, in the page or before it
  char* block = static_cast<char*>(p.kv.pages[page]) + ((p.kv.layer * p.kv.kv_heads + head) * 2 + is_value) * page_block_bytes(PageFormat::kE4M3, D);
  quantize_block<D>(block, is_value, static_cast<int>(max(offset, int64_t{0})), static_cast<int>(min(offset + p.tokens, kPageTokens)), [&](int token, float(&x)[D / 32]) {
    const int64_t at = (token - offset) * p.kv.kv_heads * p.head_dim;
    read_kept<D>(p, keys + at, values + at, token - offset, is_value, x);
  });
}

// Blocks of threads for K and V of the pages first, then for the queries, a head of a token a warp.
template <int D>
__global__ void __launch_bounds__(kThreads, D <= 128 ? 4 : 2) rope_append_e4m3_kernel(const RopeAppendArgs p, int kv_blocks) {
  ptx::wait_for_previous();
  ptx::start_dependents();  // not before: beside the product attention over 8-bit pages takes longer (test/bench/RESULTS.md, Decode)
  const int index = static_cast<int>(blockIdx.x), kv_heads = static_cast<int>(p.kv.kv_heads), heads = static_cast<int>(p.heads);
  if (index < kv_blocks) {
    const int64_t begin = p.position ? *p.position : p.first_position;
    append_block<D>(p, begin, begin / kPageTokens + index / (2 * kv_heads), index % (2 * kv_heads) / 2, index % 2);
    return;
  }
  const int item = (index - kv_blocks) * kWarps + static_cast<int>(threadIdx.x) / 32, t = item / heads;
  if (t < p.tokens) rotate_query<D>(p, t, item % heads);
}

// A head of the one token a warp: those of q, then of k, then of v.
template <int D>
__global__ void __launch_bounds__(kThreads, 4) rope_append_token_e4m3_kernel(const RopeAppendArgs p) {
  constexpr int kDims = D / 32;
  const int heads = static_cast<int>(p.heads), kv_heads = static_cast<int>(p.kv.kv_heads), lane = static_cast<int>(threadIdx.x) % 32;
  const int item = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32, behind = item - heads;
  const bool is_value = behind >= kv_heads;
  const int head = is_value ? behind - kv_heads : behind;
  const int64_t position = p.position ? *p.position : p.first_position, token = position % kPageTokens;
  char* block = static_cast<char*>(p.kv.pages[position / kPageTokens]) + ((p.kv.layer * kv_heads + head) * 2 + is_value) * page_block_bytes(PageFormat::kE4M3, D);
  // A page that was begun has its scale since an earlier token: it need not wait for the kernel in front.
  float x[kDims], scale = behind >= 0 && behind < 2 * kv_heads && token > 0 ? e4m3_scale_of<D>(static_cast<const char*>(block)) : 0;
  ptx::wait_for_previous();
  ptx::start_dependents();  // not before: beside the product attention over 8-bit pages takes longer (test/bench/RESULTS.md, Decode)
  if (behind < 0) return rotate_query<D>(p, 0, item);
  if (behind >= 2 * kv_heads) return;
  read_kept<D>(p, static_cast<const __nv_bfloat16*>(p.k) + head * p.head_dim, static_cast<const __nv_bfloat16*>(p.v) + head * p.head_dim, 0, is_value, x);
  if (token == 0) {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kDims; ++i) largest = fmaxf(largest, finite_magnitude(x[i]));
    scale = e4m3_page_scale(warp_max(largest));
    if (lane == 0) e4m3_scale_of<D>(block) = scale;
  }
  const float inverse = 1 / scale;
#pragma unroll
  for (int i = 0; i < kDims; ++i) x[i] *= inverse;
  const uint64_t codes = lane_codes(x);
  if (!is_value) return write_codes<kDims>(block + e4m3_key_offset(D, token, lane * kDims), codes);
#pragma unroll
  for (int i = 0; i < kDims; ++i) block[e4m3_value_offset(token, lane * kDims + i)] = static_cast<char>(codes >> 8 * i);
}

}  // namespace

Status launch_rope_append_e4m3(const RopeAppendArgs& args, Stream stream) {
  const int64_t d = args.kv.head_dim;
  if (args.tokens == 1) {
    const auto kernel = d == 64 ? rope_append_token_e4m3_kernel<64> : d == 128 ? rope_append_token_e4m3_kernel<128> : rope_append_token_e4m3_kernel<256>;
    return launch_dependent(kernel, dim3(static_cast<unsigned>(ceil_div(args.heads + 2 * args.kv.kv_heads, kWarps))), kThreads, 0, stream, args);
  }
  const int64_t warps = args.tokens * args.heads, pages = (args.first_position + args.tokens - 1) / kPageTokens - args.first_position / kPageTokens + 1;
  const int64_t kv_blocks = pages * args.kv.kv_heads * 2, blocks = kv_blocks + ceil_div(warps, kWarps);
  if (warps > kLargestGrid - kWarps || blocks > kLargestGrid) return kInvalidShape;
  const auto kernel = d == 64 ? rope_append_e4m3_kernel<64> : d == 128 ? rope_append_e4m3_kernel<128> : rope_append_e4m3_kernel<256>;
  return launch_dependent(kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, args, static_cast<int>(kv_blocks));
}

}  // namespace longview::kernels
