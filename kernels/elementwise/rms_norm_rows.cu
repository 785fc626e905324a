// RMSNorm of long rows, to bf16 or to e4m3.
#include "kernels/elementwise/rows.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/prefetch.cuh"

namespace longview::kernels {
namespace {

template <bool kCoded>
__global__ void __launch_bounds__(kMostRowThreads) rms_norm_rows_kernel(const RmsNormArgs p) {
  ptx::start_dependents();
  __shared__ float sums[kMostRowThreads / 32], maxima[kMostRowThreads / 32];
  const int vectors = static_cast<int>(p.cols / 8);
  const auto* x = static_cast<const float4*>(p.x) + static_cast<int64_t>(blockIdx.x) * vectors * 2;
  float v[kHeldVectors][8];
  float sum = 0;
  const auto* weight = reinterpret_cast<const float4*>(p.weight);
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    const int at = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (at < vectors) ptx::prefetch(weight + 2 * at);
  }
  ptx::wait_for_previous();
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    const int at = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (at < vectors) {
      const float4 a = x[2 * at], b = x[2 * at + 1];
      v[i][0] = a.x, v[i][1] = a.y, v[i][2] = a.z, v[i][3] = a.w;
      v[i][4] = b.x, v[i][5] = b.y, v[i][6] = b.z, v[i][7] = b.w;
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j) v[i][j] = 0;
    }
  }
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) sum = fmaf(v[i][j], v[i][j], sum);
  sum = block_reduce(sum, sums, [](float a, float b) { return a + b; });
  const float scale = rsqrtf(sum / static_cast<float>(p.cols) + p.epsilon);
  uint4 held[kHeldVectors];
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    const int at = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (at >= vectors) continue;
    const float4 a = weight[2 * at], b = weight[2 * at + 1];
    held[i] = {pack_bf16(v[i][0] * scale * a.x, v[i][1] * scale * a.y), pack_bf16(v[i][2] * scale * a.z, v[i][3] * scale * a.w),
               pack_bf16(v[i][4] * scale * b.x, v[i][5] * scale * b.y), pack_bf16(v[i][6] * scale * b.z, v[i][7] * scale * b.w)};
    if constexpr (!kCoded) static_cast<uint4*>(p.out)[static_cast<int64_t>(blockIdx.x) * vectors + at] = held[i];
  }
  if constexpr (kCoded) write_e4m3_row(held, vectors, p.out, p.rows, maxima);
}

}  // namespace

Status launch_rms_norm_rows(const RmsNormArgs& args, Stream stream) {
  if (args.cols % (args.coded ? kE4M3ColumnStep : 8) != 0 || args.cols > kMostE4M3Columns) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.out) || !aligned(args.weight)) return kInvalidAlignment;
  const auto rows = static_cast<unsigned>(args.rows);
  return launch_dependent(args.coded ? rms_norm_rows_kernel<true> : rms_norm_rows_kernel<false>, rows, row_threads(args.cols), 0, stream, args);
}

}  // namespace longview::kernels
