// Few rows of x against every row of a weight, bound by reading the weight once: tensor cores multiply 16 rows of the weight with all rows
// of x, so that more of these cost little. Quantised weights are met as they are: those of Q4_K and Q5_K by superblocks (matvec_k), whose pieces
// threads can fetch for themselves, others by groups (matvec_codes), through shared memory where their rows allow it (matvec_staged).
#include "kernels/gemm/matvec.cuh"

#include "kernels/common/launch.cuh"
#include "kernels/gemm/matvec_codes.cuh"
#include "kernels/gemm/matvec_k.cuh"

namespace longview::kernels {
namespace {

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

// What a warp's share of the elements adds to the products of a tile. Where elements are floats a thread has its rows' elements of four groups: which of
// them a product of 16 is over does not matter, as long as weight and x agree.
template <WeightType kType>
__device__ inline void add_products(float (&sum)[4], const MatvecParams& p, const uint8_t* upper, const uint8_t* lower, const uint4* x, int warp, int part) {
  const int64_t groups = ceil_div(p.k, kGroup);
  if constexpr (kType == WeightType::kBFloat16 || kType == WeightType::kE4M3) {
    for (int64_t begin = warp * 4; begin < groups; begin += kMatvecWarps * 4) {
      Pairs above, below, seen;
      load_pairs<kType>(upper, begin + part, p.k, above);
      load_pairs<kType>(lower, begin + part, p.k, below);
      load_bf16<false>(x, begin + part, p.k / 8, seen);
#pragma unroll
      for (int i = 0; i < kGroup / 2; i += 2) ptx::mma_bf16(sum, {above[i], below[i], above[i + 1], below[i + 1]}, seen[i], seen[i + 1]);
    }
  } else if constexpr (!met_in_groups(kType)) {
    for (int64_t block = warp; block < p.k / 256; block += kMatvecWarps) {
      SuperblockPart<kType> above, below;
      above.load(upper + block * block_shape(kType).bytes, part);
      below.load(lower + block * block_shape(kType).bytes, part);
      uint4 seen[8];
#pragma unroll
      for (int s = 0; s < 8; ++s) seen[s] = __ldg(x + block * 32 + 4 * s + part);
      add_superblock(sum, above, below, seen);
    }
  } else {
    const auto* pairs = reinterpret_cast<const uint2*>(x) + part;
    for (int64_t group = warp; group < groups; group += kMatvecWarps) add_group<kType, -1>(sum, upper, lower, group, part, {__ldg(pairs + group * 8), __ldg(pairs + group * 8 + 4)});
  }
}

template <WeightType kType>
__global__ void __launch_bounds__(kMatvecWarps * 32, 2) matvec_kernel(const MatvecParams p) {
  const int warp = threadIdx.x / 32, row = threadIdx.x % 32 / 4, part = threadIdx.x % 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kMatvecTile;
  float sum[4] = {};
  add_products<kType>(sum, p, p.weight_row(first + row), p.weight_row(first + row + 8), p.x_row(row), warp, part);
  store_tile<kType>(p, first, sum);
}

}  // namespace

Status launch_matvec(const GemmArgs& args, Stream stream) {
  if (args.m <= 0 || args.m > kMatvecRows || args.n <= 0 || args.k <= 0 || args.k % 8 != 0 || args.k > kLargestGrid) return kInvalidShape;
  if (ceil_div(args.n, kMatvecTile) > kLargestGrid) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.weight)) return kInvalidAlignment;
  const BlockShape block = block_shape(args.type);
  if (block.elements == 0) return kUnsupportedType;
  if (args.k % block.elements != 0) return kInvalidShape;
  if (args.m == 1) return launch_matvec_row({args.x, args.type, args.k, {{args.weight, args.bias, args.out, args.n}}, 1, MatvecResult::kWrite, args.element, nullptr, nullptr, 0, args.architecture}, stream);
  const MatvecParams p{static_cast<const uint8_t*>(args.weight), static_cast<const uint4*>(args.x), args.bias, args.out, args.m, args.n, args.k, row_bytes(args.type, args.k), args.element == Element::kFloat32};
  if (p.row_bytes % 16 == 0)
    if (const Status done = launch_matvec_staged(p, args.type, stream); done != kUnsupportedType) return done;
  for_type(args.type, [&]<WeightType kType>() { matvec_kernel<kType><<<static_cast<unsigned>(ceil_div(args.n, kMatvecTile)), kMatvecWarps * 32, 0, cuda(stream)>>>(p); });
  return launched();
}

}  // namespace longview::kernels
