// The expected numbers follow the papers' formulas, written out apart from the code under test.
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "check.h"
#include "model/rope.h"

using namespace longview;

namespace {

RopeConfig build(const RopeScaling& scaling, int64_t dims = 64) {
  RopeConfig rope;
  rope.dims = dims;
  build_rope(scaling, "model", rope);
  return rope;
}

RopeScaling scaling(const char* type, double theta, double factor, double original = 0) {
  RopeScaling s;
  s.type = type;
  s.theta = theta;
  s.settings.factor = factor;
  s.settings.original_window = original;
  return s;
}

}  // namespace

TEST("plain frequencies are powers of theta") {
  const std::vector<double> f = plain_frequencies(10000, 128);
  CHECK(f.size() == 64);
  CHECK(f[0] == 1);
  CHECK_NEAR(f[32], 0.01, 1e-16);
  CHECK_NEAR(f[63] * std::pow(10000.0, 126.0 / 128), 1, 1e-14);
  // The model for a million tokens: its slowest dimension turns once in some 2 * 10^10 tokens.
  CHECK_NEAR(plain_frequencies(3580165449, 128)[63] * std::pow(3580165449, 126.0 / 128), 1, 1e-14);
}

TEST("linear scaling slows every dimension alike") {
  const RopeConfig rope = build(scaling("linear", 10000, 4));
  const std::vector<double> plain = plain_frequencies(10000, 64);
  for (size_t i = 0; i < plain.size(); ++i) CHECK(rope.inverse_frequencies[i] == plain[i] / 4);
  CHECK(rope.attention_scale == 1);
}

TEST("llama3 scaling keeps fast dimensions, slows slow ones and blends between") {
  const RopeConfig rope = build(scaling("llama3", 500000, 8, 8192), 128);
  const std::vector<double> plain = plain_frequencies(500000, 128);
  int kept = 0, slowed = 0, blended = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double ratio = rope.inverse_frequencies[i] / plain[i], wavelength = 2 * std::numbers::pi / plain[i];
    if (wavelength < 2048) {
      ++kept;
      CHECK(ratio == 1);
    } else if (wavelength > 8192) {
      ++slowed;
      CHECK_NEAR(ratio, 0.125, 1e-15);
    } else {
      ++blended;
      CHECK(ratio > 0.125 && ratio < 1);
    }
  }
  CHECK(kept == 29 && slowed == 29 && blended == 6);
  // Dimension 30: wavelength 2 pi 500000^(60/128) = 2948.4, so 2.7785 turns in the old window, (2.7785 - 1) /
  // 3 kept.
  const double turns = 8192 * std::pow(500000.0, -60.0 / 128) / (2 * std::numbers::pi),
               keep = (turns - 1) / 3;
  CHECK_NEAR(turns, 2.7785, 1e-4);
  CHECK_NEAR(rope.inverse_frequencies[30] / plain[30], keep + (1 - keep) / 8, 1e-14);
}

TEST("YaRN ramps between the dimensions that turn 32 times and once") {
  const RopeConfig rope = build(scaling("yarn", 1e6, 4, 32768), 128);
  const std::vector<double> plain = plain_frequencies(1e6, 128);
  // 128 ln(32768 / (32 * 2 pi)) / (2 ln 1e6) = 23.59 and for one turn 39.65: the ramp is from 23 to 40.
  for (size_t i = 0; i < plain.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - 23) / 17, 0.0, 1.0);
    CHECK_NEAR(rope.inverse_frequencies[i] / plain[i], 1 - ramp * 0.75, 1e-14);
  }
  CHECK_NEAR(rope.attention_scale, 0.1 * std::log(4.0) + 1, 1e-15);
}

TEST("YaRN's attention factor: given, by two mscales, by the multiplier, and for factors up to one") {
  RopeScaling s = scaling("yarn", 1e6, 4, 32768);
  s.settings.mscale = 1;
  s.settings.mscale_all_dim = 0.5;
  CHECK_NEAR(build(s).attention_scale, (0.1 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1), 1e-15);
  s.settings.attention_factor = 1.25;
  CHECK(build(s).attention_scale == 1.25);
  s.attention_multiplier = 2;
  CHECK(build(s).attention_scale == 2.5);
  CHECK(build(scaling("yarn", 1e6, 1, 32768)).attention_scale == 1);
  CHECK(build(scaling("yarn", 1e6, 0.5, 32768)).attention_scale == 1);
}

TEST("YaRN without truncation keeps the ramp's fractional ends") {
  RopeScaling s = scaling("yarn", 1e6, 4, 32768);
  s.settings.truncate = false;
  const double low = 128 * std::log(32768 / (32 * 2 * std::numbers::pi)) / (2 * std::log(1e6));
  const double high = 128 * std::log(32768 / (2 * std::numbers::pi)) / (2 * std::log(1e6));
  const RopeConfig rope = build(s, 128);
  const double ramp = (30 - low) / (high - low);
  CHECK_NEAR(rope.inverse_frequencies[30] / plain_frequencies(1e6, 128)[30], 1 - ramp * 0.75, 1e-14);
}

TEST("values out of range and unknown kinds are refused") {
  CHECK_THROWS(build(scaling("longrope", 10000, 4, 4096)), kFileCorrupt);  // without its factors
  CHECK_THROWS(build(scaling("dynamic", 10000, 4)), kUnsupportedArchitecture);
  const double nan = std::nan(""), inf = INFINITY;
  for (const double theta : {0.0, 1.0, -5.0, 1e30, nan, inf})
    CHECK_THROWS(build(scaling("default", theta, 1)), kFileCorrupt);
  for (const char* type : {"linear", "llama3", "yarn"})
    for (const double factor : {0.0, -1.0, 1e9, nan, inf})
      CHECK_THROWS(build(scaling(type, 10000, factor, 4096)), kFileCorrupt);
  for (const char* type : {"llama3", "yarn"})
    for (const double original : {0.0, -1.0, 1e12, nan, inf})
      CHECK_THROWS(build(scaling(type, 10000, 2, original)), kFileCorrupt);
  RopeScaling s = scaling("llama3", 10000, 2, 4096);
  s.low_frequency_factor = 4;
  CHECK_THROWS(build(s), kFileCorrupt);
  s = scaling("yarn", 10000, 2, 4096);
  s.settings.beta_fast = 0;
  CHECK_THROWS(build(s), kFileCorrupt);
  s = scaling("yarn", 10000, 2, 4096);
  s.settings.attention_factor = -1;
  CHECK_THROWS(build(s), kFileCorrupt);
}

TEST_MAIN()
