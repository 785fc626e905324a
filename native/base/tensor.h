// What a matrix in a model file is: element type, shape, bytes. A view never owns.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longview {

// Element types of stored weights. Values are GGUF's own type numbers.
enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kMXFP4 = 39,
};

// A row-major matrix [rows, cols] in a mapped model file; a vector has rows == 1. Quantised rows are whole
// blocks, so cols is a multiple of the block length. `bytes` has been checked against the file by whoever
// made the view. `data` may lie unaligned: safetensors need not pad their headers.
struct TensorView {
  DType type = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* data = nullptr;
  int64_t bytes = 0;

  bool empty() const { return data == nullptr; }
};

}  // namespace longview
