// Which experts each token goes through: a warp a token, whose lanes hold its scores.
#include <cmath>

#include "kernels/api/experts.h"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 4, kHeld = kMostExperts / 32;

// Larger keys come first: of larger scores, and of equal ones earlier experts. A NaN's is behind those of all numbers, and no key is 0.
__device__ inline uint64_t key_of(float score, int expert) {
  const uint32_t bits = __float_as_uint(score);
  const uint32_t ordered = isnan(score) ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - static_cast<uint32_t>(expert));
}

__device__ inline uint64_t warp_largest(uint64_t key) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) key = max(key, __shfl_xor_sync(0xffffffffu, key, step));
  return key;
}

__global__ void __launch_bounds__(kWarps * 32) choose_experts_kernel(const ChooseExpertsArgs p) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (token >= p.tokens) return;
  const int lane = threadIdx.x % 32, experts = static_cast<int>(p.experts), used = static_cast<int>(p.used);
  const float* scores = p.scores + token * p.experts;
  float score[kHeld];
  uint64_t key[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int expert = lane + 32 * i;
    score[i] = expert < experts ? scores[expert] : -INFINITY;
    key[i] = expert < experts ? key_of(score[i], expert) : 0;
  }
  float largest = 0, mine = 0;  // this lane's choice, lane 0 the first
  int chosen = 0;
  for (int s = 0; s < used; ++s) {
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) best = max(best, key[i]);
    best = warp_largest(best);
    const int expert = static_cast<int>(0xffffffffu - static_cast<uint32_t>(best));
    float value = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (key[i] == best) value = score[i], key[i] = 0;
    value = __shfl_sync(0xffffffffu, value, expert % 32);
    if (s == 0) largest = value;
    if (lane == s) chosen = expert, mine = value;
  }
  const float weight = lane < used ? expf(mine - largest) : 0.0f;
  float sum = weight;
  if (!p.normalised) {
    sum = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (lane + 32 * i < experts) sum += expf(score[i] - largest);
  }
  sum = warp_sum(sum);
  if (lane >= used) return;
  p.chosen[token * used + lane] = chosen;
  p.shares[token * used + lane] = weight / sum;
}

}  // namespace

Status launch_choose_experts(const ChooseExpertsArgs& args, Stream stream) {
  if (args.tokens <= 0 || args.experts <= 0 || args.experts > kMostExperts || args.used <= 0 || args.used > std::min(args.experts, kMostExpertsUsed)) return kInvalidShape;
  const int64_t blocks = ceil_div(args.tokens, kWarps);
  if (blocks > kLargestGrid) return kInvalidShape;
  return launch_dependent(choose_experts_kernel, dim3(static_cast<unsigned>(blocks)), kWarps * 32, 0, stream, args);
}

}  // namespace longview::kernels
