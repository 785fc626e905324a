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

template <DType type>
float dot_32(const uint8_t* b, const int8_t* x, const float* scales, const int32_t* sums, int64_t n, int64_t block_bytes) {
  Int8Sum even, odd;
  int64_t i = 0;
  for (; i + 2 <= n / 32; i += 2, b += 2 * block_bytes) {
    even.add_block(codes<type>(b), x + 32 * i, scales[i], sums[i]);
    odd.add_block(codes<type>(b + block_bytes), x + 32 * i + 32, scales[i + 1], sums[i + 1]);
  }
  if (i < n / 32) even.add_block(codes<type>(b), x + 32 * i, scales[i], sums[i]);
  return even.total() + odd.total();
}

template <DType type>
float dot_k(const uint8_t* b, const int8_t* x, const float* scales, const int32_t* sums, int64_t n, int64_t block_bytes) {
  Int8Sum sum;
  for (int64_t i = 0; i < n / 32; i += 8, b += block_bytes)
    for (int s = 0; s < 8; ++s) sum.add_block(k_codes<type>(b, s), x + 32 * (i + s), scales[i + s], sums[i + s]);
  return sum.total();
}

float dot_int8(DType type, const std::byte* row, const int8_t* x, const float* scales, const int32_t* sums, int64_t n) {
  const auto* b = reinterpret_cast<const uint8_t*>(row);
  switch (type) {
    case DType::kQ8_0: return dot_32<DType::kQ8_0>(b, x, scales, sums, n, 34);
    case DType::kQ4_0: return dot_32<DType::kQ4_0>(b, x, scales, sums, n, 18);
    case DType::kQ4_1: return dot_32<DType::kQ4_1>(b, x, scales, sums, n, 20);
    case DType::kQ5_0: return dot_32<DType::kQ5_0>(b, x, scales, sums, n, 22);
    case DType::kQ5_1: return dot_32<DType::kQ5_1>(b, x, scales, sums, n, 24);
    case DType::kQ4_K: return dot_k<DType::kQ4_K>(b, x, scales, sums, n, 144);
    case DType::kQ5_K: return dot_k<DType::kQ5_K>(b, x, scales, sums, n, 176);
    default: return dot_q6_k(b, x, scales, n);
  }
}

}  // namespace
}  // namespace longview::cpu
