// Results of chunks, normed by head and gated, where they lie. A head is D / 8 lanes'.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256;

template <int D>
__global__ void __launch_bounds__(kThreads) delta_norm_kernel(const DeltaPlan p) {
  constexpr int kLanes = D / 8;
  ptx::start_dependents();
  const DeltaNetArgs& a = p.args;
  const int64_t vectors = a.tokens * a.value_heads * kLanes, at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, read = min(at, vectors - 1);
  // Gates and weights are there since before the convolution.
  float o[8], z[8];
  unpack_bf16x8(static_cast<const uint4*>(a.z)[read], z);
  const auto* weights = reinterpret_cast<const float4*>(a.norm) + threadIdx.x % kLanes * 2;
  const float4 low = weights[0], high = weights[1];
  const float norm[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  ptx::wait_for_previous();
  unpack_bf16x8(static_cast<const uint4*>(a.out)[read], o);
  float squares = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) squares = fmaf(o[i], o[i], squares);
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
  if (at >= vectors) return;
  const float scale = rsqrtf(squares / D + a.epsilon);
#pragma unroll
  for (int i = 0; i < 8; ++i) o[i] = o[i] * scale * norm[i] * silu(z[i]);
  static_cast<uint4*>(a.out)[at] = {pack_bf16(o[0], o[1]), pack_bf16(o[2], o[3]), pack_bf16(o[4], o[5]), pack_bf16(o[6], o[7])};
}

template <int D>
Status launch(const DeltaPlan& p, Stream stream) {
  const int64_t blocks = ceil_div(p.args.tokens * p.args.value_heads * (D / 8), kThreads);
  return launch_dependent(delta_norm_kernel<D>, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, p);
}

}  // namespace

Status launch_delta_norm(const DeltaPlan& plan, Stream stream) {
  return plan.args.head_dim == 32 ? launch<32>(plan, stream) : plan.args.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
