// Dot products of quantised rows with 8-bit activations. Every type is codes q with value = scale (q - zero) + minimum in blocks of
// 32, so a block's product is  s x_scale (dot(q, x) - zero sum(x)) + minimum x_scale sum(x). How codes are taken from a block and
// multiplied is each instruction set's own.
#pragma once

#if defined(LONGVIEW_NEON)
#include "cpu/dot_int8_neon.h"
#else
#include "cpu/dot_int8_avx.h"
#endif

namespace longview::cpu {
namespace {

// Rows of x: codes [T, n], scales and sums [T, n/32].
struct Int8Rows {
  const int8_t* x;
  const float *scales, *sums;
  int64_t n;

  Int8Rows from(int64_t row) const { return {x + row * n, scales + row * (n / 32), sums + row * (n / 32), n}; }
  inline void add_block(Int8Sum& sum, const Codes& c, int row, int64_t block) const {
    const int64_t at = row * (n / 32) + block;
    sum.add_block(c, x + row * n + 32 * block, scales[at], sums[at]);
  }
};

// A row's sums do not depend on how many others there are.
template <DType type, int T>
void dots_32(const uint8_t* b, const Int8Rows& rows, int64_t block_bytes, float* out) {
  Int8Sum even[T], odd[T];
  const int64_t blocks = rows.n / 32;
  int64_t i = 0;
  for (; i + 2 <= blocks; i += 2, b += 2 * block_bytes) {
    const Codes first = codes<type>(b), second = codes<type>(b + block_bytes);
    for (int t = 0; t < T; ++t) rows.add_block(even[t], first, t, i);
    for (int t = 0; t < T; ++t) rows.add_block(odd[t], second, t, i + 1);
  }
  if (i < blocks) {
    const Codes last = codes<type>(b);
    for (int t = 0; t < T; ++t) rows.add_block(even[t], last, t, i);
  }
  for (int t = 0; t < T; ++t) out[t] = even[t].total() + odd[t].total();
}

template <DType type, int T>
void dots_k(const uint8_t* b, const Int8Rows& rows, int64_t block_bytes, float* out) {
  Int8Sum sum[T];
  for (int64_t i = 0; i < rows.n / 32; i += 8, b += block_bytes)
    for (int s = 0; s < 8; ++s) {
      const Codes c = k_codes<type>(b, s);
      for (int t = 0; t < T; ++t) rows.add_block(sum[t], c, t, i + s);
    }
  for (int t = 0; t < T; ++t) out[t] = sum[t].total();
}

template <int T>
void dots_of(DType type, const uint8_t* b, const Int8Rows& rows, float* out) {
  switch (type) {
    case DType::kQ8_0: return dots_32<DType::kQ8_0, T>(b, rows, 34, out);
    case DType::kQ4_0: return dots_32<DType::kQ4_0, T>(b, rows, 18, out);
    case DType::kQ4_1: return dots_32<DType::kQ4_1, T>(b, rows, 20, out);
    case DType::kQ5_0: return dots_32<DType::kQ5_0, T>(b, rows, 22, out);
    case DType::kQ5_1: return dots_32<DType::kQ5_1, T>(b, rows, 24, out);
    case DType::kQ4_K: return dots_k<DType::kQ4_K, T>(b, rows, 144, out);
    case DType::kQ5_K: return dots_k<DType::kQ5_K, T>(b, rows, 176, out);
    case DType::kIQ4_NL: return dots_32<DType::kIQ4_NL, T>(b, rows, 18, out);
    case DType::kIQ4_XS: return dots_k<DType::kIQ4_XS, T>(b, rows, 136, out);
    case DType::kMXFP4: return dots_32<DType::kMXFP4, T>(b, rows, 17, out);
    case DType::kQ3_K: return dots_sixteens<DType::kQ3_K, T>(b, rows.x, rows.scales, rows.n, out);
    default: return dots_sixteens<DType::kQ6_K, T>(b, rows.x, rows.scales, rows.n, out);
  }
}

void dots_int8(DType type, const std::byte* row, const int8_t* x, const float* scales, const float* sums, int64_t n, int64_t tokens, float* out) {
  const auto* b = reinterpret_cast<const uint8_t*>(row);
  const Int8Rows rows{x, scales, sums, n};
  int64_t t = 0;
  for (; t + 4 <= tokens; t += 4) dots_of<4>(type, b, rows.from(t), out + t);
  switch (tokens - t) {
    case 3: return dots_of<3>(type, b, rows.from(t), out + t);
    case 2: return dots_of<2>(type, b, rows.from(t), out + t);
    case 1: return dots_of<1>(type, b, rows.from(t), out + t);
    default: return;
  }
}

}  // namespace
}  // namespace longview::cpu
