// Rotary positions, fused with writing K and V into q8 pages: a warp takes one head of a token, so that the largest magnitude of each
// block of 32 dimensions is at hand. Codes and scales are those of native/cpu/q8.cpp, made from K as it was rotated in float32.
#include <cmath>

#include "kernels/cache/rope_append.cuh"
#include "kernels/cache/rotate_head.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr float kMostCode = 127.0f;

// Codes and scales of a head's K or V to its row of the block.
template <int D, int kDims = D / 32>
__device__ inline void write_codes(char* block, int token, const float (&x)[kDims]) {
  constexpr int kLanes = static_cast<int>(kQ8Block) / kDims;  // of a block of 32 dimensions
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kDims; ++i) largest = fmaxf(largest, isfinite(x[i]) ? fabsf(x[i]) : INFINITY);
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  const bool finite = largest < INFINITY;
  uint16_t bits = finite ? __bfloat16_as_ushort(__float2bfloat16(largest / kMostCode)) : 0x7fc0;
  // Rounded up, the scale of values at the very end of float32's range would lead beyond it.
  if (finite && !isfinite(kMostCode * __uint_as_float(static_cast<uint32_t>(bits) << 16))) --bits;
  const float scale = __uint_as_float(static_cast<uint32_t>(bits) << 16);
  Run<int8_t, kDims> codes{};
  if (finite && bits != 0)
#pragma unroll
    for (int i = 0; i < kDims; ++i) codes.x[i] = static_cast<int8_t>(fminf(fmaxf(rintf(x[i] / scale), -kMostCode), kMostCode));
  *reinterpret_cast<Run<int8_t, kDims>*>(block + token * D + lane * kDims) = codes;
  if (lane % kLanes == 0) reinterpret_cast<uint16_t*>(block + kPageTokens * D)[token * (D / kQ8Block) + lane / kLanes] = bits;
}

// A head of a token a warp: those of q, then of k, then of v.
template <int D>
__global__ void __launch_bounds__(kThreads) rope_append_q8_kernel(const RopeAppendArgs p) {
  constexpr int kDims = D / 32;
  ptx::wait_for_previous();
  ptx::start_dependents();  // not before: beside the product attention over 8-bit pages takes longer (test/bench/RESULTS.md, Decode)
  const int heads = static_cast<int>(p.heads), kv_heads = static_cast<int>(p.kv.kv_heads), own = static_cast<int>(p.head_dim), all = heads + 2 * kv_heads;
  const int item = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32, t = item / all, at = item % all;
  if (t >= p.tokens) return;
  if (at < heads) return rotate_query<D>(p, t, at);
  const bool is_value = at >= heads + kv_heads;
  const int head = at - heads - (is_value ? kv_heads : 0);
  const int64_t offset = (static_cast<int64_t>(t) * kv_heads + head) * own;
  float x[kDims];
  read_kept<D>(p, static_cast<const __nv_bfloat16*>(p.k) + offset, static_cast<const __nv_bfloat16*>(p.v) + offset, t, is_value, x);
  const int64_t position = p.position ? *p.position : p.first_position + t;
  char* block = static_cast<char*>(p.kv.pages[position / kPageTokens]) + ((p.kv.layer * kv_heads + head) * 2 + is_value) * page_block_bytes(PageFormat::kQ8, D);
  write_codes<D>(block, static_cast<int>(position % kPageTokens), x);
}

}  // namespace

Status launch_rope_append_q8(const RopeAppendArgs& args, Stream stream) {
  const int64_t warps = args.tokens * (args.heads + 2 * args.kv.kv_heads);
  if (warps > kLargestGrid - kWarps) return kInvalidShape;
  const dim3 grid(static_cast<unsigned>(ceil_div(warps, kWarps)));
  const int64_t d = args.kv.head_dim;
  return launch_dependent(d == 64 ? rope_append_q8_kernel<64> : d == 128 ? rope_append_q8_kernel<128> : rope_append_q8_kernel<256>, grid, kThreads, 0, stream, args);
}

}  // namespace longview::kernels
