// The format q4: codes and scales against double, the transform that goes before it, and pages against the values that were written.
#include "cpu/q4.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/half.h"
#include "check.h"
#include "coded_cases.h"
#include "cpu/hadamard.h"
#include "cpu/page_references.h"

using namespace longview;
using coded::Block;

namespace {

// The scale is bf16's of the largest value over -8, or at the end of float32's range the one below; codes are the nearest there are.
void check_block(const Block& x, const char* what) {
  uint8_t codes[cpu::kQ8Block];
  const auto scale = static_cast<double>(bf16_to_float(cpu::quantize_q4(x.data(), static_cast<int64_t>(x.size()), codes)));
  double largest = 0;
  for (const float value : x)
    if (std::fabs(static_cast<double>(value)) > std::fabs(largest)) largest = static_cast<double>(value);
  const double exact = largest / -8, rounding = std::fabs(exact) / (std::fabs(exact) > 0x1.fep124 ? 128 : 256) + 0x1p-134;
  if (!(std::fabs(scale - exact) <= rounding)) check::fail(__FILE__, __LINE__, std::string(what) + ": a scale of " + std::to_string(scale));
  CHECK(std::isfinite(static_cast<float>(-8 * scale)));
  for (size_t i = 0; i < x.size(); ++i) {
    const auto value = static_cast<double>(x[i]);
    double nearest = std::fabs(value);  // of a scale of 0
    for (int code = -8; code < 8; ++code) nearest = std::min(nearest, std::fabs(code * scale - value));
    const double error = std::fabs((codes[i] - 8) * scale - value);
    if (!(codes[i] <= 15 && error <= nearest * (1 + 1e-6))) check::fail(__FILE__, __LINE__, std::string(what) + ": " + std::to_string(x[i]) + " is off by " + std::to_string(error));
    CHECK(nearest <= std::fabs(exact) * (1 + 8.0 / 128) + 8 * 0x1p-134);  // a step at most, at the side that has a code less
  }
}

// Random rows about a vector of their own, as keys lie.
Block random_rows(int64_t rows, int64_t d, float around, std::mt19937& random) {
  std::normal_distribution<float> normal;
  Block out(static_cast<size_t>(rows * d)), middle(static_cast<size_t>(d));
  for (float& x : middle) x = normal(random) * around;
  for (size_t i = 0; i < out.size(); ++i) out[i] = normal(random) + middle[i % static_cast<size_t>(d)];
  return out;
}

Block reference_of(const cpu::CpuKvStorage& storage, int32_t page) {
  Block out;
  for (int64_t i = 0; i < storage.shape().head_dim; ++i) out.push_back(bf16_to_float(storage.reference(page, 0, 0)[i]));
  return out;
}

Block mean_of(const Block& rows, int64_t d, int64_t first, int64_t count) {
  Block out;
  for (int64_t i = 0; i < d; ++i) {
    double sum = 0;
    for (int64_t t = first; t < first + count; ++t) sum += static_cast<double>(rows[static_cast<size_t>(t * d + i)]);
    out.push_back(static_cast<float>(sum / static_cast<double>(count)));
  }
  return out;
}

bool alike(const Block& a, const Block& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!(std::fabs(a[i] - b[i]) <= std::fabs(b[i]) / 128 + 1e-5f)) return false;
  return a.size() == b.size();
}

}  // namespace

TEST("every value has the nearest code there is, whatever its block looks like") { coded::for_every_kind_of_block(check_block); }

TEST("a largest value of 8 steps is exact, of either sign, and so are zeros") {
  uint8_t codes[4];
  const float x[] = {-8 * 0.25f, 7 * 0.25f, 0, 0.25f}, turned[] = {8 * 0.25f, -7 * 0.25f, 0, -0.25f};
  CHECK(bf16_to_float(cpu::quantize_q4(x, 4, codes)) == 0.25f);
  CHECK(codes[0] == 0 && codes[1] == 15 && codes[2] == 8 && codes[3] == 9);
  CHECK(bf16_to_float(cpu::quantize_q4(turned, 4, codes)) == -0.25f);
  CHECK(codes[0] == 0 && codes[1] == 15 && codes[2] == 8 && codes[3] == 9);
}

TEST("the transform keeps scores, is its own inverse, and spreads an outlier over all dimensions") {
  std::mt19937 random(2);
  for (const int64_t d : {2, 16, 64, 80, 96, 128, 256}) {
    Block a = random_rows(1, d, 1, random), b = random_rows(1, d, 1, random);
    const Block before = a;
    const auto product = [&] {
      double sum = 0;
      for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
      return sum;
    };
    const double score = product();
    cpu::hadamard(a.data(), d);
    cpu::hadamard(b.data(), d);
    CHECK_NEAR(product(), score, 1e-4);
    cpu::hadamard(a.data(), d);
    for (size_t i = 0; i < a.size(); ++i) CHECK_NEAR(a[i], before[i], 1e-5);
  }
  Block outlier(128, 0.0f);
  outlier[77] = 16;
  cpu::hadamard(outlier.data(), 128);
  for (const float x : outlier) CHECK_NEAR(std::fabs(x), 16 / std::sqrt(128.0f), 1e-5);
}

TEST("a page's reference is the mean of the keys that begin it, or that of the page before") {
  constexpr int64_t kDims = 64;
  std::mt19937 random(3);
  const int32_t slots[] = {2, 0, 1, 3};
  const auto write = [&](cpu::CpuKvStorage& storage, const Block& rows, int64_t first) {
    cpu::write_references(storage, slots, 0, 0, rows.data(), kDims, first, static_cast<int64_t>(rows.size()) / kDims);
  };
  cpu::CpuKvStorage storage({1, 1, kDims, KvFormat::kQ4}, 4);
  const Block rows = random_rows(300, kDims, 10, random);
  write(storage, rows, 0);  // two whole pages and 44 of the third
  CHECK(alike(reference_of(storage, 2), mean_of(rows, kDims, 0, 128)));
  CHECK(alike(reference_of(storage, 0), mean_of(rows, kDims, 128, 128)));
  CHECK(alike(reference_of(storage, 1), mean_of(rows, kDims, 256, 44)));
  const Block third = reference_of(storage, 1);
  write(storage, random_rows(90, kDims, 10, random), 300);  // goes on in the third page and begins the fourth with 6 keys
  CHECK(reference_of(storage, 1) == third);
  CHECK(reference_of(storage, 3) == third);
  write(storage, random_rows(1, kDims, 10, random), 384);  // a single token that begins the fourth
  CHECK(reference_of(storage, 3) == third);
  Block few = random_rows(5, kDims, 10, random);
  write(storage, few, 0);  // the first page has no other one before it
  CHECK(alike(reference_of(storage, 2), mean_of(few, kDims, 0, 5)));
  few[kDims + 3] = std::numeric_limits<float>::quiet_NaN();  // does not count
  write(storage, few, 0);
  for (const float x : reference_of(storage, 2)) CHECK(std::isfinite(x));
  Block others(few.begin(), few.begin() + kDims);
  others.insert(others.end(), few.begin() + 2 * kDims, few.end());
  CHECK(alike(reference_of(storage, 2), mean_of(others, kDims, 0, 4)));
  write(storage, random_rows(1, kDims, 10, random), 0);
  CHECK(reference_of(storage, 2) == Block(kDims, 0.0f));
}

TEST("infinities and NaN make their block NaN, and no other one") { coded::check_infinities(KvFormat::kQ4); }

TEST("tiles of pages are what was written, in any part of a page and on every code path") {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (const int64_t d : {16, 64, 80, 96, 128, 256}) {
    cpu::CpuKvStorage storage({2, 2, d, KvFormat::kQ4, 32}, 2);
    const auto size = static_cast<size_t>(d);
    Block k(size), v(size), k_mean(size, 3.0f), v_mean(size, 4.0f), base(size);
    for (int64_t block = 0; block < 4; ++block) storage.write_means(1, 1, 1, block, k_mean.data(), v_mean.data(), 2.0f);
    for (size_t i = 0; i < size; ++i) storage.reference(1, 1, 1)[i] = float_to_bf16(base[i] = std::round(normal(random) * 64) / 2);
    for (int64_t t = 0; t < kPageTokens; ++t) {
      for (size_t i = 0; i < size; ++i) k[i] = normal(random) + base[i], v[i] = normal(random);
      storage.write(1, 1, 1, t, k.data(), v.data());
      Block k_read(size), v_read(size);
      storage.read(1, 1, 1, t, k_read.data(), v_read.data());
      for (size_t i = 0; i < size; ++i) CHECK_NEAR(k_read[i], k[i], 0.6);
      for (size_t i = 0; i < size; ++i) CHECK_NEAR(v_read[i], v[i], 0.6);
    }
    storage.read_key_mean(1, 1, 1, 3, k.data());
    CHECK(k == k_mean);  // scales, codes and the reference lie beside the means, not on them
    for (size_t i = 0; i < size; ++i) CHECK(storage.reference(0, 1, 1)[i] == 0 && storage.reference(1, 1, 0)[i] == 0 && storage.reference(1, 0, 1)[i] == 0);
    coded::check_tiles(storage, 1.0f / 128);
  }
}

TEST("heads whose dimensions are no multiple of 4 are refused") {
  try {
    const cpu::CpuKvStorage storage({1, 1, 66, KvFormat::kQ4}, 1);
    CHECK(!"refused");
  } catch (const Error& error) {
    CHECK(error.code == ErrorCode::kInvalidArgument && std::string(error.what()).find("4 bits") != std::string::npos);
  }
}

TEST_MAIN()
