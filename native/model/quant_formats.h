// Block geometry of the stored weight types and their scalar dequantisation: the reference of every fast
// path. Source of the layouts: GGUF's block formats (ggml's gguf-py/quants.py states them in full).
#pragma once

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

// GGUF's name of any type number, supported or not ("IQ4_XS"), for error sentences.
std::string ggml_type_name(uint32_t type);

// "F32, F16, BF16, Q8_0, … and Q6_K".
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

}  // namespace longview
