// What holds of either format of codes: blocks that a quantiser may meet, and pages against the values that lie in them.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "base/half.h"
#include "check.h"
#include "cpu/coded_pages.h"
#include "cpu/cpu_features.h"

namespace longview::coded {

using Block = std::vector<float>;

// Blocks of every length and size, with and without outliers, and the ends of float32's range.
// check(block, what) is called for each.
template <typename Check>
void for_every_kind_of_block(Check&& check) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 2000; ++round) {
    Block x(static_cast<size_t>(1 + round % 32));
    const float size = std::ldexp(1.0f, static_cast<int>(random() % 220) - 120);
    for (float& value : x) value = normal(random) * size;
    check(x, "normal");
    x[random() % x.size()] *= 1000;
    check(x, "outlier");
  }
  const float most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min(), smallest = std::numeric_limits<float>::min();
  check(Block(32, 0.0f), "zeros");
  check(Block(32, -0.0f), "negative zeros");
  check(Block{most, -most, most / 2, 1}, "the largest floats");
  check(Block{-most, most, most / 2, 1}, "the largest floats");
  check(Block(32, -most), "the largest floats");
  check(Block{least, -least, 0, 5 * least}, "denormals");
  check(Block{smallest, smallest / 2, -smallest / 3}, "denormals");
  check(Block{smallest * 200, -smallest * 90, smallest}, "a denormal scale");
  check(Block{3, -3, 2.9f, -2.9f}, "as large on both sides");
}

// Infinities and NaN make their block NaN, and no other one: as pages are read, and as attention sees them on every code path.
inline void check_infinities(KvFormat format) {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    cpu::CpuKvStorage storage({1, 1, 64, format}, 1);
    Block k(64, 1.0f), v(64, 2.0f), k_read(64), v_read(64);
    k[40] = v[3] = bad;
    storage.write(0, 0, 0, 5, k.data(), v.data());
    storage.read(0, 0, 0, 5, k_read.data(), v_read.data());
    for (size_t i = 0; i < 64; ++i) CHECK(std::isnan(k_read[i]) == (i >= 32) && std::isnan(v_read[i]) == (i < 32));
    for (const cpu::Kernels* kernels : cpu::available_kernels())
      for (const bool bf16 : {false, true}) {
        Block keys(64 * 128);
        cpu::widen_keys(*kernels, bf16, {storage, 0, 0, 0}, 0, 128, keys.data(), 128);
        const auto at = [&](size_t i) { return bf16 ? bf16_to_float(reinterpret_cast<uint16_t*>(keys.data())[(i / 2 * 128 + 5) * 2 + i % 2]) : keys[i * 128 + 5]; };
        for (size_t i = 0; i < 64; ++i) CHECK(std::isnan(at(i)) == (i >= 32));
      }
  }
}

// Tiles of page 1, layer 1, head 1 are what its tokens are read as, in any part of the page and on every code path.
// key_rounding: of a key, relative, where products and sums may be rounded once or twice; 0: to the bit.
inline void check_tiles(const cpu::CpuKvStorage& storage, float key_rounding) {
  const int64_t d = storage.shape().head_dim, width = storage.value_width();
  Block k(static_cast<size_t>(d)), v(k.size());
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
            const float seen_key = bf16 ? bf16_to_float(key_halves[(i / 2 * 128 + t) * 2 + i % 2]) : keys[static_cast<size_t>(i * 128 + t)];
            const float seen_value = bf16 ? bf16_to_float(value_halves[(t / 2 * width + i) * 2 + t % 2]) : values[static_cast<size_t>(t * width + i)];
            if (key_rounding == 0) CHECK(seen_key == (bf16 ? bf16_to_float(float_to_bf16(key)) : key));
            else CHECK_NEAR(seen_key, key, bf16 ? std::fabs(key) * key_rounding + 1e-6f : 1e-5f);
            CHECK(seen_value == (bf16 ? bf16_to_float(float_to_bf16(value)) : value));
          }
        }
      }
}

}  // namespace longview::coded
