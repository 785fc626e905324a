// What a layer adds to the residual stream, where that is normed first: eight elements a thread, as one token waits for each of them.
#include "kernels/elementwise/rows.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kMostThreads = static_cast<int>(kMostAddNormedColumns) / 8;

__global__ void __launch_bounds__(kMostThreads) add_normed_kernel(const AddNormedArgs p) {
  ptx::start_dependents();
  __shared__ float parts[kMostThreads / 32];
  const int vectors = static_cast<int>(p.cols / 8), at = static_cast<int>(threadIdx.x);
  const bool takes = at < vectors;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * vectors + at;
  float4 weight[2];  // read before x is there
  if (takes) weight[0] = reinterpret_cast<const float4*>(p.weight)[2 * at], weight[1] = reinterpret_cast<const float4*>(p.weight)[2 * at + 1];
  ptx::wait_for_previous();

  auto* sum = reinterpret_cast<float4*>(p.sum) + 2 * first;
  float x[8] = {}, squares = 0;
  float4 before[2];
  if (takes) {
    unpack_bf16x8(static_cast<const uint4*>(p.x)[first], x);
    before[0] = sum[0], before[1] = sum[1];
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) squares = fmaf(x[i], x[i], squares);
  squares = block_reduce(squares, parts, [](float a, float b) { return a + b; });
  if (!takes) return;
  const float scale = rsqrtf(squares / static_cast<float>(p.cols) + p.epsilon);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float* y = x + 4 * half;
    const float4 a = before[half], w = weight[half];
    sum[half] = {fmaf(y[0] * scale, w.x, a.x), fmaf(y[1] * scale, w.y, a.y), fmaf(y[2] * scale, w.z, a.z), fmaf(y[3] * scale, w.w, a.w)};
  }
}

}  // namespace

Status launch_add_normed(const AddNormedArgs& args, Stream stream) {
  if (args.rows <= 0 || args.rows > kLargestGrid || args.cols <= 0 || args.cols % 8 != 0 || args.cols > kMostAddNormedColumns) return kInvalidShape;
  if (!aligned(args.sum) || !aligned(args.x) || !aligned(args.weight)) return kInvalidAlignment;
  return launch_dependent(add_normed_kernel, dim3(static_cast<unsigned>(args.rows)), static_cast<unsigned>(ceil_div(args.cols / 8, 32) * 32), 0, stream, args);
}

}  // namespace longview::kernels
