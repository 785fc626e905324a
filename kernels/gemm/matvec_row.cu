// One row of x against every row of up to three weights: a warp a few weight rows, bound by reading the weights once. Several
// steps of them are asked for at a time, those of the first before x is there.
//
// Quantised weights meet x in 8-bit codes, a scale for each 32 (as llama.cpp and native/cpu do it): every block makes them for
// itself in shared memory while its first weights are on their way. One instruction then multiplies four.
#include "kernels/api/gemm.h"
#include "kernels/common/dequantize.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

// sum + four unsigned bytes of a times four signed ones of b.
__device__ inline int32_t dot4(uint32_t a, uint32_t b, int32_t sum) {
  int32_t out;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
  return out;
}

// x as the quantised kernels read it, in shared memory: codes [K], a scale and the sums of both halves for each 32.
struct Codes {
  uint4* codes;     // [K / 16]
  float* scales;    // [K / 32]
  int32_t* sums;    // [K / 16]
};
constexpr int64_t codes_bytes(int64_t k) { return k + k / 32 * 4 + k / 16 * 4; }

__device__ inline Codes codes_at(char* shared, int64_t k) {
  return {reinterpret_cast<uint4*>(shared), reinterpret_cast<float*>(shared + k), reinterpret_cast<int32_t*>(shared + k + k / 32 * 4)};
}

// Two threads a group of 32, each a half of it. K is a multiple of 32; all threads of a warp take part.
__device__ inline void make_codes(const uint4* x, int64_t k, const Codes& out) {
  const int64_t halves = k / 16;
  for (int64_t base = 0; base < halves; base += blockDim.x) {
    const int64_t half = base + threadIdx.x;
    float v[16] = {};
    if (half < halves) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float part[8];
        unpack_bf16x8(x[2 * half + i], part);
#pragma unroll
        for (int j = 0; j < 8; ++j) v[8 * i + j] = part[j];
      }
    }
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) largest = fmaxf(largest, fabsf(v[i]));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    const float scale = largest / 127.0f, inverse = largest > 0 ? 127.0f / largest : 0.0f;
    uint32_t words[4];
    int32_t sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) words[i] |= (static_cast<uint32_t>(__float2int_rn(v[4 * i + j] * inverse)) & 0xffu) << (8 * j);
      sum = dot4(0x01010101u, words[i], sum);
    }
    if (half < halves) {
      out.codes[half] = {words[0], words[1], words[2], words[3]};
      out.sums[half] = sum;
      if (half % 2 == 0) out.scales[half / 2] = scale;
    }
  }
}

template <WeightType kType>
struct Reader {
  // Measured on an H200 among 1, 2 and 4 steps ahead and 2 and 4 rows; Q6_K takes most registers.
  static constexpr int kStep = kGroup, kRows = 2, kWarps = 8, kAhead = kType == WeightType::kQ6_K ? 2 : 4;
  using Words = Group;
  static __device__ Words load(const uint8_t* row, int64_t step) { return load_quantized<kType>(row, step); }
  struct Input {
    uint32_t x[8];
    float scale, sum[2];
  };
  static __device__ Input input(const uint4*, const Codes& codes, int64_t step) {
    const uint4 low = codes.codes[2 * step], high = codes.codes[2 * step + 1];
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}, codes.scales[step], {static_cast<float>(codes.sums[2 * step]), static_cast<float>(codes.sums[2 * step + 1])}};
  }
  static __device__ float multiply(const Words& g, const Input& in) {
    float total = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int32_t sum = 0;
#pragma unroll
      for (int i = 4 * half; i < 4 * half + 4; ++i) sum = dot4(g.words[i], in.x[i], sum);
      total = fmaf(g.scale[half], static_cast<float>(sum), total);
      total = fmaf(g.offset[half], in.sum[half], total);
    }
    return total * in.scale;
  }
};

// A lane takes 16 bytes of a block's 128: half of an even sub-block in their low bits, half of the odd one behind it in the high
// ones. They and the block's header wait as they are stored, in fewer registers than decoded. Measured on an H200 with 2 and 4 steps
// ahead, 2 and 4 rows, 4 and 8 warps.
template <>
struct Reader<WeightType::kQ4_K> {
  static constexpr int kStep = 32, kRows = 2, kWarps = 8, kAhead = 2;
  struct Words {
    uint4 header, quants;
  };
  static __device__ Words load(const uint8_t* row, int64_t step) {
    const auto* block = reinterpret_cast<const uint4*>(row + step / 8 * block_shape(WeightType::kQ4_K).bytes);
    return {__ldg(block), __ldcs(block + 1 + step % 8)};
  }
  struct Input {
    uint4 x[2];
    float scale[2], sum[2];  // of the even and the odd sub-block's half
    int pair;                // of sub-blocks: 0 .. 3
  };
  static __device__ Input input(const uint4*, const Codes& codes, int64_t step) {
    const int64_t pair = step / 2, half = 4 * pair + step % 2;
    const float scale[2] = {codes.scales[2 * pair], codes.scales[2 * pair + 1]};
    return {{codes.codes[half], codes.codes[half + 2]}, {scale[0], scale[1]}, {scale[0] * static_cast<float>(codes.sums[half]), scale[1] * static_cast<float>(codes.sums[half + 2])}, static_cast<int>(pair % 4)};
  }
  static __device__ float multiply(const Words& w, const Input& in) {
    // The 6-bit scales and minima of the pair, in two bytes each; the layout is k_scale_min's.
    const int shift = 16 * (in.pair % 2);
    const uint32_t first = w.header.y >> shift, second = w.header.z >> shift, third = w.header.w >> shift;
    const bool late = in.pair >= 2;
    const uint32_t scales = late ? (third & 0x0f0fu) | ((first & 0xc0c0u) >> 2) : first & 0x3f3fu;
    const uint32_t minima = late ? ((third >> 4) & 0x0f0fu) | ((second & 0xc0c0u) >> 2) : second & 0x3f3fu;
    const uint32_t words[4] = {w.quants.x, w.quants.y, w.quants.z, w.quants.w};
    const uint32_t even[4] = {in.x[0].x, in.x[0].y, in.x[0].z, in.x[0].w}, odd[4] = {in.x[1].x, in.x[1].y, in.x[1].z, in.x[1].w};
    int32_t sum[2] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[0] = dot4(words[i] & 0x0f0f0f0fu, even[i], sum[0]);
      sum[1] = dot4((words[i] >> 4) & 0x0f0f0f0fu, odd[i], sum[1]);
    }
    const float2 d = __half22float2(*reinterpret_cast<const __half2*>(&w.header.x));
    const float product = static_cast<float>(scales & 0xffu) * in.scale[0] * static_cast<float>(sum[0]) + static_cast<float>(scales >> 8 & 0xffu) * in.scale[1] * static_cast<float>(sum[1]);
    const float offset = static_cast<float>(minima & 0xffu) * in.sum[0] + static_cast<float>(minima >> 8 & 0xffu) * in.sum[1];
    return d.x * product - d.y * offset;
  }
};

template <>
struct Reader<WeightType::kBFloat16> {
  static constexpr int kStep = 8, kRows = 2, kWarps = 4, kAhead = 4;
  using Words = uint4;
  static __device__ Words load(const uint8_t* row, int64_t step) { return __ldcs(reinterpret_cast<const uint4*>(row) + step); }
  struct Input {
    float x[8];
  };
  static __device__ Input input(const uint4* x, const Codes&, int64_t step) {
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

// Codes meet x as it is; the row's scale comes at the end.
template <>
struct Reader<WeightType::kE4M3> {
  static constexpr int kStep = 16, kRows = 4, kWarps = 4, kAhead = 2;
  using Words = uint4;
  static __device__ Words load(const uint8_t* row, int64_t step) { return __ldcs(reinterpret_cast<const uint4*>(row) + step); }
  struct Input {
    float x[16];
  };
  static __device__ Input input(const uint4* x, const Codes&, int64_t step) {
    Input in;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float part[8];
      unpack_bf16x8(x[2 * step + i], part);
#pragma unroll
      for (int j = 0; j < 8; ++j) in.x[8 * i + j] = part[j];
    }
    return in;
  }
  static __device__ float multiply(const Words& words, const Input& in) {
    float w[2][8], sum = 0;
    unpack_e4m3x8({words.x, words.y}, w[0]);
    unpack_e4m3x8({words.z, words.w}, w[1]);
#pragma unroll
    for (int i = 0; i < 16; ++i) sum = fmaf(w[i / 8][i % 8], in.x[i], sum);
    return sum;
  }
};

// Whether x is made into codes.
constexpr bool codes_x(WeightType type) { return type != WeightType::kBFloat16 && type != WeightType::kE4M3; }

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
  const bool gated = a.result == MatvecResult::kSwiglu;
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

  const int64_t steps = a.k / Read::kStep;
  const auto* x = static_cast<const uint4*>(a.x);
  const Codes codes = codes_at(shared, a.k);
  float sum[kRows] = {};
  int64_t step = threadIdx.x % 32;
  bool first_step = true;
  do {
    typename Read::Words words[kAhead][kRows];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
#pragma unroll
      for (int r = 0; r < kRows; ++r) words[i][r] = Read::load(rows[r], min(step + 32 * i, steps - 1));
    if (first_step) {
      first_step = false;
      ptx::wait_for_previous();
      if constexpr (codes_x(kType)) {
        make_codes(x, a.k, codes);
        __syncthreads();
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (step + 32 * i < steps) {
        const typename Read::Input in = Read::input(x, codes, step + 32 * i);
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
      if (row0 + r < n) static_cast<__nv_bfloat16*>(a.parts[0].out)[row0 + r] = __float2bfloat16(sum[r] / (1.0f + __expf(-sum[r])) * sum[r + kHalf]);
    return;
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (row0 + r < n) write(a, a.parts[part], row0 + r, sum[r]);
}

template <WeightType kType>
Status launch(Params p, Stream stream) {
  using Read = Reader<kType>;
  if (p.args.result == MatvecResult::kSwiglu) p.rows = ceil_div(p.args.parts[0].n, Read::kRows / 2) * Read::kRows;
  const int64_t shared = codes_x(kType) ? codes_bytes(p.args.k) : 0;
  if (shared > 48 << 10) return kInvalidShape;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.rows, Read::kWarps * Read::kRows)));
  return launch_dependent(matvec_row_kernel<kType>, grid, Read::kWarps * 32, static_cast<size_t>(shared), stream, p);
}

}  // namespace

Status launch_matvec_row(const MatvecRowArgs& args, Stream stream) {
  if (args.count < 1 || args.count > kMatvecParts || args.k <= 0 || args.k % 8 != 0) return kInvalidShape;
  const BlockShape block = block_shape(args.type);
  if (block.elements == 0) return kUnsupportedType;
  if (args.k % block.elements != 0) return kInvalidShape;
  if (!aligned(args.x)) return kInvalidAlignment;
  const bool gated = args.result == MatvecResult::kSwiglu;
  if (gated && (args.count != 2 || args.parts[0].n != args.parts[1].n || args.parts[0].bias || args.parts[1].bias)) return kInvalidShape;
  Params p{args, 0, row_bytes(args.type, args.k)};
  for (int i = 0; i < args.count; ++i) {
    const MatvecPart& part = args.parts[i];
    if (part.n <= 0 || (i + 1 < args.count && part.n % 4 != 0)) return kInvalidShape;
    if (!aligned(part.weight)) return kInvalidAlignment;
    p.rows += part.n;
  }
  if (p.rows > kLargestGrid) return kInvalidShape;
  Status status = kUnsupportedType;
  for_type(args.type, [&]<WeightType kType>() { status = launch<kType>(p, stream); });
  return status;
}

}  // namespace longview::kernels
