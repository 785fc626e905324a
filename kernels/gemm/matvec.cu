// Few rows of x against every row of a weight, bound by reading the weight once: tensor cores multiply 16 rows of the weight with all rows
// of x, so that more of these cost little. Quantised weights are rounded to bf16, as in the products of many rows; those of Q4_K and Q5_K are
// met as they are (matvec_k).
#include "kernels/api/gemm.h"
#include "kernels/common/dequantize.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/gemm/matvec_k.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 8;      // share the elements of a tile's rows
constexpr int kTileRows = 16;  // of the weight
static_assert(kMatvecRows == 8);

struct Params {
  const uint8_t* weight;
  const uint4* x;  // 8 elements each
  const float* bias;
  void* out;
  int64_t m, n, k, row_bytes;
  bool wide;
};

// A group's 32 elements as pairs of bf16; zeros beyond the row's end.
using Pairs = uint32_t[kGroup / 2];

template <bool kOnce>
__device__ inline void load_bf16(const uint4* row, int64_t group, int64_t vectors, Pairs& out) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t at = group * 4 + i;
    const uint4 eight = at >= vectors ? uint4{} : kOnce ? __ldcs(row + at) : __ldg(row + at);
    out[4 * i] = eight.x, out[4 * i + 1] = eight.y, out[4 * i + 2] = eight.z, out[4 * i + 3] = eight.w;
  }
}

template <WeightType kType>
__device__ inline void load_pairs(const uint8_t* row, int64_t group, int64_t k, Pairs& out) {
  if constexpr (kType == WeightType::kBFloat16) {
    load_bf16<true>(reinterpret_cast<const uint4*>(row), group, k / 8, out);
  } else {
    float values[kGroup] = {};
    if (group < k / kGroup) load_group<kType>(row, group, values);
#pragma unroll
    for (int i = 0; i < kGroup / 2; ++i) out[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
  }
}

// What a warp's share of the elements adds to the products of a tile; a thread has its rows' elements of each group. Which of them a product
// of 16 is over does not matter, as long as weight and x agree.
template <WeightType kType>
__device__ inline void add_products(float (&sum)[4], const Params& p, const uint8_t* upper, const uint8_t* lower, const uint4* x, int warp, int part) {
  if constexpr (kType == WeightType::kQ4_K || kType == WeightType::kQ5_K) {
    for (int64_t block = warp; block < p.k / 256; block += kWarps) {
      SuperblockPart<kType> above, below;
      above.load(upper + block * block_shape(kType).bytes, part);
      below.load(lower + block * block_shape(kType).bytes, part);
      uint4 seen[8];
#pragma unroll
      for (int s = 0; s < 8; ++s) seen[s] = __ldg(x + block * 32 + 4 * s + part);
      add_superblock(sum, above, below, seen);
    }
  } else {
    const int64_t groups = ceil_div(p.k, kGroup);
    for (int64_t begin = warp * 4; begin < groups; begin += kWarps * 4) {
      Pairs above, below, seen;
      load_pairs<kType>(upper, begin + part, p.k, above);
      load_pairs<kType>(lower, begin + part, p.k, below);
      load_bf16<false>(x, begin + part, p.k / 8, seen);
#pragma unroll
      for (int i = 0; i < kGroup / 2; i += 2) ptx::mma_bf16(sum, {above[i], below[i], above[i + 1], below[i + 1]}, seen[i], seen[i + 1]);
    }
  }
}

template <WeightType kType>
__global__ void __launch_bounds__(kWarps * 32, 2) matvec_kernel(const Params p) {
  __shared__ float sums[kWarps][kTileRows][kMatvecRows];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4, part = lane % 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTileRows;
  const uint8_t* upper = p.weight + min(first + row, p.n - 1) * p.row_bytes;
  const uint8_t* lower = p.weight + min(first + row + 8, p.n - 1) * p.row_bytes;
  const uint4* x = p.x + min(static_cast<int64_t>(row), p.m - 1) * (p.k / 8);  // rows beyond the last repeat it, and are not stored
  float sum[4] = {};
  add_products<kType>(sum, p, upper, lower, x, warp, part);
  *reinterpret_cast<float2*>(&sums[warp][row][2 * part]) = {sum[0], sum[1]};
  *reinterpret_cast<float2*>(&sums[warp][row + 8][2 * part]) = {sum[2], sum[3]};
  __syncthreads();
  if (threadIdx.x >= kTileRows * kMatvecRows) return;
  const int64_t token = threadIdx.x / kTileRows, to = first + threadIdx.x % kTileRows;
  if (token >= p.m || to >= p.n) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += sums[w][threadIdx.x % kTileRows][token];
  if constexpr (kType == WeightType::kE4M3) total *= e4m3_scale(p.weight, p.n, p.k, to);
  if (p.bias) total += p.bias[to];
  if (p.wide) static_cast<float*>(p.out)[token * p.n + to] = total;
  else static_cast<__nv_bfloat16*>(p.out)[token * p.n + to] = __float2bfloat16(total);
}

}  // namespace

Status launch_matvec(const GemmArgs& args, Stream stream) {
  if (args.m <= 0 || args.m > kMatvecRows || args.n <= 0 || args.k <= 0 || args.k % 8 != 0) return kInvalidShape;
  if (ceil_div(args.n, kTileRows) > kLargestGrid) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.weight)) return kInvalidAlignment;
  const BlockShape block = block_shape(args.type);
  if (block.elements == 0) return kUnsupportedType;
  if (args.k % block.elements != 0) return kInvalidShape;
  if (args.m == 1) return launch_matvec_row({args.x, args.type, args.k, {{args.weight, args.bias, args.out, args.n}}, 1, MatvecResult::kWrite, args.element, nullptr, nullptr, 0, args.architecture}, stream);
  const Params p{static_cast<const uint8_t*>(args.weight), static_cast<const uint4*>(args.x), args.bias, args.out, args.m, args.n, args.k, row_bytes(args.type, args.k), args.element == Element::kFloat32};
  for_type(args.type, [&]<WeightType kType>() { matvec_kernel<kType><<<static_cast<unsigned>(ceil_div(args.n, kTileRows)), kWarps * 32, 0, cuda(stream)>>>(p); });
  return launched();
}

}  // namespace longview::kernels
