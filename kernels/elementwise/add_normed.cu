// What a layer adds to the residual stream, where that is normed first.
#include "kernels/elementwise/rows.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

__global__ void __launch_bounds__(kMostRowThreads) add_normed_kernel(const AddNormedArgs p) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  __shared__ float parts[kMostRowThreads / 32];
  const int vectors = static_cast<int>(p.cols / 8);
  const auto* x = static_cast<const uint4*>(p.x) + static_cast<int64_t>(blockIdx.x) * vectors;
  float v[kHeldVectors][8] = {};
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i)
    if (const int at = static_cast<int>(threadIdx.x + i * blockDim.x); at < vectors) unpack_bf16x8(x[at], v[i]);
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) squares = fmaf(v[i][j], v[i][j], squares);
  squares = block_reduce(squares, parts, [](float a, float b) { return a + b; });
  const float scale = rsqrtf(squares / static_cast<float>(p.cols) + p.epsilon);
  auto* sum = reinterpret_cast<float4*>(p.sum) + static_cast<int64_t>(blockIdx.x) * vectors * 2;
  const auto* weight = reinterpret_cast<const float4*>(p.weight);
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    const int at = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (at >= vectors) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 w = weight[2 * at + half];
      const float* y = v[i] + 4 * half;
      float4 s = sum[2 * at + half];
      s.x += y[0] * scale * w.x, s.y += y[1] * scale * w.y, s.z += y[2] * scale * w.z, s.w += y[3] * scale * w.w;
      sum[2 * at + half] = s;
    }
  }
}

}  // namespace

Status launch_add_normed(const AddNormedArgs& args, Stream stream) {
  if (args.rows <= 0 || args.rows > kLargestGrid || args.cols <= 0 || args.cols % 8 != 0 || args.cols > kMostE4M3Columns) return kInvalidShape;
  if (!aligned(args.sum) || !aligned(args.x) || !aligned(args.weight)) return kInvalidAlignment;
  return launch_dependent(add_normed_kernel, dim3(static_cast<unsigned>(args.rows)), row_threads(args.cols), 0, stream, args);
}

}  // namespace longview::kernels
