// Rotary positions, fused with writing K and V into q4 pages: a warp takes one head of a token, so that its transform (hadamard.cuh) and the
// largest value of each block of 32 dimensions are at hand. Of several tokens, a kernel before makes the references of the pages that begin.
#include <cmath>

#include "kernels/cache/hadamard.cuh"
#include "kernels/cache/q4.cuh"
#include "kernels/cache/rope_append.cuh"
#include "kernels/cache/rotate_head.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr float kLeastCode = -8.0f, kMostCode = 7.0f;

// A head's K block in a page, or its V block.
template <int D>
__device__ inline char* block_of(const RopeAppendArgs& p, int64_t page, int head, bool is_value) {
  return static_cast<char*>(p.kv.pages[page]) + ((p.kv.layer * p.kv.kv_heads + head) * 2 + is_value) * page_block_bytes(PageFormat::kQ4, D);
}
// A lane's dimensions of a block's reference.
template <int D>
__device__ inline Run<__nv_bfloat16, D / 32>& reference_of(char* block) {
  return reinterpret_cast<Run<__nv_bfloat16, D / 32>*>(block + q4_reference(D))[threadIdx.x % 32];
}

// Codes and scales of a head's K, less its reference, or V to its row of the block. Of a largest and a smallest value that are equally far from 0 the
// largest gives the scale.
template <int D, int kDims = D / 32>
__device__ inline void write_codes(char* block, int token, const float (&x)[kDims]) {
  constexpr int kLanes = static_cast<int>(kQ8Block) / kDims;  // of a block of 32 dimensions
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float most = 0, least = 0;
#pragma unroll
  for (int i = 0; i < kDims; ++i) {
    most = fmaxf(most, isfinite(x[i]) ? x[i] : INFINITY);
    least = fminf(least, x[i]);
  }
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    least = fminf(least, __shfl_xor_sync(0xffffffffu, least, step));
  }
  const bool finite = most < INFINITY;
  uint16_t bits = finite ? __bfloat16_as_ushort(__float2bfloat16((most >= -least ? most : least) / kLeastCode)) : 0x7fc0;
  if ((bits & 0x7fff) == 0) bits = 0;
  // Rounded up, the scale of values at the very end of float32's range would lead beyond it.
  if (finite && !isfinite(kLeastCode * __uint_as_float(static_cast<uint32_t>(bits) << 16))) --bits;
  const float scale = __uint_as_float(static_cast<uint32_t>(bits) << 16);
  Run<uint8_t, kDims / 2> codes;
#pragma unroll
  for (int i = 0; i < kDims / 2; ++i) {
    int code[2] = {kQ4Zero, kQ4Zero};
#pragma unroll
    for (int j = 0; j < 2; ++j)
      if (finite && bits != 0) code[j] += static_cast<int>(fminf(fmaxf(rintf(x[2 * i + j] / scale), kLeastCode), kMostCode));
    codes.x[i] = static_cast<uint8_t>(code[0] | code[1] << 4);
  }
  *reinterpret_cast<Run<uint8_t, kDims / 2>*>(block + (token * D + lane * kDims) / 2) = codes;
  if (lane % kLanes == 0) reinterpret_cast<uint16_t*>(block + kPageTokens * D / 2)[token * (D / kQ8Block) + lane / kLanes] = bits;
}

// A page (first_page + blockIdx.x, the first is the first that begins) and KV head (blockIdx.y) a block: the mean of its keys, or of those of the page
// before, the tokens shared out to warps. Keys that are no numbers, or whose sum might be none, do not count: every reference is finite.
template <int D>
__global__ void __launch_bounds__(kThreads) q4_references_kernel(const RopeAppendArgs p, int64_t first_page) {
  constexpr int kDims = D / 32;
  __shared__ float sums[kWarps][D];
  __shared__ int counts[kWarps];
  ptx::wait_for_previous();
  ptx::start_dependents();
  const int warp = static_cast<int>(threadIdx.x) / 32, first = static_cast<int>(threadIdx.x) % 32 * kDims, head = static_cast<int>(blockIdx.y);
  const int64_t page = first_page + blockIdx.x, own = p.head_dim, stride = p.kv.kv_heads * own, end = p.first_position + p.tokens;
  const int64_t from = page > 0 && end - page * kPageTokens < kLeastReferenceKeys ? page - 1 : page;
  Run<__nv_bfloat16, kDims>& reference = reference_of<D>(block_of<D>(p, page, head, false));
  if (warp == 1) reference_of<D>(block_of<D>(p, page, head, true)) = {};
  if (from < first_page) {  // it holds one since it began
    if (warp == 0) reference = reference_of<D>(block_of<D>(p, from, head, false));
    return;
  }
  const int64_t t0 = from * kPageTokens - p.first_position;  // of the page's first token among those that are written
  const int count = static_cast<int>(min(p.tokens - t0, kPageTokens));
  const auto *keys = static_cast<const __nv_bfloat16*>(p.k) + t0 * stride + head * own, *values = static_cast<const __nv_bfloat16*>(p.v) + t0 * stride + head * own;
  float sum[kDims] = {};
  int counted = 0;
#pragma unroll 2
  for (int token = warp; token < count; token += kWarps) {
    float x[kDims];
    read_kept<D>(p, keys + token * stride, values + token * stride, t0 + token, false, x);
    if (is_faulty(x)) continue;
    ++counted;
#pragma unroll
    for (int i = 0; i < kDims; ++i) sum[i] += x[i];
  }
#pragma unroll
  for (int i = 0; i < kDims; ++i) sums[warp][first + i] = sum[i];
  if (first == 0) counts[warp] = counted;
  __syncthreads();
  if (warp != 0) return;
  for (int other = 1; other < kWarps; ++other) {
    counted += counts[other];
#pragma unroll
    for (int i = 0; i < kDims; ++i) sum[i] += sums[other][first + i];
  }
  const float share = counted > 0 ? 1.0f / static_cast<float>(counted) : 0.0f;
#pragma unroll
  for (int i = 0; i < kDims; ++i) sum[i] *= share;
  hadamard(sum);
  Run<__nv_bfloat16, kDims> mean;
#pragma unroll
  for (int i = 0; i < kDims; ++i) mean.x[i] = __float2bfloat16(sum[i]);
  reference = mean;
}

// A head of a token a warp: those of q, then of k, then of v.
template <int D>
__global__ void __launch_bounds__(kThreads) rope_append_q4_kernel(const RopeAppendArgs p) {
  constexpr int kDims = D / 32;
  const int heads = static_cast<int>(p.heads), kv_heads = static_cast<int>(p.kv.kv_heads), own = static_cast<int>(p.head_dim), all = heads + 2 * kv_heads;
  const int item = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32, t = item / all, at = item % all;
  const bool single = p.tokens == 1, is_query = at < heads, is_value = at >= heads + kv_heads, writes = t < p.tokens && !is_query;
  const int head = at - heads - (is_value ? kv_heads : 0);
  char* block = nullptr;
  int token = 0;
  Run<__nv_bfloat16, kDims> reference{};  // of values: zeros
  const auto find = [&] {
    const int64_t position = p.position ? *p.position : p.first_position + t, page = position / kPageTokens;
    token = static_cast<int>(position % kPageTokens);
    block = block_of<D>(p, page, head, is_value);
    const bool begins = single && token == 0;  // the page: its reference is that of the page before
    if (!is_value && (!begins || page > 0)) reference = reference_of<D>(begins ? block_of<D>(p, page - 1, head, false) : block);
  };
  if (single && writes) find();  // it lies there since earlier tokens
  ptx::wait_for_previous();
  ptx::start_dependents();  // not before: beside the product attention over codes takes longer (test/bench/RESULTS.md, Decode)
  if (t >= p.tokens) return;
  if (is_query) return rotate_query<D, true>(p, t, at);
  if (!single) find();
  const int64_t offset = (static_cast<int64_t>(t) * kv_heads + head) * own;
  float x[kDims];
  read_kept<D>(p, static_cast<const __nv_bfloat16*>(p.k) + offset, static_cast<const __nv_bfloat16*>(p.v) + offset, t, is_value, x);
  if (!is_value) hadamard(x);
#pragma unroll
  for (int i = 0; i < kDims; ++i) x[i] -= __bfloat162float(reference.x[i]);
  if (single && token == 0) reference_of<D>(block) = reference;
  write_codes<D>(block, token, x);
}

}  // namespace

Status launch_rope_append_q4(const RopeAppendArgs& args, Stream stream) {
  const int64_t warps = args.tokens * (args.heads + 2 * args.kv.kv_heads), d = args.kv.head_dim;
  if (warps > kLargestGrid - kWarps) return kInvalidShape;
  const int64_t first_page = ceil_div(args.first_position, kPageTokens), begun = ceil_div(args.first_position + args.tokens, kPageTokens) - first_page;
  if (args.tokens > 1 && begun > 0) {
    const auto kernel = d == 64 ? q4_references_kernel<64> : d == 128 ? q4_references_kernel<128> : q4_references_kernel<256>;
    const dim3 grid(static_cast<unsigned>(begun), static_cast<unsigned>(args.kv.kv_heads));
    if (const Status status = launch_dependent(kernel, grid, kThreads, 0, stream, args, first_page)) return status;
  }
  const dim3 grid(static_cast<unsigned>(ceil_div(warps, kWarps)));
  return launch_dependent(d == 64 ? rope_append_q4_kernel<64> : d == 128 ? rope_append_q4_kernel<128> : rope_append_q4_kernel<256>, grid, kThreads, 0, stream, args);
}

}  // namespace longview::kernels
