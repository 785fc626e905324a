// C = A B of many tokens with a quantised weight, as 16-bit codes (Kernels::gemm_int16). A weight's codes are whole numbers as they are
// stored, so that only x is rounded, to 14 bits of the largest of 32: much less than bf16 rounds both, at two multiply-adds a lane
// like its products. Sums over a block of 32 are integers; scales, which are a block's own on both sides, are applied to them.
#pragma once

#include "cpu/dot_int8.h"
#include "cpu/kernels_simd.h"

namespace longview::cpu {
namespace {

// Tiles whose integers, floats and a pair of weights stay in registers.
#if defined(__AVX512F__)

using Sums = __m512i;
constexpr int kCodeRows = 6;
inline Sums all_of(int32_t x) { return _mm512_set1_epi32(x); }
inline Vec to_float(Sums s) { return _mm512_cvtepi32_ps(s); }
inline Sums load_codes(const int16_t* p) { return _mm512_loadu_si512(p); }
inline Sums add_products(Sums sum, Sums weights, Sums x) { return _mm512_dpwssd_epi32(sum, weights, x); }

#else

using Sums = __m256i;
constexpr int kCodeRows = 3;
inline Sums all_of(int32_t x) { return _mm256_set1_epi32(x); }
inline Vec to_float(Sums s) { return _mm256_cvtepi32_ps(s); }
inline Sums load_codes(const int16_t* p) { return load256(p); }
inline Sums add_products(Sums sum, Sums weights, Sums x) { return _mm256_dpwssd_avx_epi32(sum, weights, x); }

#endif

constexpr int kCodeCols = 2;
constexpr int kPairs = 16;  // of a block

// Two codes of x in every lane.
inline Sums two_codes(const int16_t* x) {
  int32_t both;
  std::memcpy(&both, x, 4);
  return all_of(both);
}

// Rows first .. first + kRows of A times columns column .. column + kCols kWidth of B.
template <int kRows, int kCols, bool kMinimums>
inline void code_tile(int64_t blocks, const CodeRows& a, int64_t first, const CodePanel& b, int64_t column, float* c, int64_t ldc) {
  const int64_t lda = 32 * blocks;
  const int16_t* x = a.codes + first * lda;
  const float* x_scales = a.scales + first * blocks;
  const int32_t* x_sums = a.sums + first * blocks;
  const int16_t* codes = b.codes + 2 * column;
  Vec out[kRows][kCols];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kCols; ++j) out[i][j] = zero();
  for (int64_t block = 0; block < blocks; ++block) {
    Sums sums[kRows][kCols];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kCols; ++j) sums[i][j] = all_of(0);
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p, codes += 2 * b.ld) {
      Sums weights[kCols];
#pragma GCC unroll 4
      for (int j = 0; j < kCols; ++j) weights[j] = load_codes(codes + 2 * j * kWidth);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const Sums two = two_codes(x + i * lda + 32 * block + 2 * p);
#pragma GCC unroll 4
        for (int j = 0; j < kCols; ++j) sums[i][j] = add_products(sums[i][j], weights[j], two);
      }
    }
    Vec scales[kCols], minimums[kCols];
#pragma GCC unroll 4
    for (int j = 0; j < kCols; ++j) {
      scales[j] = load(b.scales + block * b.ld + column + j * kWidth);
      if constexpr (kMinimums) minimums[j] = load(b.minimums + block * b.ld + column + j * kWidth);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const float scale = x_scales[i * blocks + block];
#pragma GCC unroll 4
      for (int j = 0; j < kCols; ++j) {
        out[i][j] = fma(to_float(sums[i][j]), mul(scales[j], set1(scale)), out[i][j]);
        if constexpr (kMinimums) out[i][j] = fma(minimums[j], set1(scale * static_cast<float>(x_sums[i * blocks + block])), out[i][j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kCols; ++j) store(c + (first + i) * ldc + column + j * kWidth, out[i][j]);
}

template <int kCols, bool kMinimums>
inline void code_columns(int64_t m, int64_t blocks, const CodeRows& a, const CodePanel& b, int64_t column, float* c, int64_t ldc) {
  int64_t i = 0;
  for (; i + kCodeRows <= m; i += kCodeRows) code_tile<kCodeRows, kCols, kMinimums>(blocks, a, i, b, column, c, ldc);
  for (; i + 2 <= m; i += 2) code_tile<2, kCols, kMinimums>(blocks, a, i, b, column, c, ldc);
  for (; i < m; ++i) code_tile<1, kCols, kMinimums>(blocks, a, i, b, column, c, ldc);
}

template <bool kMinimums>
inline void code_products(int64_t m, int64_t n, int64_t blocks, const CodeRows& a, const CodePanel& b, float* c, int64_t ldc) {
  constexpr int64_t kStep = kCodeCols * kWidth;
  int64_t j = 0;
  for (; j + kStep <= n; j += kStep) code_columns<kCodeCols, kMinimums>(m, blocks, a, b, j, c, ldc);
  for (; j < n; j += kWidth) code_columns<1, kMinimums>(m, blocks, a, b, j, c, ldc);
}

// Kernels::gemm_int16.
void gemm_int16(int64_t m, int64_t n, int64_t k, const CodeRows& a, const CodePanel& b, float* c, int64_t ldc) {
  if (b.minimums) code_products<true>(m, n, k / 32, a, b, c, ldc);
  else code_products<false>(m, n, k / 32, a, b, c, ldc);
}

// --- weights ---------------------------------------------------------------------------------------------------------------

inline void store_codes(__m256i low, __m256i high, int16_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), high);
}

inline __m256i low_half(__m256i bytes) { return _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes)); }
inline __m256i high_half(__m256i bytes) { return _mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes, 1)); }

inline void unpack(const Codes& from, int16_t* out, float& scale, float& minimum) {
  const __m256i zero_code = _mm256_set1_epi16(static_cast<int16_t>(from.zero));
  store_codes(_mm256_sub_epi16(low_half(from.q), zero_code), _mm256_sub_epi16(high_half(from.q), zero_code), out);
  scale = from.scale;
  minimum = from.minimum;
}

template <DType type>
void unpack_32(const uint8_t* b, int16_t* out, float* scales, float* minimums, int64_t n, int64_t block_bytes) {
  for (int64_t i = 0; i < n / 32; ++i, b += block_bytes) unpack(codes<type>(b), out + 32 * i, scales[i], minimums[i]);
}

template <DType type>
void unpack_k(const uint8_t* b, int16_t* out, float* scales, float* minimums, int64_t n, int64_t block_bytes) {
  for (int64_t i = 0; i < n / 32; i += 8, b += block_bytes)
    for (int s = 0; s < 8; ++s) unpack(k_codes<type>(b, s), out + 32 * (i + s), scales[i + s], minimums[i + s]);
}

// Scales for sixteen values are whole numbers too: their products with codes, at most 4,096 of Q6_K and 128 of Q3_K, are the codes here.
template <DType type>
void unpack_sixteens(const uint8_t* b, int16_t* out, float* scales, int64_t n) {
  using Format = Sixteens<type>;
  for (int64_t i = 0; i < n / 32; i += 8, b += Format::kBytes) {
    for (int s = 0; s < 8; ++s) {
      const __m256i q = sixteens<type>(b, s), zero_code = _mm256_set1_epi16(Format::kZero);
      const auto scale = [&](int half) { return _mm256_set1_epi16(static_cast<int16_t>(Format::scale(2 * s + half, b))); };
      store_codes(_mm256_mullo_epi16(_mm256_sub_epi16(low_half(q), zero_code), scale(0)), _mm256_mullo_epi16(_mm256_sub_epi16(high_half(q), zero_code), scale(1)), out + 32 * (i + s));
      scales[i + s] = half_at(b + Format::kScale);
    }
  }
}

// Kernels::unpack_codes.
bool unpack_codes(DType type, const std::byte* row, int16_t* out, float* scales, float* minimums, int64_t n) {
  const auto* b = reinterpret_cast<const uint8_t*>(row);
  const int64_t bytes = format_of(type).block_bytes;
  switch (type) {
    case DType::kQ8_0: unpack_32<DType::kQ8_0>(b, out, scales, minimums, n, bytes); return false;
    case DType::kQ4_0: unpack_32<DType::kQ4_0>(b, out, scales, minimums, n, bytes); return false;
    case DType::kQ5_0: unpack_32<DType::kQ5_0>(b, out, scales, minimums, n, bytes); return false;
    case DType::kQ4_1: unpack_32<DType::kQ4_1>(b, out, scales, minimums, n, bytes); return true;
    case DType::kQ5_1: unpack_32<DType::kQ5_1>(b, out, scales, minimums, n, bytes); return true;
    case DType::kQ4_K: unpack_k<DType::kQ4_K>(b, out, scales, minimums, n, bytes); return true;
    case DType::kQ5_K: unpack_k<DType::kQ5_K>(b, out, scales, minimums, n, bytes); return true;
    case DType::kIQ4_NL: unpack_32<DType::kIQ4_NL>(b, out, scales, minimums, n, bytes); return false;
    case DType::kIQ4_XS: unpack_k<DType::kIQ4_XS>(b, out, scales, minimums, n, bytes); return false;
    case DType::kMXFP4: unpack_32<DType::kMXFP4>(b, out, scales, minimums, n, bytes); return false;
    case DType::kQ3_K: unpack_sixteens<DType::kQ3_K>(b, out, scales, n); return false;
    default: unpack_sixteens<DType::kQ6_K>(b, out, scales, n); return false;
  }
}

void quantize_row16(const float* x, int16_t* codes, float* scales, int32_t* sums, int64_t n) { quantize_blocks<8191>(x, codes, scales, sums, n); }

constexpr Kernels with_int16_products(Kernels kernels) {
  kernels.quantize_row16 = quantize_row16;
  kernels.gemm_int16 = gemm_int16;
  kernels.unpack_codes = unpack_codes;
  return kernels;
}

}  // namespace
}  // namespace longview::cpu
