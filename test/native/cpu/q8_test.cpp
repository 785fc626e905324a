// The format q8: codes and scales against double, and pages against the values that were written.
#include "cpu/q8.h"

#include <cmath>
#include <limits>
#include <random>

#include "base/half.h"
#include "check.h"
#include "cpu/cpu_features.h"
#include "cpu/coded_pages.h"

using namespace longview;

namespace {

using Block = std::vector<float>;

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
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 2000; ++round) {
    Block x(static_cast<size_t>(1 + round % 32));
    const float size = std::ldexp(1.0f, static_cast<int>(random() % 220) - 120);
    for (float& value : x) value = normal(random) * size;
    check_block(x, "normal");
    x[random() % x.size()] *= 1000;
    check_block(x, "outlier");
  }
  const float most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min(), smallest = std::numeric_limits<float>::min();
  check_block(Block(32, 0.0f), "zeros");
  check_block(Block(32, -0.0f), "negative zeros");
  check_block({most, -most, most / 2, 1}, "the largest floats");
  check_block(Block(32, -most), "the largest floats");
  check_block({least, -least, 0, 5 * least}, "denormals");
  check_block({smallest, smallest / 2, -smallest / 3}, "denormals");
  check_block({smallest * 200, -smallest * 90, smallest}, "a denormal scale");
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

TEST("infinities and NaN make their block NaN, and no other one") {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    cpu::CpuKvStorage storage({1, 1, 64, KvFormat::kQ8}, 1);
    Block k(64, 1.0f), v(64, 2.0f), k_read(64), v_read(64);
    k[40] = v[3] = bad;
    storage.write(0, 0, 0, 5, k.data(), v.data());
    storage.read(0, 0, 0, 5, k_read.data(), v_read.data());
    for (size_t i = 0; i < 64; ++i) CHECK(std::isnan(k_read[i]) == (i >= 32) && std::isnan(v_read[i]) == (i < 32));
    // As attention sees it, on every code path.
    for (const cpu::Kernels* kernels : cpu::available_kernels())
      for (const bool bf16 : {false, true}) {
        Block keys(64 * 128);
        cpu::widen_keys(*kernels, bf16, {storage, 0, 0, 0}, 0, 128, keys.data(), 128);
        const auto at = [&](size_t i) { return bf16 ? bf16_to_float(reinterpret_cast<uint16_t*>(keys.data())[(i / 2 * 128 + 5) * 2 + i % 2]) : keys[i * 128 + 5]; };
        for (size_t i = 0; i < 64; ++i) CHECK(std::isnan(at(i)) == (i >= 32));
      }
  }
}

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
    const int64_t width = storage.value_width();
    for (const cpu::Kernels* kernels : cpu::available_kernels())
      for (const bool bf16 : {false, true})
        for (const auto& [from, tokens] : {std::pair<int64_t, int64_t>{0, 128}, {32, 64}, {96, 32}}) {
          Block keys(static_cast<size_t>(d * 128)), values(static_cast<size_t>(width * 128));
          cpu::widen_keys(*kernels, bf16, {storage, 1, 1, 1}, from, tokens, keys.data(), 128);
          cpu::widen_values(*kernels, bf16, {storage, 1, 1, 1}, from, tokens, values.data());
          const auto* key_halves = reinterpret_cast<const uint16_t*>(keys.data());
          const auto* value_halves = reinterpret_cast<const uint16_t*>(values.data());
          for (int64_t t = 0; t < tokens; ++t) {
            storage.read(1, 1, 1, from + t, k.data(), v.data());
            for (int64_t i = 0; i < d; ++i) {
              const float key = k[static_cast<size_t>(i)], value = v[static_cast<size_t>(i)];
              if (bf16) {
                CHECK(key_halves[(i / 2 * 128 + t) * 2 + i % 2] == float_to_bf16(key));
                CHECK(value_halves[(t / 2 * width + i) * 2 + t % 2] == float_to_bf16(value));
              } else {
                CHECK(keys[static_cast<size_t>(i * 128 + t)] == key);
                CHECK(values[static_cast<size_t>(t * width + i)] == value);
              }
            }
          }
        }
  }
}

TEST_MAIN()
