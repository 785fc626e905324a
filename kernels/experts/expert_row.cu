// A few tokens through their experts, whose matrices are read as they are stored: a warp a row of gate and up, then a warp a row of the
// downs of all experts of a token. Where x has to be made into codes first a warp takes several rows: each block makes them for itself.
#include "kernels/api/experts.h"
#include "kernels/experts/expert_swiglu.cuh"
#include "kernels/gemm/matvec_row.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32;
constexpr int64_t kBlocksAtOnce = 2;  // of a multiprocessor, by their registers

// A lane's 32 elements of a quantised row as floats, and of x as it is: what Reader is without codes.
template <WeightType kType>
struct ExactReader {
  static constexpr int kStep = kGroup, kAhead = 1;
  struct Words {
    float w[kGroup];
  };
  template <bool>
  static __device__ Words load(const uint8_t* row, int step) {
    Words words;
    load_group<kType>(row, step, words.w);
    return words;
  }
  struct Input {
    float x[2][16];
  };
  static __device__ Input input(const uint4* x, const Codes&, int step, int) {
    Input in;
    for (int half = 0; half < 2; ++half) unpack_half(x + 4 * step + 2 * half, in.x[half]);
    return in;
  }
  static __device__ float multiply(const Words& words, const Input& in) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) sum = fmaf(words.w[i], in.x[i / 16][i % 16], sum);
    return sum;
  }
};
// kExact: x is not made into codes.
template <WeightType kType, bool kExact>
using ReaderOf = std::conditional_t<kExact && codes_x(kType), ExactReader<kType>, Reader<kType>>;

template <WeightType kType, bool kExact>
__device__ inline void make_shared_codes(const uint4* x, int64_t k, const Codes& codes) {
  if constexpr (codes_x(kType) && !kExact) {
    make_codes<Reader<kType>>(x, k, codes);
    __syncthreads();
  }
}

// A lane's steps of all: load(step, r) of kAhead steps and kRows rows at a time, the first of them before prepare(), then multiply(words, step).
// All threads of the block take part until it is `prepared`.
template <typename Read, int kAhead, int kRows, typename Load, typename Prepare, typename Multiply>
__device__ inline void by_steps(int steps, bool& prepared, const Load& load, const Prepare& prepare, const Multiply& multiply) {
  typename Read::Words words[kAhead][kRows];
  int step = threadIdx.x % 32;
  do {
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
#pragma unroll
      for (int r = 0; r < kRows; ++r) words[i][r] = load(min(step + 32 * i, steps - 1), r);
    if (!prepared) prepare();
    prepared = true;
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (step + 32 * i < steps) multiply(words[i], step + 32 * i);
    step += 32 * kAhead;
  } while (step < steps);
  __syncwarp();
}

template <WeightType kType, bool kExact>
__global__ void __launch_bounds__(kThreads) expert_gates_kernel(const ExpertGatesArgs p, const int64_t row_bytes) {
  using Read = ReaderOf<kType, kExact>;
  extern __shared__ __align__(16) char shared[];
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t token = blockIdx.z, slot = token * p.used + blockIdx.y;
  const auto* x = static_cast<const uint4*>(p.x) + token * (p.k / 8);
  const Codes codes = codes_at(shared, p.k);
  const int64_t first = p.chosen[slot] * p.n;  // of the expert's rows
  const int steps = static_cast<int>(p.k / Read::kStep);
  constexpr int kAhead = codes_x(kType) ? std::min(Read::kAhead, 2) : Read::kAhead;
  bool prepared = false;
  int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  do {
    const int64_t at = first + min(row, p.n - 1);
    const uint8_t* rows[2] = {static_cast<const uint8_t*>(p.gates) + at * row_bytes, static_cast<const uint8_t*>(p.ups) + at * row_bytes};
    float sum[2] = {};
    by_steps<Read, kAhead, 2>(
        steps, prepared, [&](int step, int r) { return Read::template load<false>(rows[r], step); }, [&] { make_shared_codes<kType, kExact>(x, p.k, codes); },
        [&](const typename Read::Words(&words)[2], int step) {
          const typename Read::Input in = Read::input(x, codes, step, steps);
#pragma unroll
          for (int r = 0; r < 2; ++r) sum[r] += Read::multiply(words[r], in);
        });
    const float gate = warp_sum(sum[0]), up = warp_sum(sum[1]);
    if (threadIdx.x % 32 == 0 && row < p.n) {
      const float result = p.gate_biases ? clamped_swiglu(gate + p.gate_biases[at], up + p.up_biases[at]) : gate_mul(gate, up, {});
      static_cast<__nv_bfloat16*>(p.out)[slot * p.n + row] = __float2bfloat16(result);
    }
    row += static_cast<int64_t>(gridDim.x) * kWarps;
  } while (row < p.n);
}

// x of all S experts is one row of S * K elements to the codes.
template <WeightType kType, bool kExact>
__global__ void __launch_bounds__(kThreads) expert_downs_kernel(const ExpertDownsArgs p, const int64_t row_bytes) {
  using Read = ReaderOf<kType, kExact>;
  extern __shared__ __align__(16) char shared[];
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t token = blockIdx.z, length = p.used * p.k;
  const auto* x = static_cast<const uint4*>(p.x) + token * (length / 8);
  const Codes codes = codes_at(shared, length);
  const int32_t* chosen = p.chosen + token * p.used;
  const float* shares = p.shares + token * p.used;
  const int steps = static_cast<int>(p.k / Read::kStep), all = steps * static_cast<int>(p.used);
  bool prepared = false;
  int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  do {
    float sum = 0;
    by_steps<Read, kExact ? 1 : 4, 1>(
        all, prepared, [&](int i, int) { return Read::template load<false>(static_cast<const uint8_t*>(p.downs) + (chosen[i / steps] * p.n + min(row, p.n - 1)) * row_bytes, i % steps); },
        [&] { make_shared_codes<kType, kExact>(x, length, codes); },
        [&](const typename Read::Words(&words)[1], int i) { sum = fmaf(shares[i / steps], Read::multiply(words[0], Read::input(x, codes, i, all)), sum); });
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0 && row < p.n) {
      if (p.biases)
        for (int64_t i = 0; i < p.used; ++i) sum = fmaf(shares[i], p.biases[chosen[i] * p.n + row], sum);
      p.sum[token * p.n + row] += sum;
    }
    row += static_cast<int64_t>(gridDim.x) * kWarps;
  } while (row < p.n);
}

// Blocks for n rows, where `others` times as many run beside them: with codes as many as the device holds at once.
unsigned row_blocks(int64_t n, int64_t others, bool coded) {
  const int64_t blocks = ceil_div(n, kWarps);
  if (!coded) return static_cast<unsigned>(blocks);
  const int64_t held = std::max<int64_t>(1, kBlocksAtOnce * device_attribute(cudaDevAttrMultiProcessorCount) / others);
  return static_cast<unsigned>(ceil_div(blocks, ceil_div(blocks, held)));
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
  if ((args.gate_biases == nullptr) != (args.up_biases == nullptr)) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.gates) || !aligned(args.ups) || !aligned(args.out)) return kInvalidAlignment;
  const int64_t shared = codes_x(args.type) && !args.exact ? codes_bytes(args.k) : 0;
  if (shared > kMostCodesBytes) return kInvalidShape;
  const dim3 grid(row_blocks(args.n, args.used * args.tokens, shared > 0), static_cast<unsigned>(args.used), static_cast<unsigned>(args.tokens));
  Status status = kUnsupportedType;
  for_type(args.type, [&]<WeightType kType>() {
    if constexpr (kType != WeightType::kE4M3) status = launch_dependent(args.exact && codes_x(kType) ? expert_gates_kernel<kType, codes_x(kType)> : expert_gates_kernel<kType, false>, grid, kThreads, static_cast<size_t>(shared), stream, args, row_bytes(kType, args.k));
  });
  return status;
}

Status launch_expert_downs(const ExpertDownsArgs& args, Stream stream) {
  if (const Status wrong = check(args.type, args.tokens, args.used, args.n, args.k)) return wrong;
  if (!aligned(args.x) || !aligned(args.downs)) return kInvalidAlignment;
  const int64_t shared = codes_x(args.type) && !args.exact ? codes_bytes(args.used * args.k) : 0;
  if (shared > kMostCodesBytes) return kInvalidShape;
  const dim3 grid(row_blocks(args.n, args.tokens, shared > 0), 1, static_cast<unsigned>(args.tokens));
  Status status = kUnsupportedType;
  for_type(args.type, [&]<WeightType kType>() {
    if constexpr (kType != WeightType::kE4M3) status = launch_dependent(args.exact && codes_x(kType) ? expert_downs_kernel<kType, codes_x(kType)> : expert_downs_kernel<kType, false>, grid, kThreads, static_cast<size_t>(shared), stream, args, row_bytes(kType, args.k));
  });
  return status;
}

}  // namespace longview::kernels
