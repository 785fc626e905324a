// Products of a block's codes with 32 of x (dot_int8.h) on aarch64 with dot products (Armv8.2): signed codes, 16 in a vector.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "cpu/kernels.h"
#include "model/quant_formats.h"

namespace longview::cpu {
namespace {

inline float half_at(const uint8_t* p) {
  __fp16 value;
  std::memcpy(&value, p, 2);
  return value;
}

// A block of 32: value = scale * (q - zero) + minimum.
struct Codes {
  int8x16_t q[2];
  float scale;
  int zero;
  float minimum;
};

inline int8x16_t low_nibbles(uint8x16_t bytes) { return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))); }
inline int8x16_t high_nibbles(uint8x16_t bytes) { return vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)); }

// 16 in each byte whose bit of `bits` is set.
inline int8x16_t fifth_bits(uint32_t bits) {
  const uint8x16_t select = vcombine_u8(vcreate_u8(0x8040201008040201ull), vcreate_u8(0x8040201008040201ull));
  const uint8x16_t spread = vcombine_u8(vdup_n_u8(static_cast<uint8_t>(bits)), vdup_n_u8(static_cast<uint8_t>(bits >> 8)));
  return vreinterpretq_s8_u8(vandq_u8(vtstq_u8(spread, select), vdupq_n_u8(16)));
}

// 16 bytes of nibbles by a table: the low ones first.
inline Codes look_up(const int8_t (&table)[16], const uint8_t* b, float scale) {
  const uint8x16_t bytes = vld1q_u8(b);
  const int8x16_t values = vld1q_s8(table);
  return {{vqtbl1q_s8(values, vandq_u8(bytes, vdupq_n_u8(15))), vqtbl1q_s8(values, vshrq_n_u8(bytes, 4))}, scale, 0, 0};
}

template <DType type>
inline Codes codes(const uint8_t* b) {
  if constexpr (type == DType::kIQ4_NL) return look_up(kIQ4Values, b + 2, half_at(b));
  if constexpr (type == DType::kMXFP4) return look_up(kMXFP4Values, b + 1, half_power(b[0]));
  constexpr bool kMinimum = type == DType::kQ4_1 || type == DType::kQ5_1, kFive = type == DType::kQ5_0 || type == DType::kQ5_1;
  const float scale = half_at(b), minimum = kMinimum ? half_at(b + 2) : 0;
  b += kMinimum ? 4 : 2;
  if constexpr (type == DType::kQ8_0) return {{vld1q_s8(reinterpret_cast<const int8_t*>(b)), vld1q_s8(reinterpret_cast<const int8_t*>(b + 16))}, scale, 0, 0};
  uint32_t bits = 0;
  if constexpr (kFive) {
    std::memcpy(&bits, b, 4);
    b += 4;
  }
  const uint8x16_t bytes = vld1q_u8(b);
  const int zero = kMinimum ? 0 : kFive ? 16 : 8;
  return {{vorrq_s8(low_nibbles(bytes), fifth_bits(bits)), vorrq_s8(high_nibbles(bytes), fifth_bits(bits >> 16))}, scale, zero, minimum};
}

// Sub-block s (of 8) of a Q4_K, Q5_K or IQ4_XS block; `minimum` comes out negated, as in value = scale * q - m.
template <DType type>
inline Codes k_codes(const uint8_t* b, int s) {
  if constexpr (type == DType::kIQ4_XS) return look_up(kIQ4Values, b + 8 + 16 * s, half_at(b) * static_cast<float>(iq4_xs_scale(s, b)));
  uint8_t scale, minimum;
  k_scale_min(s, b + 4, scale, minimum);
  const uint8_t* low = b + (type == DType::kQ5_K ? 48 : 16) + 32 * (s / 2);
  Codes out{{}, half_at(b) * static_cast<float>(scale), 0, -(half_at(b + 2) * static_cast<float>(minimum))};
  for (int i = 0; i < 2; ++i) {
    const uint8x16_t bytes = vld1q_u8(low + 16 * i);
    out.q[i] = s & 1 ? high_nibbles(bytes) : low_nibbles(bytes);
    if constexpr (type == DType::kQ5_K) {
      const uint8x16_t bit = vandq_u8(vshlq_u8(vld1q_u8(b + 16 + 16 * i), vdupq_n_s8(static_cast<int8_t>(-s))), vdupq_n_u8(1));
      out.q[i] = vorrq_s8(out.q[i], vreinterpretq_s8_u8(vshlq_n_u8(bit, 4)));
    }
  }
  return out;
}

struct Int8Sum {
  float32x4_t products = vdupq_n_f32(0);
  float offsets = 0;

  inline void add_block(const Codes& c, const int8_t* x, float x_scale, float x_sum) {
    const int32x4_t product = vdotq_s32(vdotq_s32(vdupq_n_s32(0), c.q[0], vld1q_s8(x)), c.q[1], vld1q_s8(x + 16));
    products = vfmaq_n_f32(products, vcvtq_f32_s32(product), c.scale * x_scale);
    offsets += (c.minimum - c.scale * static_cast<float>(c.zero)) * x_sum;
  }
  inline float total() const { return vaddvq_f32(products) + offsets; }
};

// 16 codes of sub-block s (of 8) of a Q3_K or Q6_K block: those of one of its two scales.
template <DType type>
inline int8x16_t sixteens(const uint8_t* b, int s, int side) {
  const int half = s / 4, quarter = s % 4;
  const auto bits = [](uint8x16_t bytes, int shift, int mask) { return vandq_u8(vshlq_u8(bytes, vdupq_n_s8(static_cast<int8_t>(-shift))), vdupq_n_u8(static_cast<uint8_t>(mask))); };
  if constexpr (type == DType::kQ3_K) {
    const uint8x16_t low = bits(vld1q_u8(b + 32 + 32 * half + 16 * side), 2 * quarter, 3), high = bits(vld1q_u8(b + 16 * side), s, 1);
    return vreinterpretq_s8_u8(vorrq_u8(low, vshlq_n_u8(high, 2)));
  } else {
    const uint8x16_t low = vld1q_u8(b + 64 * half + 32 * (quarter & 1) + 16 * side), top = bits(vld1q_u8(b + 128 + 32 * half + 16 * side), 2 * quarter, 3);
    return vorrq_s8(quarter < 2 ? low_nibbles(low) : high_nibbles(low), vreinterpretq_s8_u8(vshlq_n_u8(top, 4)));
  }
}

// Two scales for a block of 32. x [T, n], scales [T, n/32].
template <DType type, int T>
inline void dots_sixteens(const uint8_t* b, const int8_t* x, const float* scales, int64_t n, float* out) {
  using Format = Sixteens<type>;
  float32x4_t products[T];
  for (float32x4_t& sum : products) sum = vdupq_n_f32(0);
  for (int64_t i = 0; i < n / 32; i += 8, b += Format::kBytes) {
    const float d = half_at(b + Format::kScale);
    for (int s = 0; s < 8; ++s) {
      for (int side = 0; side < 2; ++side) {
        const int8x16_t q = vsubq_s8(sixteens<type>(b, s, side), vdupq_n_s8(Format::kZero));
        const auto block_scale = static_cast<float>(Format::scale(2 * s + side, b));
        for (int t = 0; t < T; ++t) {
          const int32x4_t product = vdotq_s32(vdupq_n_s32(0), q, vld1q_s8(x + t * n + 32 * (i + s) + 16 * side));
          products[t] = vfmaq_n_f32(products[t], vcvtq_f32_s32(product), d * scales[t * (n / 32) + i + s] * block_scale);
        }
      }
    }
  }
  for (int t = 0; t < T; ++t) out[t] = vaddvq_f32(products[t]);
}

}  // namespace
}  // namespace longview::cpu
