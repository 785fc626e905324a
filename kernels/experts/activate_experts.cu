// The halves of rows in the order of their experts, biased and activated.
#include "kernels/api/experts.h"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/experts/expert_swiglu.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) activate_experts_kernel(const ActivateExpertsArgs p) {
  const int64_t row = blockIdx.x, vectors = p.n / 8;
  const int expert = p.groups[row / kGroupRows];
  if (expert < 0) return;
  auto* gate = static_cast<uint4*>(p.gate) + row * vectors;
  const auto* up = static_cast<const uint4*>(p.up) + row * vectors;
  for (int64_t i = threadIdx.x; i < vectors; i += kThreads) {
    float g[8], u[8];
    unpack_bf16x8(gate[i], g);
    unpack_bf16x8(up[i], u);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int64_t at = expert * p.n + i * 8 + j;
      g[j] = clamped_swiglu(g[j] + p.gate_biases[at], u[j] + p.up_biases[at]);
    }
    gate[i] = {pack_bf16(g[0], g[1]), pack_bf16(g[2], g[3]), pack_bf16(g[4], g[5]), pack_bf16(g[6], g[7])};
  }
}

}  // namespace

Status launch_activate_experts(const ActivateExpertsArgs& args, Stream stream) {
  if (args.rows <= 0 || args.rows > kLargestGrid || args.n <= 0 || args.n % 8 != 0) return kInvalidShape;
  if (!aligned(args.gate) || !aligned(args.up)) return kInvalidAlignment;
  activate_experts_kernel<<<static_cast<unsigned>(args.rows), kThreads, 0, cuda(stream)>>>(args);
  return launched();
}

}  // namespace longview::kernels
