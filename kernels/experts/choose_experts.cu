// Which experts each token goes through: a warp a token, whose lanes hold its scores.
#include <cmath>

#include "kernels/api/experts.h"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 4;

// Larger ones of larger scores; a NaN's is behind those of all numbers, and none is 0.
__device__ inline uint32_t key_of(float score) {
  const uint32_t bits = __float_as_uint(score);
  return isnan(score) ? 1 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// A lane holds every 32nd of up to 32 * kHeld scores.
template <int kHeld>
__global__ void __launch_bounds__(kWarps * 32) choose_experts_kernel(const ChooseExpertsArgs p) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (token >= p.tokens) return;
  const int lane = threadIdx.x % 32, experts = static_cast<int>(p.experts), used = static_cast<int>(p.used);
  const float* scores = p.scores + token * p.experts;
  float score[kHeld];
  uint32_t key[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int expert = lane + 32 * i;
    score[i] = expert < experts ? scores[expert] : -INFINITY;
    key[i] = expert < experts ? key_of(score[i]) : 0;
  }
  float largest = 0, mine = 0;  // this lane's choice, lane 0 the first
  int chosen = 0;
  for (int s = 0; s < used; ++s) {
    uint32_t best = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) best = max(best, key[i]);
    best = __reduce_max_sync(0xffffffffu, best);
    unsigned expert = kMostExperts;  // the first that has it
#pragma unroll
    for (int i = kHeld - 1; i >= 0; --i)
      if (key[i] == best) expert = static_cast<unsigned>(lane + 32 * i);
    expert = __reduce_min_sync(0xffffffffu, expert);
    float value = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (static_cast<unsigned>(lane + 32 * i) == expert) value = score[i], key[i] = 0;
    value = __shfl_sync(0xffffffffu, value, static_cast<int>(expert % 32));
    if (s == 0) largest = value;
    if (lane == s) chosen = static_cast<int>(expert), mine = value;
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
  if (args.tokens <= 0 || !experts_fit(args.experts, args.used)) return kInvalidShape;
  const int64_t blocks = ceil_div(args.tokens, kWarps);
  if (blocks > kLargestGrid) return kInvalidShape;
  const auto kernel = args.experts <= 128 ? choose_experts_kernel<4> : choose_experts_kernel<kMostExperts / 32>;
  return launch_dependent(kernel, dim3(static_cast<unsigned>(blocks)), kWarps * 32, 0, stream, args);
}

}  // namespace longview::kernels
