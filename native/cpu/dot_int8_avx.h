// Products of a block's codes with 32 of x (dot_int8.h) by AVX2, and by AVX-512's dot products where they are.
#pragma once

#include "cpu/dequantize_simd.h"

namespace longview::cpu {
namespace {

// Eight partial sums of 32 products of unsigned q and signed x.
inline __m256i dot32(__m256i q, __m256i x) {
#if defined(__AVX512VNNI__)
  return _mm256_dpbusd_epi32(_mm256_setzero_si256(), q, x);
#elif defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), q, x);
#else
  // maddubs saturates at 16 bits: codes above 127 would overflow, so their top bit is taken apart.
  const __m256i low = _mm256_and_si256(q, _mm256_set1_epi8(127));
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(q, 7), _mm256_set1_epi8(1));
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i sum_low = _mm256_madd_epi16(_mm256_maddubs_epi16(low, x), ones);
  const __m256i sum_high = _mm256_madd_epi16(_mm256_maddubs_epi16(high, x), ones);
  return _mm256_add_epi32(sum_low, _mm256_slli_epi32(sum_high, 7));
#endif
}

struct Int8Sum {
  __m256 products = _mm256_setzero_ps();
  float offsets = 0;

  inline void add_block(const Codes& c, const int8_t* x, float x_scale, float x_sum) {
    const __m256 product = _mm256_cvtepi32_ps(dot32(c.q, load256(x)));
    products = _mm256_fmadd_ps(product, _mm256_set1_ps(c.scale * x_scale), products);
    offsets += (c.minimum - c.scale * static_cast<float>(c.zero)) * x_sum;
  }
  inline float total() const {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(products), _mm256_extractf128_ps(products, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half))) + offsets;
  }
};

// Two scales for a block of 32, whose halves get factors of their own. x [T, n], scales [T, n/32].
template <DType type, int T>
inline void dots_sixteens(const uint8_t* b, const int8_t* x, const float* scales, int64_t n, float* out) {
  using Format = Sixteens<type>;
  Int8Sum sum[T];
  for (int64_t i = 0; i < n / 32; i += 8, b += Format::kBytes) {
    const float d = half_at(b + Format::kScale);
    for (int s = 0; s < 8; ++s) {
      // Signed codes: |q| goes with x * sign(q).
      const __m256i q = _mm256_sub_epi8(sixteens<type>(b, s), _mm256_set1_epi8(Format::kZero)), size = _mm256_abs_epi8(q);
      const auto low = static_cast<float>(Format::scale(2 * s, b)), high = static_cast<float>(Format::scale(2 * s + 1, b));
      for (int t = 0; t < T; ++t) {
        const __m256i product = dot32(size, _mm256_sign_epi8(load256(x + t * n + 32 * (i + s)), q));
        const float scale = d * scales[t * (n / 32) + i + s];
        const __m256 factor = _mm256_set_m128(_mm_set1_ps(scale * high), _mm_set1_ps(scale * low));
        sum[t].products = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), factor, sum[t].products);
      }
    }
  }
  for (int t = 0; t < T; ++t) out[t] = sum[t].total();
}

}  // namespace
}  // namespace longview::cpu
