// What the kernels of one row share: x in 8-bit codes, how each weight type meets it, and where results go.
//
// Quantised weights meet x in 8-bit codes, a scale for each 32 (as llama.cpp and native/cpu do it). One instruction then multiplies
// four.
#pragma once

#include "kernels/api/gemm.h"
#include "kernels/common/dequantize.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {

// sum + four unsigned bytes of a times four signed ones of b.
__device__ inline int32_t dot4(uint32_t a, uint32_t b, int32_t sum) {
  int32_t out;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
  return out;
}

// x as the quantised kernels read it, in shared memory. A lane takes the codes of kStep elements in pieces of 16: the first pieces of
// all lanes lie behind each other, then the second ones, so that lanes read side by side.
struct Codes {
  uint4* codes;   // [kStep / 16, K / kStep]: where Reader::piece says
  float* sums;    // [K / 16]: of 16 codes, times their scale
  float* scales;  // [K / 32]
};

__device__ inline Codes codes_at(char* shared, int64_t k) {
  return {reinterpret_cast<uint4*>(shared), reinterpret_cast<float*>(shared + k), reinterpret_cast<float*>(shared + k + k / 16 * 4)};
}

// Two threads a group of 32, each a half of it: elements 16 * half .. + 15 are v. All threads of a warp take part; what lies behind
// the `halves` of a row is not written.
template <typename Read>
__device__ inline void make_half(const float (&v)[16], int half, int halves, const Codes& out) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) largest = fmaxf(largest, fabsf(v[i]));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
  const float scale = largest / 127.0f, inverse = largest > 0 ? 127.0f / largest : 0.0f;
  // A float of 1.5 * 2^23 + n has the code n in its lowest byte: a sum rounds as a conversion does, which takes longer.
  const auto bits = [&](int i) { return __float_as_uint(__fadd_rn(__fmul_rn(v[i], inverse), 12582912.0f)); };
  uint32_t words[4];
  int32_t sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = __byte_perm(__byte_perm(bits(4 * i), bits(4 * i + 1), 0x0040), __byte_perm(bits(4 * i + 2), bits(4 * i + 3), 0x0040), 0x5410);
    sum = dot4(0x01010101u, words[i], sum);
  }
  if (half >= halves) return;
  out.codes[Read::piece(half, halves)] = {words[0], words[1], words[2], words[3]};
  out.sums[half] = scale * static_cast<float>(sum);
  if (half % 2 == 0) out.scales[half / 2] = scale;
}

// Sixteen elements in bf16: two words.
__device__ inline void unpack_half(const uint4* words, float (&v)[16]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float part[8];
    unpack_bf16x8(words[i], part);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[8 * i + j] = part[j];
  }
}

// The codes of a row in bf16, whose reads are under way together.
template <typename Read>
__device__ inline void make_codes(const uint4* x, int64_t k, const Codes& out) {
  constexpr int kAtOnce = 4;
  const int halves = static_cast<int>(k / 16), threads = static_cast<int>(blockDim.x);
  for (int base = 0; base < halves; base += kAtOnce * threads) {
    uint4 words[kAtOnce][2] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int half = base + i * threads + static_cast<int>(threadIdx.x);
      if (half < halves) words[i][0] = x[2 * half], words[i][1] = x[2 * half + 1];
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (base + i * threads >= halves) break;
      float v[16];
      unpack_half(words[i], v);
      make_half<Read>(v, base + i * threads + static_cast<int>(threadIdx.x), halves, out);
    }
  }
}

// 16 bytes of a weight that is read once, or of its copy in shared memory.
template <bool kStaged>
__device__ inline uint4 read_weight(const uint4* p) {
  if constexpr (kStaged) return *p;
  else return __ldcs(p);
}

// The place of 16 elements among the codes of a row, where a lane's kPieces of them are neighbours.
template <int kPieces>
__device__ inline int neighbour_piece(int half, int halves) { return half % kPieces * (halves / kPieces) + half / kPieces; }

// How a lane reads kStep elements of a row (load), x there (input), and multiplies both. kRows, kWarps and kAhead are the unstaged
// kernel's: rows of a warp, warps of a block, steps that are asked for at a time; measured on an H200. kChunkSteps are 32 lanes'
// steps that the staged kernel copies at a time.
template <WeightType kType>
struct Reader {
  static constexpr int kStep = kGroup, kRows = 2, kWarps = 8, kAhead = 4, kChunkSteps = kType == WeightType::kQ8_0 ? 1 : 2;
  static __device__ int piece(int half, int halves) { return neighbour_piece<2>(half, halves); }
  using Words = Group;
  template <bool kStaged>
  static __device__ Words load(const uint8_t* row, int step) { return load_quantized<kType>(row, step); }
  struct Input {
    uint32_t x[8];
    float scale, sum[2];
  };
  static __device__ Input input(const uint4*, const Codes& codes, int step, int steps) {
    const uint4 low = codes.codes[step], high = codes.codes[steps + step];
    const float2 sums = reinterpret_cast<const float2*>(codes.sums)[step];
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}, codes.scales[step], {sums.x, sums.y}};
  }
  static __device__ float multiply(const Words& g, const Input& in) {
    float total = 0, offset = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int32_t sum = 0;
#pragma unroll
      for (int i = 4 * half; i < 4 * half + 4; ++i) sum = dot4(g.words[i], in.x[i], sum);
      total = fmaf(g.scale[half], static_cast<float>(sum), total);
      offset = fmaf(g.offset[half], in.sum[half], offset);
    }
    return fmaf(total, in.scale, offset);
  }
};

// A lane takes 32 bytes of a block's 128: an even sub-block in their low bits, the odd one behind it in the high ones. They and the
// block's header wait as they are stored, in fewer registers than decoded.
template <>
struct Reader<WeightType::kQ4_K> {
  static constexpr int kStep = 64, kRows = 2, kWarps = 8, kAhead = 1, kChunkSteps = 2;
  static __device__ int piece(int half, int halves) { return neighbour_piece<4>(half, halves); }
  struct Words {
    uint4 header, quants[2];
    int pair;  // of sub-blocks: 0 .. 3
  };
  template <bool kStaged>
  static __device__ Words load(const uint8_t* row, int step) {
    const auto* block = reinterpret_cast<const uint4*>(row + step / 4 * block_shape(WeightType::kQ4_K).bytes);
    const uint4* quants = block + 1 + step % 4 * 2;
    return {*block, {read_weight<kStaged>(quants), read_weight<kStaged>(quants + 1)}, step % 4};
  }
  struct Input {
    uint4 even[2], odd[2];
    float scale[2], sum[2];  // of the even and the odd sub-block
  };
  static __device__ Input input(const uint4*, const Codes& codes, int step, int steps) {
    const float2 scale = reinterpret_cast<const float2*>(codes.scales)[step];
    const float4 sum = reinterpret_cast<const float4*>(codes.sums)[step];
    return {{codes.codes[step], codes.codes[steps + step]}, {codes.codes[2 * steps + step], codes.codes[3 * steps + step]}, {scale.x, scale.y / 16}, {sum.x + sum.y, sum.z + sum.w}};
  }
  static __device__ float multiply(const Words& w, const Input& in) {
    // The 6-bit scales and minima of the pair, in two bytes each; the layout is k_scale_min's.
    const int shift = 16 * (w.pair % 2);
    const uint32_t first = w.header.y >> shift, second = w.header.z >> shift, third = w.header.w >> shift;
    const bool late = w.pair >= 2;
    const uint32_t scales = late ? (third & 0x0f0fu) | ((first & 0xc0c0u) >> 2) : first & 0x3f3fu;
    const uint32_t minima = late ? ((third >> 4) & 0x0f0fu) | ((second & 0xc0c0u) >> 2) : second & 0x3f3fu;
    int32_t sum[2] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t words[4] = {w.quants[i].x, w.quants[i].y, w.quants[i].z, w.quants[i].w};
      const uint32_t even[4] = {in.even[i].x, in.even[i].y, in.even[i].z, in.even[i].w}, odd[4] = {in.odd[i].x, in.odd[i].y, in.odd[i].z, in.odd[i].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sum[0] = dot4(words[j] & 0x0f0f0f0fu, even[j], sum[0]);
        sum[1] = dot4(words[j] & 0xf0f0f0f0u, odd[j], sum[1]);  // 16 times as much: in.scale[1] is a sixteenth
      }
    }
    const float2 d = __half22float2(*reinterpret_cast<const __half2*>(&w.header.x));
    const float product = byte_to_float<0>(scales) * in.scale[0] * static_cast<float>(sum[0]) + byte_to_float<1>(scales) * in.scale[1] * static_cast<float>(sum[1]);
    const float offset = byte_to_float<0>(minima) * in.sum[0] + byte_to_float<1>(minima) * in.sum[1];
    return d.x * product - d.y * offset;
  }
};

// A lane takes 16 elements of each quarter of a half, whose codes share their bytes.
template <WeightType kType>
  requires(in_quarters(kType))
struct Reader<kType> {
  static constexpr int kStep = 64, kRows = 2, kWarps = 8, kAhead = 1, kChunkSteps = 1;
  static __device__ int piece(int half, int halves) { return half / 2 % 4 * (halves / 4) + half / 8 * 2 + half % 2; }
  static constexpr int kLows = kType == WeightType::kQ3_K ? 1 : 2;
  struct Words {
    uint32_t low[kLows][4], high[4], scales;
    float scale;
    int half;
  };
  template <bool kStaged>
  static __device__ Words load(const uint8_t* row, int step) {
    const int64_t at = step / 4 * block_shape(kType).bytes;
    const uint8_t* block = row + at;
    const int half = step / 2 % 2, part = step % 2;
    const uint32_t odd = odd_of<-1>(row, at);  // of all that lies at multiples of four in the block
    Words w;
#pragma unroll
    for (int i = 0; i < kLows; ++i) load_words<4>(quarter_low<kType>(block, half, i) + 16 * part, odd, w.low[i]);
    load_words<4>(quarter_high<kType>(block, half) + 16 * part, odd, w.high);
    w.scales = quarter_scales<kType>(row, at, half, part);
    w.scale = quarters_scale<kType>(block);
    w.half = half;
    return w;
  }
  struct Input {
    uint4 x[4];
    float scale[4], sum[4];
  };
  static __device__ Input input(const uint4*, const Codes& codes, int step, int steps) {
    const float4 scale = reinterpret_cast<const float4*>(codes.scales)[step / 2];
    const float4 front = reinterpret_cast<const float4*>(codes.sums)[step / 2 * 2], back = reinterpret_cast<const float4*>(codes.sums)[step / 2 * 2 + 1];
    const bool second = step % 2;
    return {{codes.codes[step], codes.codes[steps + step], codes.codes[2 * steps + step], codes.codes[3 * steps + step]},
            {scale.x, scale.y, scale.z, scale.w},
            {second ? front.y : front.x, second ? front.w : front.z, second ? back.y : back.x, second ? back.w : back.z}};
  }
  static __device__ float multiply(const Words& w, const Input& in) {
    float total = 0;
#pragma unroll
    for (int quarter = 0; quarter < 4; ++quarter) {
      const uint32_t x[4] = {in.x[quarter].x, in.x[quarter].y, in.x[quarter].z, in.x[quarter].w};
      int32_t sum = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) sum = dot4(quarter_codes<kType>(w.low[quarter % kLows][i], w.high[i], w.half, quarter), x[i], sum);
      total = fmaf(quarter_scale<kType>(w.scales, quarter), fmaf(static_cast<float>(sum), in.scale[quarter], static_cast<float>(-quarters_zero(kType)) * in.sum[quarter]), total);
    }
    return w.scale * total;
  }
};

template <>
struct Reader<WeightType::kBFloat16> {
  static constexpr int kStep = 8, kRows = 2, kWarps = 4, kAhead = 4, kChunkSteps = 2;
  using Words = uint4;
  template <bool kStaged>
  static __device__ Words load(const uint8_t* row, int step) { return read_weight<kStaged>(reinterpret_cast<const uint4*>(row) + step); }
  struct Input {
    float x[8];
  };
  static __device__ Input input(const uint4* x, const Codes&, int step, int) {
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
  static constexpr int kStep = 16, kRows = 4, kWarps = 4, kAhead = 2, kChunkSteps = 2;
  using Words = uint4;
  template <bool kStaged>
  static __device__ Words load(const uint8_t* row, int step) { return read_weight<kStaged>(reinterpret_cast<const uint4*>(row) + step); }
  struct Input {
    float x[16];
  };
  static __device__ Input input(const uint4* x, const Codes&, int step, int) {
    Input in;
    unpack_half(x + 2 * step, in.x);
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

// launch_matvec_row where every row begins at a multiple of 16 bytes; kUnsupportedType where x is too long for it.
Status launch_matvec_row_staged(const MatvecRowArgs& args, int32_t multiprocessors, Stream stream);

}  // namespace longview::kernels
