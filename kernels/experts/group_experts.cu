// The rows of a chunk in the order of their experts, and back. A block an expert looks through all choices, in their order: the same
// choices give the same rows, and nothing is counted by atomic additions.
#include "kernels/api/experts.h"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 512, kHeld = 8;  // choices that a thread looks at together

// The sum over the block, in every thread. `parts` has room for a value of each warp.
__device__ inline int block_sum(int value, int* parts) {
  value = __reduce_add_sync(0xffffffffu, value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < kThreads / 32; ++i) sum += parts[i];
  return sum;
}

// The sum over the threads before this one, and over all.
__device__ inline int2 sum_before(int value, int* parts) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int up_to = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, up_to, step);
    if (lane >= step) up_to += other;
  }
  __syncthreads();
  if (lane == 31) parts[warp] = up_to;
  __syncthreads();
  int before = 0, all = 0;
  for (int i = 0; i < kThreads / 32; ++i) {
    if (i < warp) before += parts[i];
    all += parts[i];
  }
  return {before + up_to - value, all};
}

// Choices at, at + 1, ... that are this expert's, as bits.
__device__ inline uint32_t matches(const GroupExpertsArgs& p, int64_t at, int expert) {
  const int64_t count = p.tokens * p.used;
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if (at + i < count && p.chosen[at + i] == expert) bits |= 1u << i;
  return bits;
}

__global__ void __launch_bounds__(kThreads) count_experts_kernel(const GroupExpertsArgs p) {
  __shared__ int parts[kThreads / 32];
  int count = 0;
  for (int64_t at = threadIdx.x * kHeld; at < p.tokens * p.used; at += kThreads * kHeld) count += __popc(matches(p, at, static_cast<int>(blockIdx.x)));
  count = block_sum(count, parts);
  if (threadIdx.x == 0) p.counts[blockIdx.x] = count;
}

__global__ void __launch_bounds__(kThreads) group_experts_kernel(const GroupExpertsArgs p) {
  __shared__ int parts[kThreads / 32];
  const int expert = static_cast<int>(blockIdx.x), experts = static_cast<int>(p.experts);
  const auto tiles_of = [&](int e) { return static_cast<int>(ceil_div(p.counts[e], kGroupRows)); };
  int before = 0;
  for (int e = threadIdx.x; e < expert; e += kThreads) before += tiles_of(e);
  const int first_tile = block_sum(before, parts), tiles = tiles_of(expert);
  const int64_t first = first_tile * kGroupRows;
  for (int i = threadIdx.x; i < tiles; i += kThreads) p.groups[first_tile + i] = expert;
  for (int64_t row = p.counts[expert] + threadIdx.x; row < tiles * kGroupRows; row += kThreads) p.row_tokens[first + row] = -1;
  if (expert + 1 == experts)
    for (int64_t i = first_tile + tiles + threadIdx.x; i < grouped_rows(p.tokens, p.experts, p.used) / kGroupRows; i += kThreads) p.groups[i] = -1;

  int64_t row = first;
  for (int64_t base = 0; base < p.tokens * p.used; base += kThreads * kHeld) {
    const int64_t at = base + threadIdx.x * kHeld;
    const uint32_t mine = matches(p, at, expert);
    const int2 sum = sum_before(__popc(mine), parts);
    int64_t to = row + sum.x;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (!(mine >> i & 1)) continue;
      p.places[at + i] = static_cast<int32_t>(to);
      p.row_tokens[to++] = static_cast<int32_t>((at + i) / p.used);
    }
    row += sum.y;
  }
}

__global__ void __launch_bounds__(128) gather_rows_kernel(const GatherRowsArgs p) {
  const int64_t row = blockIdx.x;
  if (p.groups[row / kGroupRows] < 0) return;
  const int64_t token = p.row_tokens[row], vectors = p.cols / 8;
  const auto* from = static_cast<const uint4*>(p.x) + token * vectors;
  auto* to = static_cast<uint4*>(p.out) + row * vectors;
  for (int64_t i = threadIdx.x; i < vectors; i += 128) to[i] = token < 0 ? uint4{} : from[i];
}

__global__ void __launch_bounds__(128) combine_experts_kernel(const CombineExpertsArgs p) {
  const int64_t token = blockIdx.x, vectors = p.cols / 8;
  for (int64_t i = threadIdx.x; i < vectors; i += 128) {
    auto* to = reinterpret_cast<float4*>(p.sum + token * p.cols + i * 8);
    float4 low = to[0], high = to[1];
    for (int64_t s = 0; s < p.used; ++s) {
      const float share = p.shares[token * p.used + s];
      float v[8];
      unpack_bf16x8(static_cast<const uint4*>(p.rows)[p.places[token * p.used + s] * vectors + i], v);
      if (p.biases) {
        const float* bias = p.biases + p.chosen[token * p.used + s] * p.cols + i * 8;
#pragma unroll
        for (int j = 0; j < 8; ++j) v[j] += bias[j];
      }
      low = {fmaf(share, v[0], low.x), fmaf(share, v[1], low.y), fmaf(share, v[2], low.z), fmaf(share, v[3], low.w)};
      high = {fmaf(share, v[4], high.x), fmaf(share, v[5], high.y), fmaf(share, v[6], high.z), fmaf(share, v[7], high.w)};
    }
    to[0] = low;
    to[1] = high;
  }
}

}  // namespace

Status launch_group_experts(const GroupExpertsArgs& args, Stream stream) {
  if (args.tokens <= 0 || !experts_fit(args.experts, args.used)) return kInvalidShape;
  if (grouped_rows(args.tokens, args.experts, args.used) > kLargestGrid) return kInvalidShape;
  const auto blocks = static_cast<unsigned>(args.experts);
  count_experts_kernel<<<blocks, kThreads, 0, cuda(stream)>>>(args);
  if (const Status error = launched()) return error;
  group_experts_kernel<<<blocks, kThreads, 0, cuda(stream)>>>(args);
  return launched();
}

Status launch_gather_rows(const GatherRowsArgs& args, Stream stream) {
  if (args.rows <= 0 || args.rows > kLargestGrid || args.cols <= 0 || args.cols % 8 != 0) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.out)) return kInvalidAlignment;
  gather_rows_kernel<<<static_cast<unsigned>(args.rows), 128, 0, cuda(stream)>>>(args);
  return launched();
}

Status launch_combine_experts(const CombineExpertsArgs& args, Stream stream) {
  if (args.tokens <= 0 || args.tokens > kLargestGrid || args.used <= 0 || args.cols <= 0 || args.cols % 8 != 0) return kInvalidShape;
  if (!aligned(args.rows) || !aligned(args.sum)) return kInvalidAlignment;
  combine_experts_kernel<<<static_cast<unsigned>(args.tokens), 128, 0, cuda(stream)>>>(args);
  return launched();
}

}  // namespace longview::kernels
