// Sums of many floats.
#pragma once

#include <cstdint>

namespace longview::cpu {

// x[begin] + .. + x[end - 1], in lanes that the compiler can keep in one register.
inline double sum_of(const float* x, int64_t begin, int64_t end) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes] = {};
  double sum = 0;
  for (; begin + kLanes <= end; begin += kLanes)
    for (int64_t i = 0; i < kLanes; ++i) lanes[i] += x[begin + i];
  for (; begin < end; ++begin) sum += static_cast<double>(x[begin]);
  for (const float lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

}  // namespace longview::cpu
