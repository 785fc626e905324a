// Rotary positions, fused with writing K and V into e4m3 pages: a block of threads takes K or V of a page and head, so that the largest
// magnitude of what begins a page is at hand. A warp has 16 neighbouring tokens, which of V are one chunk of a dimension.
#include "kernels/cache/e4m3_pages.cuh"
#include "kernels/cache/rope_append.cuh"
#include "kernels/cache/rotate_head.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kRun = static_cast<int>(kPageTokens) / kWarps;
static_assert(kRun == 16);

// The largest finite magnitude of all threads' values.
template <int kCount, int kDims>
__device__ inline float largest_of_block(const float (&x)[kCount][kDims]) {
  __shared__ float gathered[kWarps];
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i)
#pragma unroll
    for (int j = 0; j < kDims; ++j) largest = fmaxf(largest, isfinite(x[i][j]) ? fabsf(x[i][j]) : 0.0f);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  if (threadIdx.x % 32 == 0) gathered[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kWarps; ++i) largest = fmaxf(largest, gathered[i]);
  return largest;
}

// K or V (`is_value`) of a page and head: those of its tokens that are written now.
template <int D, int kDims = D / 32>
__device__ inline void append_block(const RopeAppendArgs& p, int64_t begin, int64_t page, int head, int is_value) {
  const int lane = static_cast<int>(threadIdx.x) % 32, first = static_cast<int>(threadIdx.x) / 32 * kRun;  // of the warp's tokens
  const int from = static_cast<int>(max(begin - page * kPageTokens, int64_t{0})), to = static_cast<int>(min(begin + p.tokens - page * kPageTokens, kPageTokens));
  const auto* heads = static_cast<const __nv_bfloat16*>(is_value ? p.v : p.k) + head * p.head_dim;
  float x[kRun][kDims] = {};
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const int64_t t = page * kPageTokens + first + i - begin;
    if (first + i >= from && first + i < to) read_head<D>(p, heads + t * p.kv.kv_heads * p.head_dim, t, !is_value, x[i]);
  }
  char* block = static_cast<char*>(p.kv.pages[page]) + ((p.kv.layer * p.kv.kv_heads + head) * 2 + is_value) * page_block_bytes(PageFormat::kE4M3, D);
  const float scale = from == 0 ? e4m3_page_scale(largest_of_block(x)) : e4m3_scale_of<D>(static_cast<const char*>(block)), inverse = 1 / scale;
  if (from == 0 && threadIdx.x == 0) e4m3_scale_of<D>(block) = scale;
#pragma unroll
  for (int i = 0; i < kRun; ++i)
#pragma unroll
    for (int j = 0; j < kDims; ++j) x[i][j] *= inverse;

  if (!is_value) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      if (first + i < from || first + i >= to) continue;
      char* at = block + e4m3_key_offset(D, first + i, lane * kDims);
      if constexpr (D == 128) *reinterpret_cast<uint32_t*>(at) = pack_e4m3(x[i][0], x[i][1], x[i][2], x[i][3]);
      else *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(pack_e4m3(x[i][0], x[i][1], 0, 0));
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < kDims; ++j) {
    char* chunk = block + e4m3_value_offset(first, lane * kDims + j);
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack_e4m3(x[2 * i][j], x[2 * i + 1][j], x[2 * i + 8][j], x[2 * i + 9][j]);
    if (first >= from && first + kRun <= to) {
      *reinterpret_cast<uint4*>(chunk) = {words[0], words[1], words[2], words[3]};
      continue;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const int token = i / 4 * 2 + i / 2 % 2 * 8 + i % 2;  // that stands at byte i
      if (first + token >= from && first + token < to) chunk[i] = static_cast<char>(words[i / 4] >> i % 4 * 8);
    }
  }
}

// Blocks of threads for K and V of the pages first, then for the queries, a head of a token a warp.
template <int D>
__global__ void __launch_bounds__(kThreads) rope_append_e4m3_kernel(const RopeAppendArgs p, int kv_blocks) {
  ptx::start_dependents();
  ptx::wait_for_previous();
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
