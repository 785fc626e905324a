// One row of x against every row of up to three weights: a block a multiprocessor, for the whole launch.
//
// Each warp walks pairs of weight rows (of a gated product a row of each weight). Their bytes come in chunks through a ring of its
// own in shared memory, which it fills before x is there: the block starts while the kernel before it runs, and memory is busy
// between the two. Rings are small enough that the blocks of two kernels fit a multiprocessor, or one and those of decode
// attention. x is normed by every block for itself, where that is asked for: a launch less to wait for.
#include "kernels/common/gated.cuh"
#include "kernels/elementwise/rows.cuh"
#include "kernels/gemm/matvec_row.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32, kRingBytes = 80 << 10;
constexpr int64_t kMostShared = 144 << 10;
// Of the 228 KiB of a multiprocessor, where a block takes 1 KiB for itself: the blocks of two products fit, three do not. Else two of the same
// kernel would share a multiprocessor where the one in front has ended, and leave another without.
constexpr int64_t kLeastShared = 77 << 10;
static_assert(3 * (kLeastShared + 1024) > 228 << 10);
constexpr int kHeldHalves = 2;  // of 16 elements, by a thread that norms x
constexpr int64_t kMostNormed = kThreads * kHeldHalves * 16;

template <WeightType kType>
struct Ring {
  static constexpr int kSteps = 32 * Reader<kType>::kChunkSteps;  // lanes' steps of a chunk
  static constexpr int kChunkBytes = static_cast<int>(row_bytes(kType, int64_t{kSteps} * Reader<kType>::kStep));
  static constexpr int kStages = kRingBytes / (kWarps * 2 * kChunkBytes);
  static constexpr int kBytes = kWarps * kStages * 2 * kChunkBytes;
  static_assert(kChunkBytes % 16 == 0 && kStages >= 2);
};

struct Params {
  MatvecRowArgs args;
  int pairs, row_bytes;
};

// Two weight rows that a warp takes together: rows 2 i and 2 i + 1 of all parts behind each other, or row i of both of a gated pair.
// A last row that is left over goes twice.
struct Pair {
  int part[2], row[2];
  __device__ Pair(const MatvecRowArgs& a, int index) {
    if (a.result == MatvecResult::kGated) {
      part[0] = 0, part[1] = 1;
      row[0] = row[1] = index;
      return;
    }
    int at = 0, first = 2 * index;
#pragma unroll
    for (int i = 0; i + 1 < kMatvecParts; ++i)
      if (at == i && i + 1 < a.count && first >= static_cast<int>(a.parts[i].n)) first -= static_cast<int>(a.parts[i].n), at = i + 1;
    part[0] = part[1] = at;
    row[0] = first, row[1] = min(first + 1, static_cast<int>(a.parts[at].n) - 1);
  }
  __device__ const uint8_t* weight(const MatvecRowArgs& a, int bytes, int i) const { return static_cast<const uint8_t*>(a.parts[part[i]].weight) + static_cast<int64_t>(row[i]) * bytes; }
};

// x as the product reads it, in shared memory: codes, or bf16.
template <WeightType kType>
__device__ inline void take_half(const float (&v)[16], int half, int halves, const Codes& codes, uint4* x) {
  if constexpr (codes_x(kType)) {
    make_half<Reader<kType>>(v, half, halves, codes);
  } else if (half < halves) {
#pragma unroll
    for (int i = 0; i < 2; ++i) x[2 * half + i] = {pack_bf16(v[8 * i], v[8 * i + 1]), pack_bf16(v[8 * i + 2], v[8 * i + 3]), pack_bf16(v[8 * i + 4], v[8 * i + 5]), pack_bf16(v[8 * i + 6], v[8 * i + 7])};
  }
}

// As make_codes, of x that stays in bf16.
__device__ inline void copy_row(const uint4* from, int count, uint4* to) {
  constexpr int kAtOnce = 4;
  for (int base = static_cast<int>(threadIdx.x); base < count; base += kAtOnce * kThreads) {
    uint4 words[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (base + i * kThreads < count) words[i] = from[base + i * kThreads];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (base + i * kThreads < count) to[base + i * kThreads] = words[i];
  }
}

// Elements 16 * half .. + 15 of a row of floats; zeros behind its `halves`.
__device__ inline void read_half(const void* row, int half, int halves, float (&v)[16]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float4 four = half < halves ? static_cast<const float4*>(row)[4 * half + j] : float4{};
    v[4 * j] = four.x, v[4 * j + 1] = four.y, v[4 * j + 2] = four.z, v[4 * j + 3] = four.w;
  }
}

// K is at most kMostNormed, and a multiple of 16. `weight`: what the thread's first elements are multiplied with; it is used up.
template <WeightType kType>
__device__ inline void take_normed(const MatvecRowArgs& a, float (&weight)[16], const Codes& codes, uint4* x) {
  __shared__ float parts[kWarps];
  const int halves = static_cast<int>(a.k / 16);
  float v[kHeldHalves][16], sum = 0;
#pragma unroll
  for (int i = 0; i < kHeldHalves; ++i) read_half(a.x, static_cast<int>(threadIdx.x) + i * kThreads, halves, v[i]);
#pragma unroll
  for (int i = 0; i < kHeldHalves; ++i)
#pragma unroll
    for (int j = 0; j < 16; ++j) sum = fmaf(v[i][j], v[i][j], sum);
  sum = block_reduce(sum, parts, [](float p, float q) { return p + q; });
  const float scale = rsqrtf(sum / static_cast<float>(a.k) + a.epsilon);
#pragma unroll
  for (int i = 0; i < kHeldHalves; ++i) {
    const int half = static_cast<int>(threadIdx.x) + i * kThreads;
    if (i * kThreads >= halves) break;
    if (i > 0) read_half(a.norm, half, halves, weight);
#pragma unroll
    for (int j = 0; j < 16; ++j) v[i][j] = __bfloat162float(__float2bfloat16(v[i][j] * scale * weight[j]));
    take_half<kType>(v[i], half, halves, codes, x);
    if (a.keep && blockIdx.x == 0 && half < halves) take_half<WeightType::kBFloat16>(v[i], half, halves, codes, static_cast<uint4*>(a.normed));
  }
}

// Both rows' results, of which every lane has a part: the first half of the warp adds up the first row, the other the second.
template <WeightType kType>
__device__ inline void write(const MatvecRowArgs& a, const Pair& pair, const float (&sum)[2]) {
  const bool second = threadIdx.x % 32 >= 16;
  const float both[2] = {sum[0] + __shfl_xor_sync(0xffffffffu, sum[0], 16), sum[1] + __shfl_xor_sync(0xffffffffu, sum[1], 16)};
  float value = second ? both[1] : both[0];
#pragma unroll
  for (int step = 8; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  const MatvecPart& part = a.parts[second ? pair.part[1] : pair.part[0]];
  const int row = second ? pair.row[1] : pair.row[0];
  if constexpr (kType == WeightType::kE4M3) value *= e4m3_scale(part.weight, part.n, a.k, row);
  if (a.result == MatvecResult::kGated) {
    const float up = __shfl_sync(0xffffffffu, value, 16);
    if (threadIdx.x % 32 == 0) static_cast<__nv_bfloat16*>(part.out)[row] = __float2bfloat16(gate_mul(value, up, a.curve));
    return;
  }
  if (threadIdx.x % 16 != 0 || (second && pair.row[1] == pair.row[0])) return;
  if (part.bias) value += part.bias[row];
  if (a.result == MatvecResult::kAdd) atomicAdd(static_cast<float*>(part.out) + row, value);
  else if (a.element == Element::kFloat32) static_cast<float*>(part.out)[row] = value;
  else static_cast<__nv_bfloat16*>(part.out)[row] = __float2bfloat16(value);
}

template <WeightType kType>
__global__ void __launch_bounds__(kThreads, 3) matvec_row_staged_kernel(const Params p) {
  using Read = Reader<kType>;
  using Copies = Ring<kType>;
  extern __shared__ __align__(128) char shared[];
  const MatvecRowArgs& a = p.args;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const char* ring = shared + warp * Copies::kStages * 2 * Copies::kChunkBytes;
  const uint32_t to = ptx::shared_address(ring) + lane * 16;

  float norm[16];  // asked for first: what is asked for behind the ring waits for it
  if (a.norm) read_half(a.norm, static_cast<int>(threadIdx.x), static_cast<int>(a.k / 16), norm);

  // Pairs that are left over go to different blocks. Chunks are asked for in order: both rows of a pair, then those of the next.
  const int first = warp * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x), stride = static_cast<int>(gridDim.x) * kWarps;
  int asked = first, begin = lane * 16;  // of this lane, in the rows of the pair
  const uint8_t* from[2];
  const auto open = [&](int pair) {
    if (pair >= p.pairs) return;
    const Pair rows(a, pair);
    from[0] = rows.weight(a, p.row_bytes, 0), from[1] = rows.weight(a, p.row_bytes, 1);
  };
  const auto copy = [&](int stage) {
    if (asked < p.pairs) {
#pragma unroll
      for (int i = 0; i < (Copies::kChunkBytes + 511) / 512; ++i)
        if ((512 * (i + 1) <= Copies::kChunkBytes || lane * 16 + 512 * i < Copies::kChunkBytes) && begin + 512 * i < p.row_bytes)
#pragma unroll
          for (int r = 0; r < 2; ++r) ptx::cp_async_16(to + (2 * stage + r) * Copies::kChunkBytes + 512 * i, from[r] + begin + 512 * i, true);
      begin += Copies::kChunkBytes;
      if (begin - lane * 16 >= p.row_bytes) {
        begin = lane * 16;
        open(asked += stride);
      }
    }
    ptx::cp_async_commit();
  };
  open(first);
  for (int i = 0; i < Copies::kStages; ++i) copy(i);

  const Codes codes = codes_at(shared + Copies::kBytes, a.k);
  auto* x = reinterpret_cast<uint4*>(shared + Copies::kBytes);
  ptx::start_dependents();  // a product's blocks find room beside these, one each (kLeastShared), and bring their weights meanwhile
  ptx::wait_for_previous();
  if (a.norm) {
    take_normed<kType>(a, norm, codes, x);
  } else if constexpr (codes_x(kType)) {
    make_codes<Read>(static_cast<const uint4*>(a.x), a.k, codes);
  } else {
    copy_row(static_cast<const uint4*>(a.x), static_cast<int>(a.k / 8), x);
  }
  __syncthreads();

  const auto steps = static_cast<int>(a.k / Read::kStep);
  int stage = 0;
  for (int index = first; index < p.pairs; index += stride) {
    float sum[2] = {};
    for (int base = 0; base < steps; base += Copies::kSteps) {
      ptx::cp_async_wait<Copies::kStages - 1>();
      __syncwarp();
      const auto* staged = reinterpret_cast<const uint8_t*>(ring) + 2 * stage * Copies::kChunkBytes;
#pragma unroll
      for (int i = 0; i < Read::kChunkSteps; ++i) {
        const int step = lane + 32 * i;
        if (base + step >= steps) continue;
        const typename Read::Input in = Read::input(x, codes, base + step, steps);
#pragma unroll
        for (int r = 0; r < 2; ++r) sum[r] += Read::multiply(Read::template load<true>(staged + r * Copies::kChunkBytes, step), in);
      }
      __syncwarp();
      copy(stage);
      if (++stage == Copies::kStages) stage = 0;
    }
    write<kType>(a, Pair(a, index), sum);
  }
}

template <WeightType kType>
Status launch(const Params& p, int32_t multiprocessors, Stream stream) {
  const int64_t shared = std::max(kLeastShared, Ring<kType>::kBytes + (codes_x(kType) ? codes_bytes(p.args.k) : p.args.k * 2));
  if (shared > kMostShared) return kUnsupportedType;
  if (const Status error = allow_shared(matvec_row_staged_kernel<kType>, kMostShared)) return error;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(multiprocessors, p.pairs));
  return launch_dependent(matvec_row_staged_kernel<kType>, dim3(blocks), kThreads, static_cast<size_t>(shared), stream, p);
}

}  // namespace

Status launch_matvec_row_staged(const MatvecRowArgs& args, int32_t multiprocessors, Stream stream) {
  if (args.norm && (args.k % 16 != 0 || args.k > kMostNormed)) return kUnsupportedType;
  int64_t pairs = 0;
  for (int i = 0; i < args.count; ++i) pairs += ceil_div(args.parts[i].n, 2);
  if (args.result == MatvecResult::kGated) pairs = args.parts[0].n;
  const int64_t bytes = row_bytes(args.type, args.k);
  if (pairs > kLargestGrid / 4 || bytes > kLargestGrid / 2) return kUnsupportedType;
  const Params p{args, static_cast<int>(pairs), static_cast<int>(bytes)};
  Status status = kUnsupportedType;
  for_type(args.type, [&]<WeightType kType>() { status = launch<kType>(p, multiprocessors, stream); });
  return status;
}

}  // namespace longview::kernels
