#include "cpu/q4.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace longview::cpu {
namespace {

constexpr uint8_t kZero = 8;
constexpr uint16_t kNotANumber = 0x7fc0;

// To the nearest whole number, ties to even, of what is below 2^22: as nearbyint does it, without a call.
float rounded(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

}  // namespace

uint16_t quantize_q4(const float* x, int64_t n, uint8_t* codes) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite &= std::isfinite(x[i]);
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  uint16_t bits = finite ? float_to_bf16(largest / -8) : kNotANumber;
  // Rounded up, the scale of values at the very end of float32's range would lead beyond it.
  if (finite && !std::isfinite(-8 * bf16_to_float(bits))) --bits;
  const float scale = bf16_to_float(bits);
  if (!finite || scale == 0) {
    std::fill_n(codes, n, kZero);
    return bits;
  }
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(std::clamp(rounded(x[i] / scale), -8.0f, 7.0f) + 8);
  return bits;
}

}  // namespace longview::cpu
