// 8-bit floats as numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

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
