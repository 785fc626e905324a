// The largest of many floats. Each block takes a part; the one that ends last joins what the others found.
#include "kernels/api/elementwise.h"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256, kBlocks = 128;
static_assert(kLargestWorkspaceBytes == (kBlocks + 1) * sizeof(uint64_t));

// Orders values, of equals the first before the others, and NaN behind all: larger keys are better.
__device__ inline uint64_t key_of(float value, uint32_t index) {
  const uint32_t bits = __float_as_uint(value == 0 ? 0.0f : value);  // -0 equals 0
  const uint32_t order = isnan(value) ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | ~index;
}

// In thread 0.
__device__ inline uint64_t block_largest(uint64_t key) {
  __shared__ uint64_t warps[kThreads / 32];
  const auto warp_largest = [&] {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) key = max(key, static_cast<uint64_t>(__shfl_xor_sync(0xffffffffu, key, step)));
  };
  warp_largest();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = key;
  __syncthreads();
  key = threadIdx.x < kThreads / 32 ? warps[threadIdx.x] : 0;
  if (threadIdx.x < 32) warp_largest();
  return key;
}

__global__ void __launch_bounds__(kThreads) largest_kernel(const LargestArgs p) {
  ptx::wait_for_previous();
  auto* keys = static_cast<uint64_t*>(p.workspace) + 1;  // behind the counter
  uint64_t best = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.count; i += kBlocks * kThreads) best = max(best, key_of(p.x[i], static_cast<uint32_t>(i)));
  best = block_largest(best);
  __shared__ bool last;
  if (threadIdx.x == 0) {
    keys[blockIdx.x] = best;
    __threadfence();
    last = atomicInc(static_cast<uint32_t*>(p.workspace), kBlocks - 1) == kBlocks - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  best = block_largest(threadIdx.x < kBlocks ? __ldcg(reinterpret_cast<const unsigned long long*>(keys) + threadIdx.x) : 0);
  if (threadIdx.x == 0) *p.index = static_cast<int32_t>(~static_cast<uint32_t>(best));
}

}  // namespace

Status launch_largest(const LargestArgs& args, Stream stream) {
  if (args.count <= 0 || args.count > kLargestGrid) return kInvalidShape;
  if (!aligned(args.workspace)) return kInvalidAlignment;
  return launch_dependent(largest_kernel, kBlocks, kThreads, 0, stream, args);
}

}  // namespace longview::kernels
