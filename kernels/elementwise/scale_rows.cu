// Rows that count by a gate of their own: what the expert that all tokens share gives.
#include "kernels/elementwise/rows.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256;

// A row a block: its product with the weight, then what that scales.
__global__ void __launch_bounds__(kThreads) scale_rows_kernel(const ScaleRowsArgs p) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  __shared__ float sums[kThreads / 32];
  const int vectors = static_cast<int>(p.cols / 8);
  const auto* input = static_cast<const uint4*>(p.input) + static_cast<int64_t>(blockIdx.x) * (p.k / 8);
  const auto* weight = reinterpret_cast<const float4*>(p.weight);
  float sum = 0;
  for (int at = static_cast<int>(threadIdx.x); at < p.k / 8; at += kThreads) {
    float v[8];
    unpack_bf16x8(input[at], v);
    const float4 a = weight[2 * at], b = weight[2 * at + 1];
    sum = fmaf(v[0], a.x, fmaf(v[1], a.y, fmaf(v[2], a.z, fmaf(v[3], a.w, sum))));
    sum = fmaf(v[4], b.x, fmaf(v[5], b.y, fmaf(v[6], b.z, fmaf(v[7], b.w, sum))));
  }
  sum = block_reduce(sum, sums, [](float a, float b) { return a + b; });
  const float scale = 1.0f / (1.0f + __expf(-sum));
  auto* x = static_cast<uint4*>(p.x) + static_cast<int64_t>(blockIdx.x) * vectors;
  for (int at = static_cast<int>(threadIdx.x); at < vectors; at += kThreads) {
    float v[8];
    unpack_bf16x8(x[at], v);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] *= scale;
    x[at] = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
  }
}

}  // namespace

Status launch_scale_rows(const ScaleRowsArgs& args, Stream stream) {
  if (args.tokens <= 0 || args.tokens > kLargestGrid || args.cols <= 0 || args.cols % 8 != 0 || args.k <= 0 || args.k % 8 != 0 || args.cols > kLargestGrid || args.k > kLargestGrid) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.input) || !aligned(args.weight)) return kInvalidAlignment;
  return launch_dependent(scale_rows_kernel, dim3(static_cast<unsigned>(args.tokens)), kThreads, 0, stream, args);
}

}  // namespace longview::kernels
