// bf16 products by vdpbf16ps, two multiply-adds a lane with float32 accumulation, and what rounds their inputs to bf16.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/kernels_simd.h"

namespace longview::cpu {
namespace {

template <int kRows, int kCols>
inline void bf16_tile(int64_t pairs, const uint16_t* a, int64_t lda, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  __m512 acc[kRows][kCols];
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kCols; ++j) acc[i][j] = accumulate ? _mm512_loadu_ps(c + i * ldc + 16 * j) : _mm512_setzero_ps();
  for (int64_t p = 0; p < pairs; ++p) {
    __m512bh row[kCols];
#pragma GCC unroll 4
    for (int j = 0; j < kCols; ++j) row[j] = (__m512bh)_mm512_loadu_si512(b + p * ldb + 16 * j);
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i) {
      int32_t both;
      std::memcpy(&both, a + i * lda + 2 * p, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(both);
#pragma GCC unroll 4
      for (int j = 0; j < kCols; ++j) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], x, row[j]);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kCols; ++j) _mm512_storeu_ps(c + i * ldc + 16 * j, acc[i][j]);
}

template <int kCols>
inline void bf16_columns(int64_t m, int64_t pairs, const uint16_t* a, int64_t lda, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  int64_t i = 0;
  for (; i + 12 <= m; i += 12) bf16_tile<12, kCols>(pairs, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
  for (; i + 8 <= m; i += 8) bf16_tile<8, kCols>(pairs, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
  for (; i + 4 <= m; i += 4) bf16_tile<4, kCols>(pairs, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
  for (; i + 3 <= m; i += 3) bf16_tile<3, kCols>(pairs, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
  for (; i < m; ++i) bf16_tile<1, kCols>(pairs, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
}

// Kernels::gemm_bf16.
void gemm_bf16(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  int64_t j = 0;
  for (; j + 32 <= n; j += 32) bf16_columns<2>(m, k / 2, a, lda, b + j, ldb, c + j, ldc, accumulate);
  for (; j < n; j += 16) bf16_columns<1>(m, k / 2, a, lda, b + j, ldb, c + j, ldc, accumulate);
}

void convert_bf16(const float* source, uint16_t* destination, int64_t n, float scale) {
  int64_t i = 0;
  const __m512 factor = _mm512_set1_ps(scale);
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(destination + i), (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(source + i), factor)));
  if (i < n) {
    const __mmask16 tail = static_cast<__mmask16>((1u << (n - i)) - 1);
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_maskz_loadu_ps(tail, source + i), factor));
    _mm256_mask_storeu_epi16(destination + i, tail, rounded);
  }
}

// Kernels::softmax_step_bf16.
void softmax_step_bf16(const float* scores, int64_t n, float* maximum, float* sum, float* output, int64_t d, uint16_t* weights) {
  softmax_rows(scores, n, maximum, sum, output, d, [&](int64_t i, Vec weight) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + i), (__m256i)_mm512_cvtneps_pbh(weight));
  });
}

constexpr Kernels with_bf16_products(Kernels kernels, decltype(Kernels::gemm_bf16) gemm) {
  kernels.gemm_bf16 = gemm;
  kernels.to_bf16 = convert_bf16;
  kernels.softmax_step_bf16 = softmax_step_bf16;
  return kernels;
}

}  // namespace
}  // namespace longview::cpu
