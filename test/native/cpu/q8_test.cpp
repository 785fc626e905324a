// The format q8: codes and scales against double, and pages against the values that were written.
#include "cpu/q8.h"

#include <cmath>
#include <random>

#include "base/half.h"
#include "check.h"
#include "coded_cases.h"

using namespace longview;
using coded::Block;

namespace {

// The error bound of the format, from the exact scale: half a step, and what rounding the scale to 8 bits adds to either.
void check_block(const Block& x, const char* what) {
  int8_t codes[cpu::kQ8Block];
  const double scale = static_cast<double>(bf16_to_float(cpu::quantize_q8(x.data(), static_cast<int64_t>(x.size()), codes)));
  double largest = 0;
  for (const float value : x) largest = std::max(largest, std::fabs(static_cast<double>(value)));
  // Below bf16's smallest number the scale itself is off by up to half of that, and so each of up to 127 steps.
  const double bound = largest / 127 * 0.5 * (1 + 1.0 / 128) + 64 * 0x1p-133;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = std::fabs(static_cast<double>(codes[i]) * scale - static_cast<double>(x[i]));
    if (!(error <= bound)) check::fail(__FILE__, __LINE__, std::string(what) + ": " + std::to_string(x[i]) + " is off by " + std::to_string(error / bound) + " bounds");
    CHECK(codes[i] >= -127);
  }
}

}  // namespace

TEST("every value is within half a step, whatever its block looks like") {
  coded::for_every_kind_of_block(check_block);
  for (int mantissa = 0; mantissa < 4096; ++mantissa) {  // every rounding of the scale
    const float largest = 1.0f + static_cast<float>(mantissa) / 4096;
    check_block({largest, -largest, largest / 3, largest * 0.996f}, "scales");
  }
}

TEST("a largest value of 127 steps is exact, and so are zeros") {
  int8_t codes[4];
  const float x[] = {127 * 0.25f, -126 * 0.25f, 0, 0.25f};
  CHECK(bf16_to_float(cpu::quantize_q8(x, 4, codes)) == 0.25f);
  CHECK(codes[0] == 127 && codes[1] == -126 && codes[2] == 0 && codes[3] == 1);
}

TEST("infinities and NaN make their block NaN, and no other one") { coded::check_infinities(KvFormat::kQ8); }

TEST("tiles of pages are what was written, in any part of a page and on every code path") {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (const int64_t d : {16, 64, 80, 96, 128, 256}) {
    const KvShape shape{2, 2, d, KvFormat::kQ8, 32};
    cpu::CpuKvStorage storage(shape, 2);
    const auto size = static_cast<size_t>(d);
    Block k(size), v(size), k_mean(size, 3.0f), v_mean(size, 4.0f);
    for (int64_t block = 0; block < 4; ++block) storage.write_means(1, 1, 1, block, k_mean.data(), v_mean.data(), 2.0f);
    for (int64_t t = 0; t < kPageTokens; ++t) {
      for (float& x : k) x = normal(random) * 10;
      for (float& x : v) x = normal(random);
      storage.write(1, 1, 1, t, k.data(), v.data());
      Block k_read(size), v_read(size);
      storage.read(1, 1, 1, t, k_read.data(), v_read.data());
      for (size_t i = 0; i < size; ++i) CHECK_NEAR(k_read[i], k[i], 0.25);
      for (size_t i = 0; i < size; ++i) CHECK_NEAR(v_read[i], v[i], 0.025);
    }
    storage.read_key_mean(1, 1, 1, 3, k.data());
    CHECK(k == k_mean);  // scales and codes lie beside the means, not on them
    coded::check_tiles(storage, 0);
  }
}

TEST_MAIN()
