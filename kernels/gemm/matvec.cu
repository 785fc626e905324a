// Few rows of x against every row of a weight: a warp a weight row, bound by reading the weight once.
#include "kernels/api/gemm.h"
#include "kernels/common/dequantize.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 4;

struct Params {
  const uint8_t* weight;
  const uint4* x;  // 8 elements each
  const float* bias;
  void* out;
  int64_t n, k, row_bytes;
  bool wide;
};

template <WeightType kType, int kRows>
__device__ inline void store(const Params& p, int64_t row, float (&sum)[kRows]) {
#pragma unroll
  for (int m = 0; m < kRows; ++m) sum[m] = warp_sum(sum[m]);
  if (threadIdx.x % 32 != 0) return;
  const float bias = p.bias ? p.bias[row] : 0.0f;
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    if constexpr (kType == WeightType::kE4M3) sum[m] *= e4m3_scale(p.weight, p.n, p.k, row);
    if (p.wide) static_cast<float*>(p.out)[m * p.n + row] = sum[m] + bias;
    else static_cast<__nv_bfloat16*>(p.out)[m * p.n + row] = __float2bfloat16(sum[m] + bias);
  }
}

// Lanes read 16 bytes side by side, four loads in flight.
template <int kRows>
__global__ void __launch_bounds__(kWarps * 32) matvec_bf16_kernel(const Params p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= p.n) return;
  const auto* weight = reinterpret_cast<const uint4*>(p.weight + row * p.row_bytes);
  const int64_t vectors = p.k / 8;
  float sum[kRows] = {};
#pragma unroll 4
  for (int64_t i = threadIdx.x % 32; i < vectors; i += 32) {
    float w[8];
    unpack_bf16x8(__ldcs(weight + i), w);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      float x[8];
      unpack_bf16x8(p.x[m * vectors + i], x);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum[m] = fmaf(w[j], x[j], sum[m]);
    }
  }
  store<WeightType::kBFloat16>(p, row, sum);
}

// Lanes read groups of 32 elements side by side.
template <WeightType kType, int kRows>
__global__ void __launch_bounds__(kWarps * 32) matvec_quantized_kernel(const Params p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= p.n) return;
  const uint8_t* weight = p.weight + row * p.row_bytes;
  const int64_t vectors = p.k / 8;
  float sum[kRows] = {};
  for (int64_t group = threadIdx.x % 32; group < p.k / kGroup; group += 32) {
    float w[kGroup];
    load_group<kType>(weight, group, w);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float x[8];
        unpack_bf16x8(p.x[m * vectors + group * 4 + i], x);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[m] = fmaf(w[8 * i + j], x[j], sum[m]);
      }
    }
  }
  store<kType>(p, row, sum);
}

template <WeightType kType, int kRows>
void launch(const Params& p, Stream stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(p.n, kWarps));
  if constexpr (kType == WeightType::kBFloat16) matvec_bf16_kernel<kRows><<<blocks, kWarps * 32, 0, cuda(stream)>>>(p);
  else matvec_quantized_kernel<kType, kRows><<<blocks, kWarps * 32, 0, cuda(stream)>>>(p);
}

// 1, 2, 4 and 8 rows have kernels; other counts are made of these.
template <WeightType kType>
void launch_rows(Params p, int64_t rows, Stream stream) {
  while (rows > 0) {
    const int64_t part = rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
    if (part == 8) launch<kType, 8>(p, stream);
    else if (part == 4) launch<kType, 4>(p, stream);
    else if (part == 2) launch<kType, 2>(p, stream);
    else launch<kType, 1>(p, stream);
    p.x += part * (p.k / 8);
    p.out = static_cast<char*>(p.out) + part * p.n * (p.wide ? 4 : 2);
    rows -= part;
  }
}

}  // namespace

Status launch_matvec(const GemmArgs& args, Stream stream) {
  if (args.m <= 0 || args.m > kMatvecRows || args.n <= 0 || args.k <= 0 || args.k % 8 != 0) return kInvalidShape;
  if (ceil_div(args.n, kWarps) > kLargestGrid) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.weight)) return kInvalidAlignment;
  const BlockShape block = block_shape(args.type);
  if (block.elements == 0) return kUnsupportedType;
  if (args.k % block.elements != 0) return kInvalidShape;
  if (args.m == 1) return launch_matvec_row({args.x, args.type, args.k, {{args.weight, args.bias, args.out, args.n}}, 1, MatvecResult::kWrite, args.element, nullptr, nullptr, 0, args.architecture}, stream);
  const Params p{static_cast<const uint8_t*>(args.weight), static_cast<const uint4*>(args.x), args.bias, args.out, args.n,
                 args.k, row_bytes(args.type, args.k), args.element == Element::kFloat32};
  for_type(args.type, [&]<WeightType kType>() { launch_rows<kType>(p, args.m, stream); });
  return launched();
}

}  // namespace longview::kernels
