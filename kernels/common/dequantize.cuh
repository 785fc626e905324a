// 32 neighbouring elements of a stored weight row, in float: the unit in which all kernels read weights. Layouts are
// GGUF's; a row begins at an even address, one of Q4_K or Q5_K at a multiple of 16. native/model/quant_formats.cpp is the scalar reference.
#pragma once

#include <cuda_fp16.h>

#include "kernels/api/status.h"
#include "kernels/common/bf16.cuh"
#include "kernels/common/e4m3.cuh"

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
    case WeightType::kQ4_K: return {256, 144};
    case WeightType::kQ5_K: return {256, 176};
    case WeightType::kQ6_K: return {256, 210};
    case WeightType::kBFloat16: return {1, 2};
    case WeightType::kE4M3: return {32, 32};  // its scales lie behind the rows
  }
  return {0, 0};
}

__host__ __device__ constexpr int64_t row_bytes(WeightType type, int64_t elements) {
  return elements / block_shape(type).elements * block_shape(type).bytes;
}

__device__ inline uint32_t load_16(const uint8_t* p) { return *reinterpret_cast<const uint16_t*>(p); }
__device__ inline uint32_t load_32(const uint8_t* p) { return load_16(p) | (load_16(p + 2) << 16); }
__device__ inline float load_half(const uint8_t* p) { return __half2float(*reinterpret_cast<const __half*>(p)); }

// The 6-bit scale and minimum of sub-block s of a Q4_K or Q5_K block.
__device__ inline void k_scale_min(int s, const uint8_t* scales, float& scale, float& minimum) {
  if (s < 4) {
    scale = static_cast<float>(scales[s] & 63);
    minimum = static_cast<float>(scales[s + 4] & 63);
  } else {
    scale = static_cast<float>((scales[s + 4] & 15) | ((scales[s - 4] >> 6) << 4));
    minimum = static_cast<float>((scales[s + 4] >> 4) | ((scales[s] >> 6) << 4));
  }
}

// Byte j of a word as a float, by the exponent of 2^23: the units that convert integers are few.
template <int kByte>
__device__ inline float byte_to_float(uint32_t word) {
  return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7650 + kByte)) - 8388608.0f;
}

// Four bits, one into the fifth bit of each byte.
__device__ inline uint32_t spread_fifth(uint32_t bits) { return ((bits & 15) * 0x00204081u & 0x01010101u) << 4; }

// 32 stored values: bytes in order, value = scale * byte + offset; Q6_K's halves differ, all others' are alike.
struct Group {
  uint32_t words[8];
  float scale[2], offset[2];
};

template <WeightType kType>
__device__ inline Group load_quantized(const uint8_t* row, int64_t group) {
  constexpr int kBytes = block_shape(kType).bytes;
  Group g;
  if constexpr (kType == WeightType::kQ8_0) {
    const uint8_t* block = row + group * kBytes;
    const float d = load_half(block);
#pragma unroll
    for (int i = 0; i < 8; ++i) g.words[i] = load_32(block + 2 + 4 * i) ^ 0x80808080u;  // -128 .. 127 becomes 0 .. 255
    g.scale[0] = g.scale[1] = d;
    g.offset[0] = g.offset[1] = -128.0f * d;
  } else if constexpr (block_shape(kType).elements == 32) {
    constexpr bool kMinimum = kType == WeightType::kQ4_1 || kType == WeightType::kQ5_1;
    constexpr bool kFive = kType == WeightType::kQ5_0 || kType == WeightType::kQ5_1;
    const uint8_t* block = row + group * kBytes;
    const float d = load_half(block);
    const uint8_t* low = block + (kMinimum ? 4 : 2);
    uint32_t high = 0;
    if constexpr (kFive) {
      high = load_32(low);
      low += 4;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t word = load_32(low + 4 * i);
      g.words[i] = (word & 0x0f0f0f0fu) | (kFive ? spread_fifth(high >> (4 * i)) : 0);
      g.words[i + 4] = ((word >> 4) & 0x0f0f0f0fu) | (kFive ? spread_fifth(high >> (4 * i + 16)) : 0);
    }
    g.scale[0] = g.scale[1] = d;
    g.offset[0] = g.offset[1] = kMinimum ? load_half(block + 2) : d * (kFive ? -16.0f : -8.0f);
  } else if constexpr (kType == WeightType::kQ6_K) {
    const uint8_t* block = row + (group / 8) * kBytes;
    const int s = static_cast<int>(group % 8), half = s / 4, quarter = s % 4;
    const uint8_t* low = block + 64 * half + 32 * (quarter & 1);
    const uint8_t* high = block + 128 + 32 * half;
    const auto* scales = reinterpret_cast<const int8_t*>(block + 192) + 8 * half + 2 * quarter;
    const float d = load_half(block + 208);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      g.words[i] = ((load_32(low + 4 * i) >> (quarter < 2 ? 0 : 4)) & 0x0f0f0f0fu) | (((load_32(high + 4 * i) >> (2 * quarter)) & 0x03030303u) << 4);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      g.scale[i] = d * static_cast<float>(scales[i]);
      g.offset[i] = -32.0f * g.scale[i];
    }
  } else {  // Q4_K, Q5_K: multiples of 16 bytes that begin at one
    constexpr bool kFive = kType == WeightType::kQ5_K;
    const uint8_t* block = row + (group / 8) * kBytes;
    const int s = static_cast<int>(group % 8);
    float scale, minimum;
    k_scale_min(s, block + 4, scale, minimum);
    g.scale[0] = g.scale[1] = load_half(block) * scale;
    g.offset[0] = g.offset[1] = -load_half(block + 2) * minimum;
    const auto* low = reinterpret_cast<const uint4*>(block + (kFive ? 48 : 16) + 32 * (s / 2));
    const uint4 l[2] = {low[0], low[1]};
    uint4 h[2] = {};
    if constexpr (kFive) {
      h[0] = reinterpret_cast<const uint4*>(block + 16)[0];
      h[1] = reinterpret_cast<const uint4*>(block + 16)[1];
    }
    const uint32_t nibbles[8] = {l[0].x, l[0].y, l[0].z, l[0].w, l[1].x, l[1].y, l[1].z, l[1].w};
    const uint32_t bits[8] = {h[0].x, h[0].y, h[0].z, h[0].w, h[1].x, h[1].y, h[1].z, h[1].w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      g.words[i] = ((nibbles[i] >> (4 * (s & 1))) & 0x0f0f0f0fu) | (kFive ? ((bits[i] >> s) & 0x01010101u) << 4 : 0);
  }
  return g;
}

// Elements 32 * group .. + 31 of the row that begins at `row`; of kE4M3 without the row's scale.
template <WeightType kType>
__device__ inline void load_group(const uint8_t* row, int64_t group, float (&out)[kGroup]) {
  if constexpr (kType == WeightType::kBFloat16) {
    const auto* p = reinterpret_cast<const uint4*>(row + group * kGroup * 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float part[8];
      unpack_bf16x8(p[i], part);
#pragma unroll
      for (int j = 0; j < 8; ++j) out[8 * i + j] = part[j];
    }
  } else if constexpr (kType == WeightType::kE4M3) {
    const auto* p = reinterpret_cast<const uint2*>(row + group * kGroup);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float part[8];
      unpack_e4m3x8(p[i], part);
#pragma unroll
      for (int j = 0; j < 8; ++j) out[8 * i + j] = part[j];
    }
  } else {
    const Group g = load_quantized<kType>(row, group);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      out[4 * i] = fmaf(g.scale[i / 4], byte_to_float<0>(g.words[i]), g.offset[i / 4]);
      out[4 * i + 1] = fmaf(g.scale[i / 4], byte_to_float<1>(g.words[i]), g.offset[i / 4]);
      out[4 * i + 2] = fmaf(g.scale[i / 4], byte_to_float<2>(g.words[i]), g.offset[i / 4]);
      out[4 * i + 3] = fmaf(g.scale[i / 4], byte_to_float<3>(g.words[i]), g.offset[i / 4]);
    }
  }
}

// Calls body.template operator()<type>() for the type at run time; false where there is none.
template <typename Body>
bool for_type(WeightType type, const Body& body) {
  switch (type) {
    case WeightType::kQ4_0: body.template operator()<WeightType::kQ4_0>(); return true;
    case WeightType::kQ4_1: body.template operator()<WeightType::kQ4_1>(); return true;
    case WeightType::kQ5_0: body.template operator()<WeightType::kQ5_0>(); return true;
    case WeightType::kQ5_1: body.template operator()<WeightType::kQ5_1>(); return true;
    case WeightType::kQ8_0: body.template operator()<WeightType::kQ8_0>(); return true;
    case WeightType::kQ4_K: body.template operator()<WeightType::kQ4_K>(); return true;
    case WeightType::kQ5_K: body.template operator()<WeightType::kQ5_K>(); return true;
    case WeightType::kQ6_K: body.template operator()<WeightType::kQ6_K>(); return true;
    case WeightType::kBFloat16: body.template operator()<WeightType::kBFloat16>(); return true;
    case WeightType::kE4M3: body.template operator()<WeightType::kE4M3>(); return true;
  }
  return false;
}

}  // namespace longview::kernels
