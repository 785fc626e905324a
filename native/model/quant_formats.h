// Block geometry of the stored weight types and their scalar dequantisation: the reference of every fast
// path. Source of the layouts: GGUF's block formats (ggml's gguf-py/quants.py states them in full).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/tensor.h"

namespace longview {

struct QuantFormat {
  const char* name;        // as users know it: "Q5_0"
  int64_t block_elements;  // 1 for plain floats
  int64_t block_bytes;
};

// Null for a type that the engine does not read.
const QuantFormat* find_format(uint32_t type);
const QuantFormat& format_of(DType type);

// GGUF's name of any type number, supported or not ("IQ3_XXS"), for error sentences.
std::string ggml_type_name(uint32_t type);

// "F32, F16, BF16, Q8_0, … and MXFP4".
std::string readable_types();

// Bytes of a row of `cols` elements. cols must be whole blocks.
int64_t row_bytes(DType type, int64_t cols);

// Writes n elements (whole blocks) starting at block-aligned `source`.
void dequantize_row(DType type, const std::byte* source, float* destination, int64_t n);

// The 6-bit scale and minimum of sub-block j (0..7) of a Q4_K or Q5_K block.
inline void k_scale_min(int j, const uint8_t* scales, uint8_t& scale, uint8_t& minimum) {
  if (j < 4) {
    scale = scales[j] & 63;
    minimum = scales[j + 4] & 63;
  } else {
    scale = static_cast<uint8_t>((scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4));
    minimum = static_cast<uint8_t>((scales[j + 4] >> 4) | ((scales[j] >> 6) << 4));
  }
}

// Of the 16 scales of a Q3_K block, one for 16 elements: -32 .. 31. The low four bits of two are in each of the first eight bytes, the high ones in the others.
inline int q3_k_scale(int i, const uint8_t* scales) {
  return ((scales[i % 8] >> (i < 8 ? 0 : 4)) & 15) + (((scales[8 + i % 4] >> (2 * (i / 4))) & 3) << 4) - 32;
}

// The formats whose blocks have a scale for 16 elements: value = d * scale(i / 16) * (code - kZero), d in half precision at kScale.
template <DType type>
struct Sixteens;
template <>
struct Sixteens<DType::kQ3_K> {
  static constexpr int kBytes = 110, kScale = 108, kZero = 4;
  static int scale(int i, const uint8_t* block) { return q3_k_scale(i, block + 96); }
};
template <>
struct Sixteens<DType::kQ6_K> {
  static constexpr int kBytes = 210, kScale = 208, kZero = 32;
  static int scale(int i, const uint8_t* block) { return static_cast<int8_t>(block[192 + i]); }
};

// The scale of sub-block s (0..7) of an IQ4_XS block: -32 .. 31.
inline int iq4_xs_scale(int s, const uint8_t* block) {
  const int high = block[2] | block[3] << 8, low = block[4 + s / 2] >> (4 * (s % 2));
  return ((low & 15) | ((high >> (2 * s)) & 3) << 4) - 32;
}

// What codes of 4 bits stand for: in IQ4_NL and IQ4_XS, and twice the floats of two bits of exponent and one of mantissa, in MXFP4.
inline constexpr int8_t kIQ4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
inline constexpr int8_t kMXFP4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Half of 2^(e - 127), the scale of an MXFP4 block.
inline float half_power(uint8_t e) { return std::bit_cast<float>(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23); }

}  // namespace longview
