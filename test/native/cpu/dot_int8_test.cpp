// Products of stored rows with 8-bit activations on every code path that has them, against double over the same codes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "check.h"
#include "cpu/cpu_features.h"
#include "cpu/random_codes.h"

using namespace longview;

TEST("products of quantised rows with codes of x are those in double, for all types and extreme x") {
  std::mt19937_64 random(11);
  for (const cpu::Kernels* kernels : cpu::available_kernels()) {
    if (!kernels->dots_int8) continue;
    for (const BlockScales& of : kQuantisedTypes)
      for (const int64_t elements : {96, 256, 768, 2048})
        for (const float outlier : {1.0f, 1000.0f, 0.0f}) {
          if (elements % format_of(of.type).block_elements != 0) continue;
          std::vector<float> x(static_cast<size_t>(elements)), weights(x.size());
          for (float& value : x) value = std::normal_distribution<float>()(random);
          x[static_cast<size_t>(random() % x.size())] *= outlier;
          if (outlier == 0) std::fill(x.begin(), x.begin() + 64, 0.0f);
          std::vector<int8_t> codes(x.size());
          std::vector<float> scales(x.size() / 32);
          std::vector<float> sums(scales.size());
          kernels->quantize_row(x.data(), codes.data(), scales.data(), sums.data(), elements);
          const std::vector<std::byte> row = random_codes(of, elements, random);
          dequantize_row(of.type, row.data(), weights.data(), elements);
          double expected = 0, magnitude = 0;
          for (size_t i = 0; i < x.size(); ++i) {
            CHECK(std::fabs(static_cast<double>(codes[i]) * scales[i / 32] - x[i]) <= 0.5001 * scales[i / 32]);
            const double term = static_cast<double>(weights[i]) * codes[i] * scales[i / 32];
            expected += term;
            magnitude += std::fabs(term);
          }
          float got = 0;
          kernels->dots_int8(of.type, row.data(), codes.data(), scales.data(), sums.data(), elements, 1, &got);
          if (!(std::fabs(static_cast<double>(got) - expected) <= 4e-6 * magnitude))
            check::fail(__FILE__, __LINE__, std::string(kernels->isa) + ", " + format_of(of.type).name + ": " + std::to_string(got) + ", not " + std::to_string(expected) + " of " + std::to_string(magnitude));
        }
  }
}

TEST("a row's product is the same whatever others are made with it") {
  std::mt19937_64 random(13);
  constexpr int64_t kRows = 9, kElements = 768;
  std::vector<int8_t> codes(kRows * kElements);
  std::vector<float> scales(kRows * kElements / 32);
  std::vector<float> sums(scales.size());
  for (const cpu::Kernels* kernels : cpu::available_kernels()) {
    if (!kernels->dots_int8) continue;
    for (int64_t t = 0; t < kRows; ++t) {
      std::vector<float> x(kElements);
      for (float& value : x) value = std::normal_distribution<float>()(random);
      kernels->quantize_row(x.data(), codes.data() + t * kElements, scales.data() + t * kElements / 32, sums.data() + t * kElements / 32, kElements);
    }
    for (const BlockScales& of : kQuantisedTypes) {
      const std::vector<std::byte> row = random_codes(of, kElements, random);
      std::vector<float> alone(kRows);
      for (int64_t t = 0; t < kRows; ++t)
        kernels->dots_int8(of.type, row.data(), codes.data() + t * kElements, scales.data() + t * kElements / 32, sums.data() + t * kElements / 32, kElements, 1, &alone[static_cast<size_t>(t)]);
      for (int64_t rows = 1; rows <= kRows; ++rows) {
        std::vector<float> got(kRows, -7);
        kernels->dots_int8(of.type, row.data(), codes.data(), scales.data(), sums.data(), kElements, rows, got.data());
        for (int64_t t = 0; t < kRows; ++t) CHECK(got[static_cast<size_t>(t)] == (t < rows ? alone[static_cast<size_t>(t)] : -7));
      }
    }
  }
}

TEST("x that is not finite makes its block's scale and every product NaN; x too small for a scale counts as zeros") {
  std::mt19937_64 random(12);
  for (const cpu::Kernels* kernels : cpu::available_kernels()) {
    std::vector<int8_t> codes(256);
    std::vector<float> scales(8);
    std::vector<float> sums(8);
    for (const float fault : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
      for (const size_t at : {0, 13, 95, 255}) {
        std::vector<float> x(256, 1.0f);
        x[at] = fault;
        kernels->quantize_row(x.data(), codes.data(), scales.data(), sums.data(), 256);
        for (size_t block = 0; block < 8; ++block) CHECK(std::isnan(scales[block]) == (block == at / 32));
        if (!kernels->dots_int8) continue;
        for (const BlockScales& of : kQuantisedTypes) {
          float got = 0;
          kernels->dots_int8(of.type, random_codes(of, 256, random).data(), codes.data(), scales.data(), sums.data(), 256, 1, &got);
          CHECK(std::isnan(got));
        }
      }
    for (const float small : {1e-37f, std::numeric_limits<float>::min(), std::numeric_limits<float>::denorm_min()}) {
      kernels->quantize_row(std::vector<float>(32, small).data(), codes.data(), scales.data(), sums.data(), 32);
      CHECK(std::all_of(codes.begin(), codes.begin() + 32, [](int8_t code) { return code == 0; }) && std::isfinite(scales[0]) && sums[0] == 0);
    }
    kernels->quantize_row(std::vector<float>(32, std::numeric_limits<float>::max()).data(), codes.data(), scales.data(), sums.data(), 32);
    CHECK(codes[0] == 127 && std::isfinite(scales[0]));
    kernels->quantize_row(std::vector<float>(32, 1e36f).data(), codes.data(), scales.data(), sums.data(), 32);
    CHECK(codes[0] == 127 && sums[0] == scales[0] * (32 * 127));
  }
}

TEST_MAIN()
