// A few tokens through their experts, whose matrices are read as they are stored: a warp a row of gate and up, then a warp a row of the
// downs of all experts of a token.
#include "kernels/api/experts.h"
#include "kernels/gemm/matvec_row.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32;

template <WeightType kType>
__global__ void __launch_bounds__(kThreads) expert_gates_kernel(const ExpertGatesArgs p, const int64_t row_bytes) {
  using Read = Reader<kType>;
  extern __shared__ __align__(16) char shared[];
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t token = blockIdx.z, slot = token * p.used + blockIdx.y;
  const auto* x = static_cast<const uint4*>(p.x) + token * (p.k / 8);
  const Codes codes = codes_at(shared, p.k);
  if constexpr (codes_x(kType)) {
    make_codes<Read::kStep>(x, p.k, codes);
    __syncthreads();
  }
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= p.n) return;
  const int64_t offset = (p.chosen[slot] * p.n + row) * row_bytes;
  const uint8_t* rows[2] = {static_cast<const uint8_t*>(p.gates) + offset, static_cast<const uint8_t*>(p.ups) + offset};
  const int steps = static_cast<int>(p.k / Read::kStep);
  float sum[2] = {};
#pragma unroll 2
  for (int step = threadIdx.x % 32; step < steps; step += 32) {
    typename Read::Words words[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) words[r] = Read::template load<false>(rows[r], step);
    const typename Read::Input in = Read::input(x, codes, step, steps);
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] += Read::multiply(words[r], in);
  }
  const float gate = warp_sum(sum[0]), up = warp_sum(sum[1]);
  if (threadIdx.x % 32 == 0) static_cast<__nv_bfloat16*>(p.out)[slot * p.n + row] = __float2bfloat16(swiglu(gate, up));
}

// Of a token's x in codes, one expert's after the other.
__host__ __device__ constexpr int64_t slot_bytes(int64_t k) { return (codes_bytes(k) + 15) / 16 * 16; }

template <WeightType kType>
__global__ void __launch_bounds__(kThreads) expert_downs_kernel(const ExpertDownsArgs p, const int64_t row_bytes) {
  using Read = Reader<kType>;
  extern __shared__ __align__(16) char shared[];
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t token = blockIdx.z;
  const auto* x = static_cast<const uint4*>(p.x) + token * p.used * (p.k / 8);
  if constexpr (codes_x(kType)) {
    for (int s = 0; s < p.used; ++s) make_codes<Read::kStep>(x + s * (p.k / 8), p.k, codes_at(shared + s * slot_bytes(p.k), p.k));
    __syncthreads();
  }
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= p.n) return;
  const int32_t* chosen = p.chosen + token * p.used;
  const float* shares = p.shares + token * p.used;
  const int steps = static_cast<int>(p.k / Read::kStep), all = steps * static_cast<int>(p.used);
  float sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x % 32; i < all; i += 32) {
    const int s = i / steps, step = i % steps;
    const auto* weight = static_cast<const uint8_t*>(p.downs) + (chosen[s] * p.n + row) * row_bytes;
    sum = fmaf(shares[s], Read::multiply(Read::template load<false>(weight, step), Read::input(x + s * (p.k / 8), codes_at(shared + s * slot_bytes(p.k), p.k), step, steps)), sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) p.sum[token * p.n + row] += sum;
}

Status check(WeightType type, int64_t tokens, int64_t used, int64_t n, int64_t k) {
  const BlockShape block = block_shape(type);
  if (block.elements == 0 || type == WeightType::kE4M3) return kUnsupportedType;
  if (tokens <= 0 || tokens > 65535 || used <= 0 || used > kMostExpertsUsed || n <= 0 || k <= 0 || k % 8 != 0 || k % block.elements != 0 || k > kLargestGrid) return kInvalidShape;
  return ceil_div(n, kWarps) > kLargestGrid ? kInvalidShape : kOk;
}

}  // namespace

Status launch_expert_gates(const ExpertGatesArgs& args, Stream stream) {
  if (const Status wrong = check(args.type, args.tokens, args.used, args.n, args.k)) return wrong;
  if (!aligned(args.x) || !aligned(args.gates) || !aligned(args.ups) || !aligned(args.out)) return kInvalidAlignment;
  const int64_t shared = codes_x(args.type) ? codes_bytes(args.k) : 0;
  if (shared > 48 << 10) return kInvalidShape;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.n, kWarps)), static_cast<unsigned>(args.used), static_cast<unsigned>(args.tokens));
  Status status = kUnsupportedType;
  for_type(args.type, [&]<WeightType kType>() {
    if constexpr (kType != WeightType::kE4M3) status = launch_dependent(expert_gates_kernel<kType>, grid, kThreads, static_cast<size_t>(shared), stream, args, row_bytes(kType, args.k));
  });
  return status;
}

Status launch_expert_downs(const ExpertDownsArgs& args, Stream stream) {
  if (const Status wrong = check(args.type, args.tokens, args.used, args.n, args.k)) return wrong;
  if (!aligned(args.x) || !aligned(args.downs)) return kInvalidAlignment;
  const int64_t shared = codes_x(args.type) ? args.used * slot_bytes(args.k) : 0;
  if (shared > 48 << 10) return kInvalidShape;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.n, kWarps)), 1, static_cast<unsigned>(args.tokens));
  Status status = kUnsupportedType;
  for_type(args.type, [&]<WeightType kType>() {
    if constexpr (kType != WeightType::kE4M3) status = launch_dependent(expert_downs_kernel<kType>, grid, kThreads, static_cast<size_t>(shared), stream, args, row_bytes(kType, args.k));
  });
  return status;
}

}  // namespace longview::kernels
