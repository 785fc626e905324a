#include "cpu/q8.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace longview::cpu {
namespace {

constexpr float kMostCode = 127.0f;
constexpr uint16_t kNotANumber = 0x7fc0;

}  // namespace

uint16_t quantize_q8(const float* x, int64_t n, int8_t* codes) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite &= std::isfinite(x[i]);
    largest = std::max(largest, std::fabs(x[i]));
  }
  uint16_t bits = finite ? float_to_bf16(largest / kMostCode) : kNotANumber;
  // Rounded up, the scale of values at the very end of float32's range would lead beyond it.
  if (finite && !std::isfinite(kMostCode * bf16_to_float(bits))) --bits;
  const float scale = bf16_to_float(bits);
  if (!finite || scale == 0) {
    std::fill_n(codes, n, int8_t{0});
    return bits;
  }
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<int8_t>(std::clamp(std::nearbyint(x[i] / scale), -kMostCode, kMostCode));
  return bits;
}

}  // namespace longview::cpu
