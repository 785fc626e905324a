// The float32 kernels in terms of simd.h: included once by each instruction set's file.
#pragma once

#include <bit>

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace longview::cpu {
namespace {

// --- C = A B, register-tiled: kRows rows by kCols vectors stay in registers over the whole of k. ---------------------------

template <int kRows, int kCols>
inline void gemm_tile(int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  Vec acc[kRows][kCols];
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) acc[i][j] = accumulate ? load(c + i * ldc + j * kWidth) : zero();
  for (int64_t p = 0; p < k; ++p) {
    Vec row[kCols];
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) row[j] = load(b + p * ldb + j * kWidth);
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i) {
      const Vec x = set1(a[i * lda + p]);
#pragma GCC unroll 8
      for (int j = 0; j < kCols; ++j) acc[i][j] = fma(x, row[j], acc[i][j]);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) store(c + i * ldc + j * kWidth, acc[i][j]);
}

// Tiles that fill the register file: 32 vectors with AVX-512 and NEON, 16 with AVX2.
#if defined(__AVX512F__)
constexpr int kTileRows = 12, kTileCols = 2;
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kTileCols = 2;
#elif defined(LONGVIEW_NEON)
constexpr int kTileRows = 6, kTileCols = 4;
#else
constexpr int kTileRows = 4, kTileCols = 4;
#endif

template <int kCols>
inline void gemm_columns(int64_t m, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  int64_t i = 0;
  for (; i + kTileRows <= m; i += kTileRows) gemm_tile<kTileRows, kCols>(k, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
  for (; i + 3 <= m; i += 3) gemm_tile<3, kCols>(k, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
  for (; i < m; ++i) gemm_tile<1, kCols>(k, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
}

void gemm_f32(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  int64_t j = 0;
  constexpr int64_t kStep = kTileCols * kWidth;
  for (; j + kStep <= n; j += kStep) gemm_columns<kTileCols>(m, k, a, lda, b + j, ldb, c + j, ldc, accumulate);
  for (; j < n; j += kWidth) gemm_columns<1>(m, k, a, lda, b + j, ldb, c + j, ldc, accumulate);
}

// --- vectors --------------------------------------------------------------------------------------------------------------

float dot(const float* a, const float* b, int64_t n) {
  Vec acc[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[j] = fma(load(a + i + j * kWidth), load(b + i + j * kWidth), acc[j]);
  for (; i + kWidth <= n; i += kWidth) acc[0] = fma(load(a + i), load(b + i), acc[0]);
  float total = sum(add(add(acc[0], acc[1]), add(acc[2], acc[3])));
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

inline uint16_t round_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

void to_bf16(const float* source, uint16_t* destination, int64_t n, float scale) {
  for (int64_t i = 0; i < n; ++i) destination[i] = round_to_bf16(source[i] * scale);
}

void widen_pairs(const uint32_t* pairs, int64_t rows, int64_t cols, int64_t ld, float* out, int64_t ldo) {
  for (int64_t i = 0; i < rows; ++i) {
    const uint32_t* in = pairs + i * ld;
    auto* even = reinterpret_cast<uint32_t*>(out + 2 * i * ldo);
    auto* odd = reinterpret_cast<uint32_t*>(out + (2 * i + 1) * ldo);
    for (int64_t j = 0; j < cols; ++j) {
      even[j] = in[j] << 16;
      odd[j] = in[j] & 0xffff0000u;
    }
  }
}

void widen_pairs_of_codes(const int16_t* codes, const float* even, const float* odd, const float* base, int64_t n, uint32_t* out) {
  const float first = base[0], second = base[1];
  for (int64_t j = 0; j < n; ++j) {
    const int32_t pair = codes[j];
    const auto low = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(pair) << 24) >> 24) * even[j] + first);
    const auto high = std::bit_cast<uint32_t>(static_cast<float>(pair >> 8) * odd[j] + second);
    // A quiet NaN with no other bits survives the rounding: no branch, so that the loop becomes vectors.
    out[j] = (low + 0x7fffu + (low >> 16 & 1u)) >> 16 | ((high + 0x7fffu + (high >> 16 & 1u)) & 0xffff0000u);
  }
}

void widen_codes(const int16_t* codes, const float* even, const float* odd, const float* base, int64_t n, float* out_even, float* out_odd) {
  const float first = base[0], second = base[1];
  for (int64_t j = 0; j < n; ++j) {
    const int32_t pair = codes[j];
    out_even[j] = static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(pair) << 24) >> 24) * even[j] + first;
    out_odd[j] = static_cast<float>(pair >> 8) * odd[j] + second;
  }
}

void split_codes(const uint8_t* first, const uint8_t* second, int64_t n, int16_t* low, int16_t* high) {
  for (int64_t j = 0; j < n; ++j) {
    const auto a = static_cast<uint16_t>(first[j]), b = static_cast<uint16_t>(second[j]);
    // Bytes of code + 120, whose top bit is turned: code - 8, without a borrow from one to the other.
    low[j] = static_cast<int16_t>(static_cast<uint16_t>(((a & 15) | (b & 15) << 8) + 0x7878) ^ 0x8080);
    high[j] = static_cast<int16_t>(static_cast<uint16_t>((a >> 4 | (b >> 4) << 8) + 0x7878) ^ 0x8080);
  }
}

void transpose16(const uint32_t* in, int64_t ldi, int64_t cols, uint32_t* out, int64_t ldo) {
  int64_t j = 0;
#if defined(__AVX512F__)
  for (; j + 16 <= cols; j += 16) {
    __m512i r[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(in + i * ldi + j);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
      r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
      r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
      r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
      t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
      t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      _mm512_storeu_si512(out + (j + i) * ldo, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
      _mm512_storeu_si512(out + (j + 4 + i) * ldo, _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88));
      _mm512_storeu_si512(out + (j + 8 + i) * ldo, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
      _mm512_storeu_si512(out + (j + 12 + i) * ldo, _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd));
    }
  }
#endif
  for (; j < cols; ++j)
    for (int i = 0; i < 16; ++i) out[j * ldo + i] = in[i * ldi + j];
}

// keep(i, weights) takes the weights of scores i .. i + kWidth - 1 relative to one of `highest`; returns their sum.
template <typename Keep>
inline float to_weights(const float* scores, int64_t n, float highest, Keep keep) {
  Vec total = zero();
  for (int64_t i = 0; i < n; i += kWidth) {
    const Vec weight = exp2(sub(load(scores + i), set1(highest)));
    total = add(total, weight);
    keep(i, weight);
  }
  return sum(total);
}

template <typename Keep>
inline void softmax_rows(const float* scores, int64_t n, float* maximum, float* total, float* output, int64_t d, Keep keep) {
  Vec peak = set1(-__builtin_inff());
  for (int64_t i = 0; i < n; i += kWidth) peak = max(load(scores + i), peak);  // of what are numbers
  const float old = *maximum, seen = largest(peak);
  const float now = seen > old ? seen : old;
  if (now > old) {
    float factors[kWidth];
    store(factors, exp2(set1(old - now)));
    const float factor = old == -__builtin_inff() ? 0.0f : factors[0];
    *total *= factor;
    for (int64_t i = 0; i < d; i += kWidth) store(output + i, mul(load(output + i), set1(factor)));
    *maximum = now;
  }
  *total += to_weights(scores, n, now == -__builtin_inff() ? 0.0f : now, keep);  // nothing visible yet weighs nothing
}

void softmax_step(float* scores, int64_t n, float* maximum, float* total, float* output, int64_t d) {
  softmax_rows(scores, n, maximum, total, output, d, [&](int64_t i, Vec weight) { store(scores + i, weight); });
}

float weigh_means(const float* scores, const float* spreads, float gain, float most, int64_t n, float* weights) {
  Vec peak = set1(-__builtin_inff());
  for (int64_t i = 0; i < n; i += kWidth) {
    const Vec score = add(load(scores + i), min(mul(load(spreads + i), set1(gain)), set1(most)));
    peak = max(score, peak);
    store(weights + i, score);
  }
  return to_weights(weights, n, largest(peak), [&](int64_t i, Vec weight) { store(weights + i, weight); });
}

void rms_norm(const float* x, const float* weight, float epsilon, float* y, int64_t n) {
  const float scale = 1.0f / __builtin_sqrtf(dot(x, x, n) / static_cast<float>(n) + epsilon);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(y + i, mul(mul(load(x + i), set1(scale)), load(weight + i)));
  for (; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

// 1 + e^-x. The exponent is bounded, so that it stays finite.
inline Vec one_and_exp_minus(Vec x) { return add(set1(1.0f), exp2(mul(max(x, set1(-87.0f)), set1(-1.44269504f)))); }

// gate / (1 + e^-(gate * (linear + cubic * gate^2))) * up. The square is bounded, so that a cubic of 0 leaves nothing of it.
inline Vec gate_mul_vec(Vec gate, Vec up, Vec linear, Vec cubic) {
  const Vec square = min(mul(gate, gate), set1(1e30f));
  return mul(div(gate, one_and_exp_minus(mul(gate, fma(cubic, square, linear)))), up);
}

// x = f(x, y) for n elements.
template <typename F>
inline void each_pair(float* x, const float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(x + i, f(load(x + i), load(y + i)));
  if (i < n) {
    float a[kWidth] = {}, b[kWidth] = {};
    std::memcpy(a, x + i, static_cast<size_t>(n - i) * sizeof(float));
    std::memcpy(b, y + i, static_cast<size_t>(n - i) * sizeof(float));
    store(a, f(load(a), load(b)));
    std::memcpy(x + i, a, static_cast<size_t>(n - i) * sizeof(float));
  }
}

void gate_mul(float* gate, const float* up, GateCurve curve, int64_t n) {
  const Vec linear = set1(curve.linear), cubic = set1(curve.cubic);
  each_pair(gate, up, n, [&](Vec g, Vec u) { return gate_mul_vec(g, u, linear, cubic); });
}

void sigmoid_mul(float* x, const float* gate, int64_t n) {
  each_pair(x, gate, n, [](Vec v, Vec g) { return div(v, one_and_exp_minus(g)); });
}

// S stays in the first-level cache over all tokens. Four sums of each kind run side by side.
void delta_rule(const DeltaRule& r) {
  constexpr int kCols = 16, kVecs = kCols / kWidth, kSums = 4;
  alignas(64) float s[128 * kCols];
  for (int64_t i = 0; i < r.d; ++i) std::memcpy(s + i * kCols, r.before + i * r.d, kCols * sizeof(float));
  const auto total = [](const Vec (&sums)[kSums]) { return add(add(sums[0], sums[1]), add(sums[2], sums[3])); };
  for (int64_t t = 0; t < r.tokens; ++t) {
    const float *q = r.q + t * r.ld, *k = r.k + t * r.ld, *v = r.v + t * r.ld;
    const Vec decay = set1(r.decay[t * r.gate_ld]), beta = set1(r.beta[t * r.gate_ld]);
    for (int c = 0; c < kVecs; ++c) {
      float* column = s + c * kWidth;
      Vec sums[kSums] = {zero(), zero(), zero(), zero()};
      for (int64_t i = 0; i < r.d; i += kSums)
#pragma GCC unroll 4
        for (int j = 0; j < kSums; ++j) sums[j] = fma(set1(k[i + j]), load(column + (i + j) * kCols), sums[j]);
      const Vec delta = mul(beta, sub(load(v + c * kWidth), mul(decay, total(sums))));
      for (Vec& sum : sums) sum = zero();
      for (int64_t i = 0; i < r.d; i += kSums)
#pragma GCC unroll 4
        for (int j = 0; j < kSums; ++j) {
          const Vec now = fma(set1(k[i + j]), delta, mul(decay, load(column + (i + j) * kCols)));
          store(column + (i + j) * kCols, now);
          sums[j] = fma(set1(q[i + j]), now, sums[j]);
        }
      store(r.out + t * r.out_ld + c * kWidth, total(sums));
    }
  }
  for (int64_t i = 0; i < r.d; ++i) std::memcpy(r.after + i * r.d, s + i * kCols, kCols * sizeof(float));
}

void add_rows(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

// x in blocks of 32 as codes within -kMost .. kMost, and the sum of a block's codes, or of what they stand for where that is a float.
template <int kMost, typename Code, typename Sum>
inline void quantize_blocks(const float* x, Code* out, float* scales, Sum* sums, int64_t n) {
  for (int64_t block = 0; block < n / 32; ++block, x += 32, out += 32) {
    int32_t bits = 0;  // without signs they order floats, and infinities and NaN behind all numbers
    for (int i = 0; i < 32; ++i) {
      const int32_t other = std::bit_cast<int32_t>(x[i]) & 0x7fffffff;
      bits = other > bits ? other : bits;
    }
    if (bits >= 0x7f800000) {
      scales[block] = __builtin_nanf("");
      std::memset(out, 0, 32 * sizeof(Code));
      sums[block] = 0;
      continue;
    }
    const float peak = std::bit_cast<float>(bits);
    scales[block] = peak / static_cast<float>(kMost);
    const float inverse = peak > 0x1p-112f ? static_cast<float>(kMost) / peak : 0.0f;  // it would be infinite for less
    int32_t total = 0;
    for (int i = 0; i < 32; ++i) {
      const int q = static_cast<int>(__builtin_rintf(x[i] * inverse));
      out[i] = static_cast<Code>(q);
      total += q;
    }
    if constexpr (std::is_floating_point_v<Sum>) sums[block] = scales[block] * static_cast<Sum>(total);
    else sums[block] = total;
  }
}

void quantize_row(const float* x, int8_t* codes, float* scales, float* sums, int64_t n) { quantize_blocks<127>(x, codes, scales, sums, n); }

// All that a table must have, in floats; each instruction set's file adds what more it has.
constexpr Kernels float_kernels(const char* isa, const char* title, decltype(Kernels::dequantize) dequantize, decltype(Kernels::dots_int8) dots_int8 = nullptr) {
  return {.isa = isa,
          .title = title,
          .gemm_f32 = gemm_f32,
          .dequantize = dequantize,
          .dots_int8 = dots_int8,
          .quantize_row = quantize_row,
          .dot = dot,
          .to_bf16 = to_bf16,
          .widen_pairs = widen_pairs,
          .widen_pairs_of_codes = widen_pairs_of_codes,
          .widen_codes = widen_codes,
          .split_codes = split_codes,
          .transpose16 = transpose16,
          .softmax_step = softmax_step,
          .weigh_means = weigh_means,
          .rms_norm = rms_norm,
          .gate_mul = gate_mul,
          .sigmoid_mul = sigmoid_mul,
          .delta_rule = delta_rule,
          .add = add_rows};
}

}  // namespace
}  // namespace longview::cpu
