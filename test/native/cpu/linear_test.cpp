#include "check.h"
#include "cpu/nasty.h"

using namespace longview;

namespace {

// Allowed error of one product of k terms: float32 rounding of every step; for bf16, both factors rounded to 8 bits;
// for int8, the activations rounded to 1/127 of the largest of their block of 32, a step of `step` at most.
struct Allowed {
  double float32, bf16, int8;
};

void check_linear(const nasty::Path& path, DType type, int64_t tokens, int64_t rows, int64_t cols, bool with_bias,
                  uint64_t seed) {
  nasty::Random random(seed);
  const nasty::Matrix weight(random, type, rows, cols);
  const std::vector<float> x = nasty::values(random, tokens * cols);
  const std::vector<float> bias = nasty::values(random, rows);
  const auto backend = nasty::backend(path);
  const WeightHandle uploaded = backend->upload(weight.view);
  const WeightHandle uploaded_bias = backend->upload(nasty::vector_view(bias));
  const nasty::Buffer input(*backend, tokens, cols, x);
  const nasty::Buffer output(*backend, tokens, rows);
  backend->linear(input, *uploaded, with_bias ? uploaded_bias.get() : nullptr, output);

  nasty::Worst worst;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* xs = x.data() + t * cols;
    std::vector<double> step(static_cast<size_t>(cols));  // of the 8-bit activations
    for (int64_t k = 0; k < cols; k += 32) {
      double peak = 0;
      for (int64_t i = k; i < std::min(cols, k + 32); ++i) peak = std::max(peak, std::fabs(static_cast<double>(xs[i])));
      for (int64_t i = k; i < std::min(cols, k + 32); ++i) step[static_cast<size_t>(i)] = peak / 127;
    }
    for (int64_t row = 0; row < rows; ++row) {
      const float* w = weight.floats.data() + row * cols;
      double sum = with_bias ? bias[static_cast<size_t>(row)] : 0.0, size = std::fabs(sum), int8_size = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const double product = static_cast<double>(xs[k]) * w[k];
        sum += product;
        size += std::fabs(product);
        int8_size += std::fabs(static_cast<double>(w[k])) * step[static_cast<size_t>(k)];
      }
      const bool float32 = path.precision == Precision::kFloat32;
      const double rounding = size * 1e-6 + 1e-30;
      const double allowed = rounding + (float32 ? 0 : std::max(size / 128, int8_size * 0.51));
      worst.add(t, output.data()[t * rows + row], sum, allowed);
    }
  }
  worst.check(path.name() + " " + format_of(type).name + " " + std::to_string(tokens) + " x " + std::to_string(rows) +
              " x " + std::to_string(cols));
}

}  // namespace

TEST("linear: every stored type on every code path") {
  uint64_t seed = 1;
  for (const nasty::Path& path : nasty::paths())
    for (const DType type : nasty::kAllTypes)
      for (const int64_t tokens : {1, 3, 40}) check_linear(path, type, tokens, 96, 512, false, ++seed);
}

TEST("linear: ragged tokens, rows and columns, with a bias") {
  uint64_t seed = 1000;
  for (const nasty::Path& path : nasty::paths()) {
    for (const int64_t tokens : {1, 2, 5, 7, 16, 31, 129, 200})
      for (const int64_t rows : {1, 33, 80, 300}) check_linear(path, DType::kQ5_0, tokens, rows, 96, true, ++seed);
    for (const int64_t cols : {1, 2, 7, 31, 100, 257}) {
      check_linear(path, DType::kF32, 1, 45, cols, true, ++seed);
      check_linear(path, DType::kF16, 9, 45, cols, true, ++seed);
      check_linear(path, DType::kBF16, 50, 45, cols, false, ++seed);
    }
  }
}

TEST("linear: more columns than a block of the products' depth") {
  uint64_t seed = 2000;
  for (const nasty::Path& path : nasty::paths()) {
    check_linear(path, DType::kQ4_K, 65, 64, 4096, false, ++seed);
    check_linear(path, DType::kQ8_0, 1, 64, 4096, false, ++seed);
  }
}

TEST("linear: threads do not change a result") {
  nasty::Random random(7);
  const nasty::Matrix weight(random, DType::kQ5_0, 320, 576);
  for (const int64_t tokens : {1, 150}) {
    const std::vector<float> x = nasty::values(random, tokens * 576);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 5}) {
      const auto backend = make_cpu_backend({threads, Precision::kAuto, ""});
      const WeightHandle uploaded = backend->upload(weight.view);
      const nasty::Buffer input(*backend, tokens, 576, x), output(*backend, tokens, 320);
      backend->linear(input, *uploaded, nullptr, output);
      results.push_back(output.copy());
    }
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
  }
}

TEST_MAIN()
