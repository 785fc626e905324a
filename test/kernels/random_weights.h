// Random weights of every type, and x as they meet it.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/gpu.h"
#include "model/quant_formats.h"

namespace gpu {

using longview::DType;
using longview::QuantFormat;
using longview::kernels::WeightType;

inline constexpr WeightType kQuantized[] = {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0, WeightType::kQ5_1, WeightType::kQ8_0, WeightType::kQ3_K,
                                            WeightType::kQ4_K, WeightType::kQ5_K, WeightType::kQ6_K, WeightType::kIQ4_NL, WeightType::kIQ4_XS, WeightType::kMXFP4};

inline const QuantFormat& format_of_type(WeightType type) { return longview::format_of(static_cast<DType>(type)); }

// Random bytes with tame half-precision scales; K-quants keep theirs elsewhere in the block.
inline std::vector<uint8_t> random_blocks(WeightType type, int64_t count, std::mt19937_64& random) {
  const QuantFormat& format = format_of_type(type);
  std::vector<uint8_t> bytes(static_cast<size_t>(count / format.block_elements * format.block_bytes));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(format.block_bytes)) {
    const auto half = [&](size_t at) {
      const auto bits = static_cast<uint16_t>(0x2000 + random() % 0x0800 + (random() % 2 << 15));  // 2^-7 .. 2^-5
      std::memcpy(bytes.data() + block + at, &bits, 2);
    };
    switch (type) {
      case WeightType::kQ3_K: half(108); break;
      case WeightType::kQ6_K: half(208); break;
      case WeightType::kMXFP4: bytes[block] = static_cast<uint8_t>(118 + random() % 4); break;  // 2^-9 .. 2^-6
      default: half(0);
    }
    if (type == WeightType::kQ4_1 || type == WeightType::kQ5_1 || type == WeightType::kQ4_K || type == WeightType::kQ5_K) half(2);
  }
  return bytes;
}

// A row of x as quantised weights meet it: 8-bit codes, a scale for each 32.
inline std::vector<float> in_codes(const std::vector<uint16_t>& x) {
  std::vector<float> out;
  for (size_t group = 0; group < x.size(); group += 32) {
    float largest = 0;
    for (size_t i = group; i < group + 32; ++i) largest = std::max(largest, std::fabs(longview::bf16_to_float(x[i])));
    const float scale = largest / 127.0f, inverse = largest > 0 ? 127.0f / largest : 0.0f;
    for (size_t i = group; i < group + 32; ++i) out.push_back(std::nearbyint(longview::bf16_to_float(x[i]) * inverse) * scale);
  }
  return out;
}

// x as weights of a type meet it.
inline std::vector<float> as_met(WeightType type, const std::vector<uint16_t>& x) {
  if (type != WeightType::kBFloat16) return in_codes(x);
  std::vector<float> out(x.size());
  std::transform(x.begin(), x.end(), out.begin(), longview::bf16_to_float);
  return out;
}
// Random weights of a type, as stored.
inline std::vector<uint8_t> random_weights(WeightType type, int64_t count, std::mt19937_64& random) {
  if (type != WeightType::kBFloat16) return random_blocks(type, count, random);
  const auto some = random_bf16(static_cast<size_t>(count), random);
  std::vector<uint8_t> bytes(some.size() * 2);
  std::memcpy(bytes.data(), some.data(), bytes.size());
  return bytes;
}

}  // namespace gpu
