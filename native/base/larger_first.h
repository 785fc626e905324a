#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

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

// Indices of the `count` first in that order, themselves in no order; all where there are no more.
inline std::vector<int32_t> largest(std::span<const float> values, int64_t count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  if (count >= static_cast<int64_t>(order.size())) return order;
  std::nth_element(order.begin(), order.begin() + count, order.end(), LargerFirst{values});
  order.resize(static_cast<size_t>(count));
  return order;
}

}  // namespace longview
