// Rows of bf16 to e4m3: weights once, activations before they meet them.
#include "kernels/common/gated.cuh"
#include "kernels/elementwise/rows.cuh"

namespace longview::kernels {
namespace {

// gate_mul of eight elements.
__device__ inline uint4 gate_mul(uint4 gate, uint4 up, GateCurve curve) {
  float g[8], u[8];
  unpack_bf16x8(gate, g);
  unpack_bf16x8(up, u);
#pragma unroll
  for (int j = 0; j < 8; ++j) g[j] = __fdividef(g[j], 1.0f + __expf(-on_curve(g[j], curve))) * u[j];  // 0 where the exponential is very large
  return {pack_bf16(g[0], g[1]), pack_bf16(g[2], g[3]), pack_bf16(g[4], g[5]), pack_bf16(g[6], g[7])};
}

// Of x, or where kGated of gate_mul(x, up). Blocks of few threads take few registers each, so that three are there at once.
template <bool kGated, int kMostThreads>
__global__ void __launch_bounds__(kMostThreads, kMostThreads <= 512 ? 3 : 1) quantize_kernel(const uint4* x, const uint4* up, void* out, int64_t rows, int vectors, GateCurve curve) {
  __shared__ float maxima[kMostRowThreads / 32];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * vectors;
  uint4 held[kHeldVectors];
  constexpr int kAhead = kGated ? kHeldVectors / 2 : kHeldVectors;
#pragma unroll
  for (int part = 0; part < kHeldVectors; part += kAhead) {
    uint4 other[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = static_cast<int>(threadIdx.x + (part + i) * blockDim.x);
      if (at >= vectors) continue;
      held[part + i] = __ldcs(x + first + at);
      if constexpr (kGated) other[i] = __ldcs(up + first + at);
    }
    if constexpr (kGated) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (static_cast<int>(threadIdx.x + (part + i) * blockDim.x) < vectors) held[part + i] = gate_mul(held[part + i], other[i], curve);
    }
  }
  write_e4m3_row(held, vectors, out, rows, maxima);
}

template <bool kGated>
Status launch(const void* x, const void* up, void* out, int64_t rows, int64_t cols, GateCurve curve, Stream stream) {
  const unsigned threads = row_threads(cols), blocks = static_cast<unsigned>(rows);
  const auto *from = static_cast<const uint4*>(x), *with = static_cast<const uint4*>(up);
  const int vectors = static_cast<int>(cols / 8);
  if (threads <= 512) quantize_kernel<kGated, 512><<<blocks, threads, 0, cuda(stream)>>>(from, with, out, rows, vectors, curve);
  else quantize_kernel<kGated, kMostRowThreads><<<blocks, threads, 0, cuda(stream)>>>(from, with, out, rows, vectors, curve);
  return launched();
}

bool fits(int64_t rows, int64_t cols) { return rows > 0 && rows <= kLargestGrid && cols > 0 && cols % kE4M3ColumnStep == 0 && cols <= kMostE4M3Columns; }

}  // namespace

Status launch_quantize_rows(const QuantizeRowsArgs& args, Stream stream) {
  if (!fits(args.rows, args.cols)) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.out)) return kInvalidAlignment;
  return launch<false>(args.x, nullptr, args.out, args.rows, args.cols, {}, stream);
}

Status launch_gate_mul_quantize(const GateMulQuantizeArgs& args, Stream stream) {
  if (!fits(args.rows, args.cols)) return kInvalidShape;
  if (!aligned(args.gate) || !aligned(args.up) || !aligned(args.out)) return kInvalidAlignment;
  return launch<true>(args.gate, args.up, args.out, args.rows, args.cols, args.curve, stream);
}

}  // namespace longview::kernels
