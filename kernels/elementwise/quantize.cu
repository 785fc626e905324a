// Rows of bf16 to e4m3: weights once, activations before they meet them.
#include "kernels/elementwise/rows.cuh"

namespace longview::kernels {
namespace {

// silu(gate) * up of eight elements.
__device__ inline uint4 silu_mul(uint4 gate, uint4 up) {
  float g[8], u[8];
  unpack_bf16x8(gate, g);
  unpack_bf16x8(up, u);
#pragma unroll
  for (int j = 0; j < 8; ++j) g[j] = g[j] / (1.0f + __expf(-g[j])) * u[j];
  return {pack_bf16(g[0], g[1]), pack_bf16(g[2], g[3]), pack_bf16(g[4], g[5]), pack_bf16(g[6], g[7])};
}

// Of x, or where kGated of silu(x) * up.
template <bool kGated>
__global__ void __launch_bounds__(kMostRowThreads) quantize_kernel(const uint4* x, const uint4* up, void* out, int64_t rows, int vectors) {
  __shared__ float maxima[kMostRowThreads / 32];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * vectors;
  uint4 held[kHeldVectors], other[kHeldVectors];
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    const int at = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (at >= vectors) continue;
    held[i] = __ldcs(x + first + at);
    if constexpr (kGated) other[i] = __ldcs(up + first + at);
  }
  if constexpr (kGated) {
#pragma unroll
    for (int i = 0; i < kHeldVectors; ++i)
      if (static_cast<int>(threadIdx.x + i * blockDim.x) < vectors) held[i] = silu_mul(held[i], other[i]);
  }
  write_e4m3_row(held, vectors, out, rows, maxima);
}

bool fits(int64_t rows, int64_t cols) { return rows > 0 && rows <= kLargestGrid && cols > 0 && cols % kE4M3ColumnStep == 0 && cols <= kMostE4M3Columns; }

}  // namespace

Status launch_quantize_rows(const QuantizeRowsArgs& args, Stream stream) {
  if (!fits(args.rows, args.cols)) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.out)) return kInvalidAlignment;
  quantize_kernel<false><<<static_cast<unsigned>(args.rows), row_threads(args.cols), 0, cuda(stream)>>>(static_cast<const uint4*>(args.x), nullptr, args.out, args.rows, static_cast<int>(args.cols / 8));
  return launched();
}

Status launch_silu_mul_quantize(const SiluMulQuantizeArgs& args, Stream stream) {
  if (!fits(args.rows, args.cols)) return kInvalidShape;
  if (!aligned(args.gate) || !aligned(args.up) || !aligned(args.out)) return kInvalidAlignment;
  quantize_kernel<true><<<static_cast<unsigned>(args.rows), row_threads(args.cols), 0, cuda(stream)>>>(static_cast<const uint4*>(args.gate), static_cast<const uint4*>(args.up), args.out, args.rows, static_cast<int>(args.cols / 8));
  return launched();
}

}  // namespace longview::kernels
