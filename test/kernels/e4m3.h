// 8-bit floats as numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

// e4m3: a sign, four bits of exponent with a bias of 7, three of fraction; all ones is not a number.
inline double decoded_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  if ((code & 0x7f) == 0x7f) return NAN;
  const double value = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return code & 0x80 ? -value : value;
}

// The nearest of e4m3, to even, of a magnitude up to 448.
inline double rounded_e4m3(double x) {
  const double unit = std::ldexp(1, std::max(std::ilogb(x), -6) - 3);
  return x == 0 ? 0 : std::nearbyint(x / unit) * unit;
}

// The code of one of its numbers.
inline uint8_t code_e4m3(double x) {
  static const std::vector<double> all = [] {
    std::vector<double> out;
    for (int code = 0; code < 0x7f; ++code) out.push_back(decoded_e4m3(static_cast<uint8_t>(code)));
    return out;
  }();
  return static_cast<uint8_t>((std::lower_bound(all.begin(), all.end(), std::fabs(x)) - all.begin()) | (x < 0 ? 0x80 : 0));
}

// Rows of d queries as attention over e4m3 pages multiplies them.
inline void round_queries(std::vector<double>& q, int64_t d) {
  for (auto row = q.begin(); row < q.end(); row += d) {
    float largest = 0;
    for (int64_t i = 0; i < d; ++i) largest = std::max(largest, static_cast<float>(std::fabs(row[i])));
    const float scale = largest / 448, inverse = 1 / scale;
    for (int64_t i = 0; i < d && largest > 0; ++i) row[i] = rounded_e4m3(std::clamp(static_cast<float>(row[i]) * inverse, -448.0f, 448.0f)) * scale;
  }
}
