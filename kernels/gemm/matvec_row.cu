// One row of x against every row of up to three weights: a warp a few weight rows, bound by reading the weights once. Several
// steps of them are asked for at a time, those of the first before x is there. On compute capability 9.0, where
// that was measured, matvec_row_staged does it, but where rows begin at odd places.
//
// Where x is made into codes, every block makes them for itself in shared memory while its first weights are on their way.
#include "kernels/api/elementwise.h"
#include "kernels/common/gated.cuh"
#include "kernels/gemm/matvec_row.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

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
__global__ void __launch_bounds__(Reader<kType>::kWarps * 32) matvec_row_kernel(const Params p) {
  using Read = Reader<kType>;
  constexpr int kRows = Read::kRows, kHalf = kRows / 2, kAhead = Read::kAhead;
  extern __shared__ __align__(16) char shared[];
  ptx::start_dependents();
  const MatvecRowArgs& a = p.args;
  const bool gated = a.result == MatvecResult::kGated;
  const int64_t first = min((static_cast<int64_t>(blockIdx.x) * Read::kWarps + threadIdx.x / 32) * kRows, p.rows);

  // The parts follow each other; of a gated pair as many rows of each go together. Rows behind the last are read as it is.
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

  const auto steps = static_cast<int>(a.k / Read::kStep);
  const auto* x = static_cast<const uint4*>(a.x);
  const Codes codes = codes_at(shared, a.k);
  float sum[kRows] = {};
  int step = threadIdx.x % 32;
  bool first_step = true;
  do {
    typename Read::Words words[kAhead][kRows];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
#pragma unroll
      for (int r = 0; r < kRows; ++r) words[i][r] = Read::template load<false>(rows[r], min(step + 32 * i, steps - 1));
    if (first_step) {
      first_step = false;
      ptx::wait_for_previous();
      if constexpr (codes_x(kType)) {
        make_codes<Read>(x, a.k, codes);
        __syncthreads();
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (step + 32 * i < steps) {
        const typename Read::Input in = Read::input(x, codes, step + 32 * i, steps);
#pragma unroll
        for (int r = 0; r < kRows; ++r) sum[r] += Read::multiply(words[i][r], in);
      }
    }
    step += 32 * kAhead;
  } while (step < steps);
  __syncwarp();
#pragma unroll
  for (int r = 0; r < kRows; ++r) sum[r] = warp_sum(sum[r]);
  if (threadIdx.x % 32 != 0) return;
  if constexpr (kType == WeightType::kE4M3) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) sum[r] *= e4m3_scale(a.parts[gated ? r / kHalf : part].weight, n, a.k, min(row0 + (gated ? r % kHalf : r), n - 1));
  }
  if (gated) {
#pragma unroll
    for (int r = 0; r < kHalf; ++r)
      if (row0 + r < n) static_cast<__nv_bfloat16*>(a.parts[0].out)[row0 + r] = __float2bfloat16(gate_mul(sum[r], sum[r + kHalf], a.curve));
    return;
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (row0 + r < n) write(a, a.parts[part], row0 + r, sum[r]);
}

template <WeightType kType>
Status launch(Params p, Stream stream) {
  using Read = Reader<kType>;
  if (p.args.result == MatvecResult::kGated) p.rows = ceil_div(p.args.parts[0].n, Read::kRows / 2) * Read::kRows;
  const int64_t shared = codes_x(kType) ? codes_bytes(p.args.k) : 0;
  if (shared > kMostCodesBytes) return kInvalidShape;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.rows, Read::kWarps * Read::kRows)));
  return launch_dependent(matvec_row_kernel<kType>, grid, Read::kWarps * 32, static_cast<size_t>(shared), stream, p);
}

}  // namespace

Status launch_matvec_row(const MatvecRowArgs& args, Stream stream) {
  if (args.count < 1 || args.count > kMatvecParts || args.k <= 0 || args.k > kLargestGrid || args.k % 8 != 0) return kInvalidShape;
  const BlockShape block = block_shape(args.type);
  if (block.elements == 0) return kUnsupportedType;
  if (args.k % block.elements != 0) return kInvalidShape;
  if (!aligned(args.x) || (args.norm && (!aligned(args.norm) || !aligned(args.normed) || !args.normed))) return kInvalidAlignment;
  const bool gated = args.result == MatvecResult::kGated;
  if (gated && (args.count != 2 || args.parts[0].n != args.parts[1].n || args.parts[0].bias || args.parts[1].bias)) return kInvalidShape;
  Params p{args, 0, row_bytes(args.type, args.k)};
  for (int i = 0; i < args.count; ++i) {
    const MatvecPart& part = args.parts[i];
    if (part.n <= 0 || (i + 1 < args.count && part.n % 4 != 0)) return kInvalidShape;
    if (!aligned(part.weight)) return kInvalidAlignment;
    p.rows += part.n;
  }
  if (p.rows > kLargestGrid) return kInvalidShape;
  if (on_sm90(args.architecture) && p.row_bytes % 16 == 0)
    if (const Status done = launch_matvec_row_staged(args, device_attribute(cudaDevAttrMultiProcessorCount), stream); done != kUnsupportedType) return done;
  if (args.norm) {
    if (const Status done = launch_rms_norm({args.x, Element::kFloat32, args.norm, args.normed, 1, args.k, args.epsilon}, stream)) return done;
    p.args.x = args.normed;
  }
  Status status = kUnsupportedType;
  for_type(args.type, [&]<WeightType kType>() { status = launch<kType>(p, stream); });
  return status;
}

}  // namespace longview::kernels
