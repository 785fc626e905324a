// The blocks of quantised weights: where in a row the codes of 32 neighbouring elements lie, and what they stand for. Layouts are GGUF's; a row of Q4_K or
// Q5_K begins at a multiple of 16, one of IQ4_XS at one of 8, others but MXFP4's at an even address. native/model/quant_formats.cpp is the scalar reference.
#pragma once

#include <cuda_fp16.h>

#include "kernels/api/status.h"
#include "kernels/common/words.cuh"

namespace longview::kernels {

constexpr int kGroup = 32;

// Elements and bytes of a block.
struct BlockShape {
  int elements, bytes;
};
__host__ __device__ constexpr BlockShape block_shape(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0: return {32, 18};
    case WeightType::kQ4_1: return {32, 20};
    case WeightType::kQ5_0: return {32, 22};
    case WeightType::kQ5_1: return {32, 24};
    case WeightType::kQ8_0: return {32, 34};
    case WeightType::kQ3_K: return {256, 110};
    case WeightType::kQ4_K: return {256, 144};
    case WeightType::kQ5_K: return {256, 176};
    case WeightType::kQ6_K: return {256, 210};
    case WeightType::kIQ4_NL: return {32, 18};
    case WeightType::kIQ4_XS: return {256, 136};
    case WeightType::kMXFP4: return {32, 17};
    case WeightType::kBFloat16: return {1, 2};
    case WeightType::kE4M3: return {32, 32};  // its scales lie behind the rows
  }
  return {0, 0};
}

__host__ __device__ constexpr int64_t row_bytes(WeightType type, int64_t elements) {
  return elements / block_shape(type).elements * block_shape(type).bytes;
}

__device__ inline float load_half(const uint8_t* p) { return __half2float(*reinterpret_cast<const __half*>(p)); }

// Byte j of a word as a float, by the exponent of 2^23: the units that convert integers are few.
template <int kByte>
__device__ inline float byte_to_float(uint32_t word) {
  return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7650 + kByte)) - 8388608.0f;
}

// The 6-bit scale and minimum of sub-block s of a Q4_K or Q5_K block.
__device__ inline void k_scale_min(int s, const uint8_t* scales, float& scale, float& minimum) {
  if (s < 4) {
    scale = byte_to_float<0>(scales[s] & 63u);
    minimum = byte_to_float<0>(scales[s + 4] & 63u);
  } else {
    scale = byte_to_float<0>((scales[s + 4] & 15u) | ((scales[s - 4] & 0xc0u) >> 2));
    minimum = byte_to_float<0>((scales[s + 4] >> 4) | ((scales[s] & 0xc0u) >> 2));
  }
}

// 2^(e - 128): half of what a byte of exponents alone (e8m0) stands for. Denormal from e = 1 on down.
__device__ inline float half_power(uint32_t e) { return __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

// Four bits, one into the fifth bit of each byte.
__device__ inline uint32_t spread_fifth(uint32_t bits) { return ((bits & 15) * 0x00204081u & 0x01010101u) << 4; }

// Codes of 4 bits that stand for the entries of a table, which are kept table_zero more.
constexpr bool has_table(WeightType type) { return type == WeightType::kIQ4_NL || type == WeightType::kIQ4_XS || type == WeightType::kMXFP4; }
constexpr int table_zero(WeightType type) { return type == WeightType::kMXFP4 ? 12 : 128; }

// The entries of eight codes: those in the low bits of four bytes, then those in the high bits.
template <WeightType kType>
__device__ inline void look_up(uint32_t codes, uint32_t& low, uint32_t& high) {
  constexpr bool kFloats = kType == WeightType::kMXFP4;  // twice 0, 0.5, 1, 1.5, 2, 3, 4, 6, then the negative ones
  constexpr uint32_t kFirst[2] = {kFloats ? 0x0f0e0d0cu : 0x3f2d1801u, kFloats ? 0x18141210u : 0x766a5d4fu};
  constexpr uint32_t kSecond[2] = {kFloats ? 0x090a0b0cu : 0xa6998d81u, kFloats ? 0x00040608u : 0xf1d9c5b5u};
  const uint32_t eighths = codes & 0x77777777u, halves = 0x32103210u | ((codes & 0x88888888u) >> 1);
  uint32_t pairs[2];  // low and high code of two bytes
#pragma unroll
  for (int i = 0; i < 2; ++i)
    pairs[i] = __byte_perm(__byte_perm(kFirst[0], kFirst[1], eighths >> (16 * i)), __byte_perm(kSecond[0], kSecond[1], eighths >> (16 * i)), halves >> (16 * i));
  low = __byte_perm(pairs[0], pairs[1], 0x6420);
  high = __byte_perm(pairs[0], pairs[1], 0x7531);
}

// Q3_K and Q6_K: a half of a block is four quarters of 32 elements, whose codes lie over each other in the same bytes; each 16 of them have
// a scale.
constexpr bool in_quarters(WeightType type) { return type == WeightType::kQ3_K || type == WeightType::kQ6_K; }
constexpr int quarters_zero(WeightType type) { return type == WeightType::kQ3_K ? 4 : 32; }

// Where the low and the high bits of a quarter's 32 codes lie.
template <WeightType kType>
__device__ inline const uint8_t* quarter_low(const uint8_t* block, int half, int quarter) { return kType == WeightType::kQ3_K ? block + 32 + 32 * half : block + 64 * half + 32 * (quarter % 2); }
template <WeightType kType>
__device__ inline const uint8_t* quarter_high(const uint8_t* block, int half) { return kType == WeightType::kQ3_K ? block : block + 128 + 32 * half; }

// Four codes of a word of each.
template <WeightType kType>
__device__ inline uint32_t quarter_codes(uint32_t low, uint32_t high, int half, int quarter) {
  if constexpr (kType == WeightType::kQ3_K) return ((low >> (2 * quarter)) & 0x03030303u) | (((high >> (4 * half + quarter)) & 0x01010101u) << 2);
  else return ((low >> (quarter < 2 ? 0 : 4)) & 0x0f0f0f0fu) | (((high >> (2 * quarter)) & 0x03030303u) << 4);
}

template <WeightType kType>
__device__ inline float quarters_scale(const uint8_t* block) { return load_half(block + (kType == WeightType::kQ3_K ? 108 : 208)); }

// The scales of the first or second 16 elements (part) of a half's four quarters, a byte each.
template <WeightType kType, int kRowOdd = -1>
__device__ inline uint32_t quarter_scales(const uint8_t* row, int64_t at, int half, int part) {
  const uint8_t* block = row + at;
  const uint32_t mine = part ? 0x7531 : 0x6420;
  if constexpr (kType == WeightType::kQ3_K) {  // 6 bits: 4 low ones of two scales in a byte of the first eight, the high ones in the others
    uint32_t words[3];
    load_words<3>(block + 96, odd_of<kRowOdd>(row, at + 96), words);
    const uint32_t low = __byte_perm(words[0], words[1], mine) >> (4 * half), high = __byte_perm(words[2], words[2] >> 2, mine) >> (4 * half);
    return (low & 0x0f0f0f0fu) | ((high & 0x03030303u) << 4);
  } else {
    uint32_t words[2];
    load_words<2>(block + 192 + 8 * half, odd_of<kRowOdd>(row, at + 192), words);
    return __byte_perm(words[0], words[1], mine);
  }
}
template <WeightType kType>
__device__ inline float quarter_scale(uint32_t scales, int quarter) {
  // Bytes of Q6_K have a sign: as if 128 more.
  return byte_to_float<0>((kType == WeightType::kQ3_K ? scales : scales ^ 0x80808080u) >> (8 * quarter)) - (kType == WeightType::kQ3_K ? 32.0f : 128.0f);
}

// Where in its row the block of a group begins.
template <WeightType kType>
__device__ inline int64_t block_at(int64_t group) { return group / (block_shape(kType).elements / kGroup) * block_shape(kType).bytes; }

// What the codes of a group stand for: scale * code + offset, for each half of it. The halves of Q3_K and Q6_K differ, those of others are alike.
struct Scales {
  float scale[2], offset[2];
};

template <WeightType kType, int kRowOdd = -1>
__device__ inline Scales load_scales(const uint8_t* row, int64_t group) {
  const int64_t at = block_at<kType>(group);
  const uint8_t* block = row + at;
  const auto s = static_cast<int>(group % 8);
  if constexpr (in_quarters(kType)) {
    Scales out;
    const float d = quarters_scale<kType>(block);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      out.scale[part] = d * quarter_scale<kType>(quarter_scales<kType, kRowOdd>(row, at, s / 4, part), s % 4);
      out.offset[part] = static_cast<float>(-quarters_zero(kType)) * out.scale[part];
    }
    return out;
  } else {
    float scale, offset;
    if constexpr (kType == WeightType::kQ4_K || kType == WeightType::kQ5_K) {
      float minimum;
      k_scale_min(s, block + 4, scale, minimum);
      scale *= load_half(block);
      offset = -load_half(block + 2) * minimum;
    } else if constexpr (kType == WeightType::kQ4_1 || kType == WeightType::kQ5_1) {
      scale = load_half(block), offset = load_half(block + 2);
    } else {
      constexpr int kZero = has_table(kType) ? table_zero(kType) : kType == WeightType::kQ8_0 ? 128 : kType == WeightType::kQ5_0 ? 16 : 8;
      if constexpr (kType == WeightType::kMXFP4) {
        scale = half_power(*block);
      } else if constexpr (kType == WeightType::kIQ4_XS) {
        uint32_t head[2];
        load_aligned<2, 8>(block, head);
        scale = load_half(block) * (byte_to_float<0>(((head[1] >> (4 * s)) & 15) | (((head[0] >> (16 + 2 * s)) & 3) << 4)) - 32.0f);
      } else {
        scale = load_half(block);
      }
      offset = static_cast<float>(-kZero) * scale;
    }
    return {{scale, scale}, {offset, offset}};
  }
}

// Of a group's codes, a byte each, four in a word: kWords words from word `first` of its first half on, then as many of its second half.
template <WeightType kType, int kWords, int kRowOdd = -1>
__device__ inline void load_codes(const uint8_t* row, int64_t group, int first, uint32_t (&out)[2 * kWords]) {
  const int64_t at = block_at<kType>(group);
  const uint8_t* block = row + at;
  const auto s = static_cast<int>(group % 8);
  // Of 32 bytes the words of both halves. Counted from the block's beginning they lie at multiples of four; those of Q8_0 two behind one.
  const auto load_halves = [&](const uint8_t* bytes, uint32_t* to) {
    const uint32_t odd = odd_of<kRowOdd>(row, at + (kType == WeightType::kQ8_0 ? 2 : 0));
    if constexpr (kWords == 4) load_words<8>(bytes, odd, to);
    else load_words<kWords>(bytes + 4 * first, odd, to), load_words<kWords>(bytes + 16 + 4 * first, odd, to + kWords);
  };
  uint32_t *low = out, *high = out + kWords;
  if constexpr (kType == WeightType::kQ8_0) {
    load_halves(block + 2, out);
#pragma unroll
    for (int i = 0; i < 2 * kWords; ++i) out[i] ^= 0x80808080u;  // -128 .. 127 becomes 0 .. 255
  } else if constexpr (in_quarters(kType)) {
    uint32_t top[2 * kWords];
    const uint8_t *bottoms = quarter_low<kType>(block, s / 4, s % 4), *tops = quarter_high<kType>(block, s / 4);
    load_halves(bottoms, out);
    load_halves(tops, top);
#pragma unroll
    for (int i = 0; i < 2 * kWords; ++i) out[i] = quarter_codes<kType>(out[i], top[i], s / 4, s % 4);
  } else if constexpr (kType == WeightType::kQ4_K || kType == WeightType::kQ5_K) {
    constexpr bool kFive = kType == WeightType::kQ5_K;
    const uint8_t* nibbles = block + (kFive ? 48 : 16) + 32 * (s / 2) + 4 * first;
    load_aligned<kWords, 16>(nibbles, low), load_aligned<kWords, 16>(nibbles + 16, high);
    uint32_t bits[2 * kWords];
    if constexpr (kFive) load_aligned<kWords, 16>(block + 16 + 4 * first, bits), load_aligned<kWords, 16>(block + 32 + 4 * first, bits + kWords);
#pragma unroll
    for (int i = 0; i < 2 * kWords; ++i) out[i] = ((out[i] >> (4 * (s & 1))) & 0x0f0f0f0fu) | (kFive ? ((bits[i] >> s) & 0x01010101u) << 4 : 0);
  } else {  // 16 bytes of nibbles, a half each in their low and high bits
    constexpr int kNibbles = block_shape(kType).bytes - 16;
    uint32_t nibbles[kWords];
    if constexpr (kType == WeightType::kIQ4_XS) load_aligned<kWords, 8>(block + 8 + 16 * s + 4 * first, nibbles);
    else load_words<kWords, kType != WeightType::kMXFP4>(block + kNibbles + 4 * first, odd_of<kRowOdd>(row, at + kNibbles), nibbles);
    uint32_t fifths = 0;
    if constexpr (kType == WeightType::kQ5_0 || kType == WeightType::kQ5_1) {
      load_words<1>(block + kNibbles - 4, odd_of<kRowOdd>(row, at + kNibbles), &fifths);
      fifths >>= 4 * first;
    }
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (has_table(kType)) {
        look_up<kType>(nibbles[i], low[i], high[i]);
      } else {
        low[i] = (nibbles[i] & 0x0f0f0f0fu) | spread_fifth(fifths >> (4 * i));
        high[i] = ((nibbles[i] >> 4) & 0x0f0f0f0fu) | spread_fifth(fifths >> (4 * i + 16));
      }
    }
  }
}

}  // namespace longview::kernels
