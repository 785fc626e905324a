// Words of weights from where their format puts them: blocks of odd sizes begin anywhere.
#pragma once

#include <cstdint>

namespace longview::kernels {

// How many bytes what lies `at` bytes into a row lies behind a multiple of four: known, where it is known that the row begins kRowOdd behind one.
template <int kRowOdd>
__device__ inline uint32_t odd_of(const uint8_t* row, int64_t at) {
  return static_cast<uint32_t>(kRowOdd < 0 ? reinterpret_cast<uintptr_t>(row + at) : static_cast<uintptr_t>(kRowOdd + at)) % 4;
}

// Words from p, `odd` bytes behind a multiple of four: aligned ones, joined where they meet. Where `odd` is even nothing is read but these bytes
// and what lies before them in the first aligned word; else up to the next multiple of four too.
template <int kWords, bool kEven = true>
__device__ inline void load_words(const uint8_t* p, uint32_t odd, uint32_t* out) {
  const auto* words = reinterpret_cast<const uint32_t*>(p - odd);
#pragma unroll
  for (int i = 0; i < kWords; ++i) out[i] = words[i];
  const uint32_t last = kEven ? *reinterpret_cast<const uint16_t*>(p + 4 * kWords - 2) : words[kWords - (odd == 0)];
#pragma unroll
  for (int i = 0; i < kWords; ++i) out[i] = __funnelshift_r(out[i], i + 1 < kWords ? out[i + 1] : last, 8 * odd);
}

// One word, or several in pieces of kPiece bytes, which lie at multiples of as many.
template <int kWords, int kPiece>
__device__ inline void load_aligned(const uint8_t* p, uint32_t* out) {
  if constexpr (kWords == 1) {
    *out = *reinterpret_cast<const uint32_t*>(p);
  } else if constexpr (kPiece == 8) {
#pragma unroll
    for (int i = 0; i < kWords; i += 2) {
      const uint2 two = *reinterpret_cast<const uint2*>(p + 4 * i);
      out[i] = two.x, out[i + 1] = two.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(p + 4 * i);
      out[i] = four.x, out[i + 1] = four.y, out[i + 2] = four.z, out[i + 3] = four.w;
    }
  }
}

}  // namespace longview::kernels
