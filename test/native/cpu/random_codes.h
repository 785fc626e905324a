// Rows of every quantised type with any codes, and scales of either sign between 2^-7 and 2^-3.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "model/quant_formats.h"

namespace longview {

// Where a block's scales in half precision stand; those of MXFP4 are powers of two, in its first byte.
struct BlockScales {
  DType type;
  int64_t first, count;
};
inline const BlockScales kQuantisedTypes[] = {{DType::kQ8_0, 0, 1}, {DType::kQ4_0, 0, 1}, {DType::kQ4_1, 0, 2}, {DType::kQ5_0, 0, 1},
                                              {DType::kQ5_1, 0, 2}, {DType::kQ4_K, 0, 2}, {DType::kQ5_K, 0, 2}, {DType::kQ6_K, 208, 1},
                                              {DType::kQ3_K, 108, 1}, {DType::kIQ4_NL, 0, 1}, {DType::kIQ4_XS, 0, 1}, {DType::kMXFP4, 0, 0}};

inline std::vector<std::byte> random_codes(const BlockScales& of, int64_t elements, std::mt19937_64& random) {
  std::vector<std::byte> row(static_cast<size_t>(row_bytes(of.type, elements)));
  for (std::byte& byte : row) byte = static_cast<std::byte>(random());
  for (size_t block = 0; block < row.size(); block += static_cast<size_t>(format_of(of.type).block_bytes)) {
    if (of.count == 0) row[block] = static_cast<std::byte>(121 + random() % 4);
    for (int64_t i = 0; i < of.count; ++i) {
      const auto bits = static_cast<uint16_t>((random() & 0x83ff) | (8 + random() % 4) << 10);
      std::memcpy(&row[block + static_cast<size_t>(of.first + 2 * i)], &bits, 2);
    }
  }
  return row;
}

}  // namespace longview
