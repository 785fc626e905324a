#pragma once

#include <cmath>
#include <cstdint>
#include <span>

namespace longview {

// Orders indices of `values`: larger ones first, the first of equals, NaN behind all numbers. A strict weak order whatever the values
// are: `>` alone is none where there is NaN, and std::sort may read anywhere then.
struct LargerFirst {
  std::span<const float> values;

  bool operator()(int32_t a, int32_t b) const {
    const float x = values[static_cast<size_t>(a)], y = values[static_cast<size_t>(b)];
    if (std::isnan(x) != std::isnan(y)) return std::isnan(y);
    return x == y || std::isnan(x) ? a < b : x > y;
  }
};

}  // namespace longview
