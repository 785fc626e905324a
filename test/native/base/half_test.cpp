#include "base/half.h"

#include <cmath>
#include <limits>

#include "check.h"

using namespace longview;

TEST("every float16 has the value that its bits say") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    const double sign = bits & 0x8000 ? -1.0 : 1.0;
    const float actual = half_to_float(static_cast<uint16_t>(bits));
    if (exponent == 31 && mantissa != 0) {
      CHECK(std::isnan(actual));
      continue;
    }
    const double expected = exponent == 31  ? std::numeric_limits<double>::infinity()
                            : exponent == 0 ? std::ldexp(mantissa, -24)
                                            : std::ldexp(1024 + mantissa, exponent - 25);
    CHECK(static_cast<double>(actual) == sign * expected);
    CHECK(std::signbit(actual) == (sign < 0));
  }
}

TEST("bfloat16 goes through float32 unchanged") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = bf16_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value))
      CHECK(std::isnan(bf16_to_float(float_to_bf16(value))));
    else
      CHECK(float_to_bf16(value) == bits);
  }
}

TEST("bfloat16 rounds to the nearest, ties to even") {
  const auto round = [](uint32_t bits) { return float_to_bf16(std::bit_cast<float>(bits)); };
  CHECK(round(0x3f807fff) == 0x3f80);
  CHECK(round(0x3f808000) == 0x3f80);
  CHECK(round(0x3f808001) == 0x3f81);
  CHECK(round(0x3f818000) == 0x3f82);
  CHECK(round(0x7f7fffff) == 0x7f80);  // the largest float becomes infinity
  CHECK(round(0x7f800001) == 0x7fc0);  // a NaN whose upper half is infinity stays a NaN
  CHECK(round(0xff800000) == 0xff80);
}

TEST_MAIN()
