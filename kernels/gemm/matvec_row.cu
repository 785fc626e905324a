// One row of x against every row of up to three weights: a warp a few weight rows, so that x is unpacked once for them. Bound
// by reading the weights once: several steps of them are asked for at a time, those of the first before x is there.
#include "kernels/api/gemm.h"
#include "kernels/common/dequantize.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

#ifndef LV_ROWS
#define LV_ROWS 2
#endif
#ifndef LV_UNROLL
#define LV_UNROLL 2
#endif
#ifndef LV_WARPS
#define LV_WARPS 4
#endif
constexpr int kWarps = LV_WARPS, kRows = LV_ROWS;

// Byte j of a word, at most 127, as 128 + byte: one instruction, exact; what is too much is taken off by the sum of x.
template <int kByte>
__device__ inline float biased(uint32_t word) {
  return __uint_as_float(__byte_perm(word, 0x43000000u, 0x7044 + (kByte << 8)));
}

template <WeightType kType>
struct Reader {
  static constexpr int kStep = kGroup, kAhead = LV_UNROLL;
  static constexpr bool kWideBytes = kType == WeightType::kQ8_0;

  struct Words {
    Group group;
  };
  static __device__ Words load(const uint8_t* row, int64_t step) { return {load_quantized<kType>(row, step)}; }

  // x of a step, and its sums over the halves.
  struct Input {
    float x[kGroup], sum[2];
  };
  static __device__ Input input(const uint4* x, int64_t step) {
    Input in;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float part[8];
      unpack_bf16x8(x[step * 4 + i], part);
#pragma unroll
      for (int j = 0; j < 8; ++j) in.x[8 * i + j] = part[j];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      in.sum[half] = 0;
#pragma unroll
      for (int j = 0; j < 16; ++j) in.sum[half] += in.x[16 * half + j];
    }
    return in;
  }

  static __device__ float multiply(const Words& words, const Input& in) {
    const Group& g = words.group;
    float total = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = 0;
#pragma unroll
      for (int i = 4 * half; i < 4 * half + 4; ++i) {
        if constexpr (kWideBytes) {
          sum = fmaf(byte_to_float<0>(g.words[i]), in.x[4 * i], sum);
          sum = fmaf(byte_to_float<1>(g.words[i]), in.x[4 * i + 1], sum);
          sum = fmaf(byte_to_float<2>(g.words[i]), in.x[4 * i + 2], sum);
          sum = fmaf(byte_to_float<3>(g.words[i]), in.x[4 * i + 3], sum);
        } else {
          sum = fmaf(biased<0>(g.words[i]), in.x[4 * i], sum);
          sum = fmaf(biased<1>(g.words[i]), in.x[4 * i + 1], sum);
          sum = fmaf(biased<2>(g.words[i]), in.x[4 * i + 2], sum);
          sum = fmaf(biased<3>(g.words[i]), in.x[4 * i + 3], sum);
        }
      }
      const float bias = kWideBytes ? 0.0f : 128.0f;
      total = fmaf(g.scale[half], fmaf(-bias, in.sum[half], sum), total);
      total = fmaf(g.offset[half], in.sum[half], total);
    }
    return total;
  }
};

template <>
struct Reader<WeightType::kBFloat16> {
  static constexpr int kStep = 8, kAhead = 4;
  using Words = uint4;
  static __device__ Words load(const uint8_t* row, int64_t step) { return __ldcs(reinterpret_cast<const uint4*>(row) + step); }
  struct Input {
    float x[8];
  };
  static __device__ Input input(const uint4* x, int64_t step) {
    Input in;
    unpack_bf16x8(x[step], in.x);
    return in;
  }
  static __device__ float multiply(const Words& words, const Input& in) {
    float w[8], sum = 0;
    unpack_bf16x8(words, w);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(w[i], in.x[i], sum);
    return sum;
  }
};

struct Params {
  MatvecRowArgs args;
  int64_t rows, row_bytes;
};

__device__ inline void write(const MatvecRowArgs& a, const MatvecPart& part, int64_t row, float value) {
  if (part.bias) value += part.bias[row];
  if (a.result == MatvecResult::kAdd) static_cast<float*>(part.out)[row] += value;
  else if (a.element == Element::kFloat32) static_cast<float*>(part.out)[row] = value;
  else static_cast<__nv_bfloat16*>(part.out)[row] = __float2bfloat16(value);
}

template <WeightType kType>
__global__ void __launch_bounds__(kWarps * 32) matvec_row_kernel(const Params p) {
  using Read = Reader<kType>;
  ptx::start_dependents();
  const MatvecRowArgs& a = p.args;
  const bool gated = a.result == MatvecResult::kSwiglu;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * kRows;
  if (first >= p.rows) return;

  // The parts follow each other; of a gated pair as many rows of each go together.
  constexpr int kHalf = kRows / 2;
  int part = 0;
  int64_t row0 = gated ? first / 2 : first;
  if (!gated)
    while (part + 1 < a.count && row0 >= a.parts[part].n) row0 -= a.parts[part++].n;
  const int64_t n = a.parts[part].n;
  const uint8_t* rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = row0 + (gated ? r % kHalf : r);
    rows[r] = static_cast<const uint8_t*>(a.parts[gated ? r / kHalf : part].weight) + min(row, n - 1) * p.row_bytes;
  }

  constexpr int kAhead = Read::kAhead;
  const int64_t steps = a.k / Read::kStep;
  const auto* x = static_cast<const uint4*>(a.x);
  float sum[kRows] = {};
  bool waited = false;
  for (int64_t step = threadIdx.x % 32; step < steps; step += 32 * kAhead) {
    typename Read::Words words[kAhead][kRows];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
#pragma unroll
      for (int r = 0; r < kRows; ++r) words[i][r] = Read::load(rows[r], min(step + 32 * i, steps - 1));
#ifdef LV_PREFETCH
    if (step + 32 * kAhead < steps) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const uint8_t* at = rows[r] + row_bytes(kType, min(step + 32 * (kAhead + i), steps - 1) * Read::kStep);
          asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
        }
    }
#endif
    if (!waited) ptx::wait_for_previous();
    waited = true;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (step + 32 * i >= steps) break;
      const typename Read::Input in = Read::input(x, step + 32 * i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum[r] += Read::multiply(words[i][r], in);
    }
  }
  if (!waited) ptx::wait_for_previous();
#pragma unroll
  for (int r = 0; r < kRows; ++r) sum[r] = warp_sum(sum[r]);
  if (threadIdx.x % 32 != 0) return;
  if (gated) {
#pragma unroll
    for (int r = 0; r < kHalf; ++r)
      if (row0 + r < n) static_cast<__nv_bfloat16*>(a.parts[0].out)[row0 + r] = __float2bfloat16(sum[r] / (1.0f + __expf(-sum[r])) * sum[r + kHalf]);
    return;
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (row0 + r < n) write(a, a.parts[part], row0 + r, sum[r]);
}

template <WeightType kType>
Status launch(const Params& p, Stream stream) {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(ceil_div(p.rows, kWarps * kRows)));
  config.blockDim = dim3(kWarps * 32);
  config.stream = cuda(stream);
  config.attrs = &early;
  config.numAttrs = major >= 9 ? 1 : 0;
  return static_cast<Status>(cudaLaunchKernelEx(&config, matvec_row_kernel<kType>, p));
}

}  // namespace

Status launch_matvec_row(const MatvecRowArgs& args, Stream stream) {
  if (args.count < 1 || args.count > kMatvecParts || args.k <= 0 || args.k % 8 != 0 || !aligned(args.x)) return kInvalidShape;
  const BlockShape block = block_shape(args.type);
  if (block.elements == 0) return kUnsupportedType;
  if (args.k % block.elements != 0) return kInvalidShape;
  const bool gated = args.result == MatvecResult::kSwiglu;
  if (gated && (args.count != 2 || args.parts[0].n != args.parts[1].n || args.parts[0].bias || args.parts[1].bias)) return kInvalidShape;
  Params p{args, 0, row_bytes(args.type, args.k)};
  for (int i = 0; i < args.count; ++i) {
    const MatvecPart& part = args.parts[i];
    if (part.n <= 0 || (i + 1 < args.count && part.n % kRows != 0)) return kInvalidShape;
    if (!aligned(part.weight)) return kInvalidAlignment;
    p.rows += part.n;
  }
  if (gated) p.rows = ceil_div(args.parts[0].n, kRows / 2) * kRows;
  if (p.rows > kLargestGrid) return kInvalidShape;
  Status status = kUnsupportedType;
  for_type(args.type, [&]<WeightType kType>() { status = launch<kType>(p, stream); });
  return status;
}

}  // namespace longview::kernels
