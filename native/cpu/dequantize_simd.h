// Vector dequantisation, included by the AVX files: integer codes of a block of 32, then scale and offset, in the order of
// operations of quant_formats.cpp so that the results are the same bit for bit.
#pragma once

#include "cpu/simd.h"
#include "model/quant_formats.h"

#if defined(__AVX2__)

namespace longview::cpu {
namespace {

inline float half_at(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return _cvtsh_ss(bits);
}

inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// 32 nibbles of 16 bytes: the low ones first.
inline __m256i nibbles(const uint8_t* p) {
  const __m128i bytes = load128(p);
  return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), _mm256_set1_epi8(15));
}

// 16 in each byte whose bit of `bits` is set.
inline __m256i fifth_bits(uint32_t bits) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  return _mm256_maskz_set1_epi8(bits, 16);
#else
  const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)),
                                             _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0));
  const __m256i select = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201ull));
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, select), select), _mm256_set1_epi8(16));
#endif
}

// A block of 32 as unsigned codes q with value = scale * (q - zero) + minimum.
struct Codes {
  __m256i q;
  float scale;
  int zero;
  float minimum;
};

inline uint32_t load_u32(const uint8_t* p) {
  uint32_t bits;
  std::memcpy(&bits, p, 4);
  return bits;
}

// What nibbles stand for by a table, `zero` more than it.
inline __m256i look_up(const int8_t (&table)[16], int zero, __m256i nibbles) {
  const __m256i values = _mm256_add_epi8(_mm256_broadcastsi128_si256(load128(table)), _mm256_set1_epi8(static_cast<char>(zero)));
  return _mm256_shuffle_epi8(values, nibbles);
}

template <DType type>
inline Codes codes(const uint8_t* b) {
  if constexpr (type == DType::kIQ4_NL) return {look_up(kIQ4Values, 128, nibbles(b + 2)), half_at(b), 128, 0};
  else if constexpr (type == DType::kMXFP4) return {look_up(kMXFP4Values, 12, nibbles(b + 1)), half_power(b[0]), 12, 0};
  else if constexpr (type == DType::kQ8_0) return {_mm256_xor_si256(load256(b + 2), _mm256_set1_epi8(-128)), half_at(b), 128, 0};
  else if constexpr (type == DType::kQ4_0) return {nibbles(b + 2), half_at(b), 8, 0};
  else if constexpr (type == DType::kQ4_1) return {nibbles(b + 4), half_at(b), 0, half_at(b + 2)};
  else if constexpr (type == DType::kQ5_0) return {_mm256_or_si256(nibbles(b + 6), fifth_bits(load_u32(b + 2))), half_at(b), 16, 0};
  else return {_mm256_or_si256(nibbles(b + 8), fifth_bits(load_u32(b + 4))), half_at(b), 0, half_at(b + 2)};
}

// Sub-block s (of 8) of a Q4_K, Q5_K or IQ4_XS block; `minimum` comes out negated, as in value = scale * q - m.
template <DType type>
inline Codes k_codes(const uint8_t* b, int s) {
  if constexpr (type == DType::kIQ4_XS) return {look_up(kIQ4Values, 128, nibbles(b + 8 + 16 * s)), half_at(b) * static_cast<float>(iq4_xs_scale(s, b)), 128, 0};
  uint8_t scale, minimum;
  k_scale_min(s, b + 4, scale, minimum);
  const uint8_t* low = b + (type == DType::kQ5_K ? 48 : 16) + 32 * (s / 2);
  const __m256i bytes = load256(low);
  __m256i q = _mm256_and_si256(s & 1 ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
  if constexpr (type == DType::kQ5_K) {
    const __m256i bit = _mm256_and_si256(_mm256_srl_epi16(load256(b + 16), _mm_cvtsi32_si128(s)), _mm256_set1_epi8(1));
    q = _mm256_or_si256(q, _mm256_slli_epi16(bit, 4));
  }
  return {q, half_at(b) * static_cast<float>(scale), 0, -(half_at(b + 2) * static_cast<float>(minimum))};
}

// Sub-block s (of 8) of a Q3_K or Q6_K block, which has two scales.
template <DType type>
inline __m256i sixteens(const uint8_t* b, int s) {
  const int half = s / 4, quarter = s % 4;
  if constexpr (type == DType::kQ3_K) {
    const __m256i low = _mm256_and_si256(_mm256_srl_epi16(load256(b + 32 + 32 * half), _mm_cvtsi32_si128(2 * quarter)), _mm256_set1_epi8(3));
    const __m256i high = _mm256_and_si256(_mm256_srl_epi16(load256(b), _mm_cvtsi32_si128(s)), _mm256_set1_epi8(1));
    return _mm256_or_si256(low, _mm256_slli_epi16(high, 2));
  } else {
    const __m256i low = load256(b + 64 * half + 32 * (quarter & 1));
    const __m256i nibble = _mm256_and_si256(quarter < 2 ? low : _mm256_srli_epi16(low, 4), _mm256_set1_epi8(15));
    const __m256i high = _mm256_and_si256(_mm256_srl_epi16(load256(b + 128 + 32 * half), _mm_cvtsi32_si128(2 * quarter)), _mm256_set1_epi8(3));
    return _mm256_or_si256(nibble, _mm256_slli_epi16(high, 4));
  }
}

// out[i] = scale * (q[i] - zero) + minimum for 16 codes.
inline void write16(__m128i q, float scale, int zero_point, float minimum, bool has_minimum, float* out) {
#if defined(__AVX512F__)
  __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(q), _mm512_set1_epi32(zero_point)));
  v = mul(v, set1(scale));
  store(out, has_minimum ? add(v, set1(minimum)) : v);
#else
  for (int i = 0; i < 2; ++i, q = _mm_srli_si128(q, 8)) {
    __m256 v = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(q), _mm256_set1_epi32(zero_point)));
    v = mul(v, set1(scale));
    store(out + 8 * i, has_minimum ? add(v, set1(minimum)) : v);
  }
#endif
}

inline void write32(const Codes& c, bool has_minimum, float* out) {
  write16(_mm256_castsi256_si128(c.q), c.scale, c.zero, c.minimum, has_minimum, out);
  write16(_mm256_extracti128_si256(c.q, 1), c.scale, c.zero, c.minimum, has_minimum, out + 16);
}

template <DType type>
void dequantize_32(const uint8_t* b, float* out, int64_t n, int64_t block_bytes, bool has_minimum) {
  for (int64_t i = 0; i < n; i += 32, b += block_bytes) write32(codes<type>(b), has_minimum, out + i);
}

template <DType type>
void dequantize_k(const uint8_t* b, float* out, int64_t n, int64_t block_bytes, bool has_minimum) {
  for (int64_t i = 0; i < n; i += 256, b += block_bytes)
    for (int s = 0; s < 8; ++s) write32(k_codes<type>(b, s), has_minimum, out + i + 32 * s);
}

template <DType type>
void dequantize_sixteens(const uint8_t* b, float* out, int64_t n) {
  using Format = Sixteens<type>;
  for (int64_t i = 0; i < n; i += 256, b += Format::kBytes) {
    const float d = half_at(b + Format::kScale);
    for (int s = 0; s < 8; ++s) {
      const __m256i q = sixteens<type>(b, s);
      write16(_mm256_castsi256_si128(q), d * static_cast<float>(Format::scale(2 * s, b)), Format::kZero, 0, false, out + i + 32 * s);
      write16(_mm256_extracti128_si256(q, 1), d * static_cast<float>(Format::scale(2 * s + 1, b)), Format::kZero, 0, false, out + i + 32 * s + 16);
    }
  }
}

inline void widen_f16(const uint8_t* b, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(load128(b + 2 * i)));
  for (; i < n; ++i) out[i] = half_at(b + 2 * i);
}

inline void widen_bf16(const uint8_t* b, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(b + 2 * i)), 16)));
  for (; i < n; ++i) {
    uint32_t bits = static_cast<uint32_t>(b[2 * i] | (b[2 * i + 1] << 8)) << 16;
    std::memcpy(out + i, &bits, 4);
  }
}

void dequantize_simd(DType type, const std::byte* source, float* out, int64_t n) {
  const auto* b = reinterpret_cast<const uint8_t*>(source);
  switch (type) {
    case DType::kF32: std::memcpy(out, b, static_cast<size_t>(n) * 4); return;
    case DType::kF16: return widen_f16(b, out, n);
    case DType::kBF16: return widen_bf16(b, out, n);
    case DType::kQ8_0: return dequantize_32<DType::kQ8_0>(b, out, n, 34, false);
    case DType::kQ4_0: return dequantize_32<DType::kQ4_0>(b, out, n, 18, false);
    case DType::kQ4_1: return dequantize_32<DType::kQ4_1>(b, out, n, 20, true);
    case DType::kQ5_0: return dequantize_32<DType::kQ5_0>(b, out, n, 22, false);
    case DType::kQ5_1: return dequantize_32<DType::kQ5_1>(b, out, n, 24, true);
    case DType::kQ3_K: return dequantize_sixteens<DType::kQ3_K>(b, out, n);
    case DType::kQ4_K: return dequantize_k<DType::kQ4_K>(b, out, n, 144, true);
    case DType::kQ5_K: return dequantize_k<DType::kQ5_K>(b, out, n, 176, true);
    case DType::kQ6_K: return dequantize_sixteens<DType::kQ6_K>(b, out, n);
    case DType::kIQ4_NL: return dequantize_32<DType::kIQ4_NL>(b, out, n, 18, false);
    case DType::kIQ4_XS: return dequantize_k<DType::kIQ4_XS>(b, out, n, 136, false);
    case DType::kMXFP4: return dequantize_32<DType::kMXFP4>(b, out, n, 17, false);
  }
}

}  // namespace
}  // namespace longview::cpu

#endif
