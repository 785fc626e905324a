// Products of many tokens with quantised weights as 16-bit codes, on every code path that has them, against double over the same codes.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "check.h"
#include "cpu/cpu_features.h"
#include "cpu/random_codes.h"
#include "cpu/weight_panel.h"

using namespace longview;

namespace {

struct Tokens {
  Tokens(const cpu::Kernels& kernels, const std::vector<float>& x, int64_t count, int64_t k) : codes(x.size()), scales(x.size() / 32), sums(x.size() / 32) {
    for (int64_t t = 0; t < count; ++t) kernels.quantize_row16(x.data() + t * k, codes.data() + t * k, scales.data() + t * k / 32, sums.data() + t * k / 32, k);
  }
  cpu::CodeRows rows() const { return {codes.data(), scales.data(), sums.data()}; }

  std::vector<int16_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
};

struct Weight {
  Weight(const BlockScales& of, int64_t count, int64_t k, std::mt19937_64& random) : type(of.type), rows(count), cols(k) {
    for (int64_t i = 0; i < count; ++i) {
      const std::vector<std::byte> row = random_codes(of, k, random);
      data.insert(data.end(), row.begin(), row.end());
    }
  }
  TensorView view() const { return {type, rows, cols, data.data(), static_cast<int64_t>(data.size())}; }
  std::vector<float> row(int64_t i) const {
    std::vector<float> values(static_cast<size_t>(cols));
    dequantize_row(type, data.data() + i * row_bytes(type, cols), values.data(), cols);
    return values;
  }

  DType type;
  int64_t rows, cols;
  std::vector<std::byte> data;
};

// C [count, columns] of the weight's rows first and on.
std::vector<float> product(const cpu::Kernels& kernels, const Tokens& tokens, int64_t count, const Weight& weight, int64_t first, int64_t width, int64_t columns) {
  std::vector<float> rows(static_cast<size_t>(cpu::kPanel * weight.cols), std::numeric_limits<float>::quiet_NaN()), panel = rows;
  const cpu::CodePanel packed = cpu::pack_codes(kernels, weight.view(), first, width, rows.data(), panel.data());
  std::vector<float> c(static_cast<size_t>(count * columns), std::numeric_limits<float>::quiet_NaN());
  kernels.gemm_int16(count, columns, weight.cols, tokens.rows(), packed, c.data(), columns);
  return c;
}

// Q3_K and Q6_K: their zero times the largest scale, both below 0. K types with minimums keep their drawn codes, as scales of 6 bits lie among them.
void fill_with_largest_codes(const BlockScales& of, std::vector<std::byte>& data) {
  const auto bytes = static_cast<size_t>(format_of(of.type).block_bytes);
  const auto fill = [&](size_t from, size_t count, int value) {
    for (size_t block = 0; block < data.size(); block += bytes) std::fill_n(data.begin() + static_cast<std::ptrdiff_t>(block + from), count, static_cast<std::byte>(value));
  };
  switch (of.type) {
    case DType::kQ3_K: return fill(0, 108, 0);
    case DType::kQ4_K:
    case DType::kQ5_K: return;
    case DType::kQ6_K: return fill(0, 192, 0), fill(192, 16, 0x80);
    case DType::kQ8_0: return fill(2, 32, 0x80);
    case DType::kIQ4_NL:
    case DType::kIQ4_XS: return fill(2, bytes - 2, 0);  // -127; the scale of IQ4_XS -32
    case DType::kMXFP4: return fill(1, 16, 0xff);
    default: return fill(static_cast<size_t>(2 * of.count), bytes - static_cast<size_t>(2 * of.count), 0xff);
  }
}

// Tokens whose codes are as large as they can be, all of one sign in turns: sums of their products are the largest there are.
std::vector<float> loud(int64_t count, int64_t k) {
  std::vector<float> x(static_cast<size_t>(count * k));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int64_t>(i) / k % 2 == 0 ? -1.0f : 1.0f;
  return x;
}

std::vector<float> drawn(int64_t count, int64_t k, std::mt19937_64& random) {
  std::vector<float> x(static_cast<size_t>(count * k));
  for (float& value : x) value = std::normal_distribution<float>()(random);
  x[random() % x.size()] *= 1000.0f;
  return x;
}

}  // namespace

TEST("products of codes are those in double: every type, ragged tokens and rows, the largest codes") {
  std::mt19937_64 random(21);
  for (const cpu::Kernels* kernels : cpu::available_kernels()) {
    if (!kernels->gemm_int16) continue;
    for (const BlockScales& of : kQuantisedTypes) {
      for (const int64_t k : {256, 768})
        for (const int64_t count : {1, 2, 3, 5, 6, 7, 13, 32})
          for (const bool largest : {false, true}) {
            const std::vector<float> x = largest ? loud(count, k) : drawn(count, k, random);
            const Tokens tokens(*kernels, x, count, k);
            Weight weight(of, 45, k, random);
            if (largest) fill_with_largest_codes(of, weight.data);
            const auto [first, width, columns] = count % 2 == 0 ? std::array<int64_t, 3>{0, 32, 32} : std::array<int64_t, 3>{32, 13, 16};
            const std::vector<float> c = product(*kernels, tokens, count, weight, first, width, columns);
            for (int64_t j = 0; j < columns; ++j) {
              const std::vector<float> values = j < width ? weight.row(first + j) : std::vector<float>(static_cast<size_t>(k));
              for (int64_t t = 0; t < count; ++t) {
                double expected = 0, magnitude = 0;
                for (int64_t i = 0; i < k; ++i) {
                  const double term = static_cast<double>(values[static_cast<size_t>(i)]) * tokens.codes[static_cast<size_t>(t * k + i)] * tokens.scales[static_cast<size_t>((t * k + i) / 32)];
                  expected += term;
                  magnitude += std::fabs(term);
                }
                const double got = c[static_cast<size_t>(t * columns + j)];
                if (!(std::fabs(got - expected) <= 4e-6 * magnitude))
                  check::fail(__FILE__, __LINE__, std::string(kernels->isa) + ", " + format_of(of.type).name + ", token " + std::to_string(t) + " of " + std::to_string(count) + ", row " + std::to_string(j) + ": " + std::to_string(got) + ", not " + std::to_string(expected));
              }
            }
          }
    }
  }
}

TEST("a token's products do not depend on the tokens beside it, and a fault in one reaches no other") {
  std::mt19937_64 random(22);
  constexpr int64_t kCount = 13, kDepth = 256;
  for (const cpu::Kernels* kernels : cpu::available_kernels()) {
    if (!kernels->gemm_int16) continue;
    const Weight weight(kQuantisedTypes[3], 32, kDepth, random);
    std::vector<float> x = drawn(kCount, kDepth, random);
    const std::vector<float> together = product(*kernels, Tokens(*kernels, x, kCount, kDepth), kCount, weight, 0, 32, 32);
    for (int64_t t = 0; t < kCount; ++t) {
      const std::vector<float> own(x.begin() + t * kDepth, x.begin() + (t + 1) * kDepth);
      const std::vector<float> alone = product(*kernels, Tokens(*kernels, own, 1, kDepth), 1, weight, 0, 32, 32);
      CHECK(std::equal(alone.begin(), alone.end(), together.begin() + t * 32));
    }
    x[5 * kDepth + 40] = std::numeric_limits<float>::infinity();
    const std::vector<float> faulty = product(*kernels, Tokens(*kernels, x, kCount, kDepth), kCount, weight, 0, 32, 32);
    for (size_t i = 0; i < faulty.size(); ++i) CHECK(i / 32 == 5 ? std::isnan(faulty[i]) : faulty[i] == together[i]);
  }
}

TEST_MAIN()
