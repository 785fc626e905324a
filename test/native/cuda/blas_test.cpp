// cuBLASLt, where the machine has it, against double; and that it can be switched off.
#include "cuda/blas.h"

#include <array>
#include <cstdlib>
#include <filesystem>

#include "kernels/gpu.h"

using namespace longview;

TEST("products with and without a bias, at ragged sizes") {
  const cuda::Device device(gpu::library(), 0);
  const std::unique_ptr<cuda::Blas> blas = cuda::Blas::open(device);
  if (!blas) SKIP("no cuBLASLt");
  std::printf("  %s\n", blas->name().c_str());
  std::mt19937_64 random(1);
  for (const auto& [m, n, k] : std::initializer_list<std::array<int64_t, 3>>{{128, 128, 64}, {9, 8, 8}, {127, 136, 40}, {300, 576, 576}, {1000, 264, 72}, {17, 40, 1536}})
    for (const bool biased : {false, true}) {
      const auto x = gpu::random_bf16(static_cast<size_t>(m * k), random), w = gpu::random_bf16(static_cast<size_t>(n * k), random), bias = gpu::random_bf16(static_cast<size_t>(n), random, 10);
      const gpu::Memory<uint16_t> dx(x), dw(w), db(bias), out(static_cast<size_t>(m * n));
      GPU(synchronize(gpu::stream()));
      CHECK(blas->multiply({dx.get(), dw.get(), biased ? db.get() : nullptr, out.get(), m, n, k}));
      GPU(synchronize(device.stream()));
      std::vector<double> wanted(static_cast<size_t>(m * n));
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          double sum = biased ? gpu::at(bias, static_cast<size_t>(j)) : 0.0;
          for (int64_t l = 0; l < k; ++l) sum += gpu::at(x, static_cast<size_t>(i * k + l)) * gpu::at(w, static_cast<size_t>(j * k + l));
          wanted[static_cast<size_t>(i * n + j)] = sum;
        }
      const double error = gpu::relative_error(out.read(), wanted);
      if (!(error <= gpu::kBf16Error)) std::printf("  m %d n %d k %d bias %d: %.1e\n", int(m), int(n), int(k), biased, error);
      CHECK(error <= gpu::kBf16Error);
      if (biased) continue;
      const auto before = gpu::random_float(wanted.size(), random, 10);
      const gpu::Memory<float> sum(before);
      CHECK(blas->multiply({dx.get(), dw.get(), nullptr, sum.get(), m, n, k, true}));
      GPU(synchronize(device.stream()));
      for (size_t i = 0; i < wanted.size(); ++i) wanted[i] += before[i];
      CHECK(gpu::relative_error(sum.read(), wanted) <= gpu::kFloatError);
    }
}

TEST("products of e4m3 with a scale for each row, where it has them") {
  const cuda::Device device(gpu::library(), 0);
  const std::unique_ptr<cuda::Blas> blas = cuda::Blas::open(device);
  if (!blas) SKIP("no cuBLASLt");
  if (gpu::properties().major != 9) SKIP("of compute capability 9.0");
  std::mt19937_64 random(2);
  for (const auto& [m, n, k] : std::initializer_list<std::array<int64_t, 3>>{{128, 128, 128}, {9, 16, 32}, {300, 576, 576}, {1000, 272, 1536}, {70, 96, 14336}}) {
    const auto quantized = [&](int64_t rows, int64_t cols) {
      const gpu::Memory<uint16_t> x(gpu::random_bf16(static_cast<size_t>(rows * cols), random));
      auto out = std::make_unique<gpu::Memory<uint8_t>>(static_cast<size_t>(kernels::e4m3_bytes(rows, cols)));
      GPU(quantize_rows({x.get(), out->get(), rows, cols}, gpu::stream()));
      GPU(synchronize(gpu::stream()));
      return out;
    };
    const auto x = quantized(m, k), w = quantized(n, k);
    const auto bias = gpu::random_bf16(static_cast<size_t>(n), random, 10);
    std::vector<float> wide_bias;
    for (const uint16_t b : bias) wide_bias.push_back(bf16_to_float(b));
    const gpu::Memory<uint16_t> dbias(bias), out(static_cast<size_t>(m * n)), own(static_cast<size_t>(m * n));
    const gpu::Memory<float> dwide(wide_bias), sum(std::vector<float>(static_cast<size_t>(m * n), 1.0f)), own_sum(std::vector<float>(static_cast<size_t>(m * n), 1.0f));
    // The own kernel is held against double elsewhere (e4m3_test).
    const kernels::GemmArgs args{x->get(), w->get(), kernels::WeightType::kE4M3, dwide.get(), own.get(), kernels::Element::kBFloat16, m, n, k};
    GPU(gemm(args, gpu::stream()));
    GPU(gemm({x->get(), w->get(), args.type, nullptr, own_sum.get(), kernels::Element::kFloat32, m, n, k, 0, 1}, gpu::stream()));
    const auto doubles = [](const auto& values) {
      std::vector<double> all;
      for (size_t i = 0; i < values.size(); ++i) all.push_back(gpu::at(values, i));
      return all;
    };
    const bool biased = blas->multiply({x->get(), w->get(), dbias.get(), out.get(), m, n, k, false, true});
    GPU(synchronize(device.stream()));
    const double error = biased ? gpu::relative_error(out.read(), doubles(own.read())) : 0;
    const bool added = blas->multiply({x->get(), w->get(), nullptr, sum.get(), m, n, k, true, true});
    GPU(synchronize(device.stream()));
    const double sum_error = added ? gpu::relative_error(sum.read(), doubles(own_sum.read())) : 0;
    std::printf("  m %d n %d k %d: with a bias %s, %.1e from the own kernel; added to float32 %s, %.1e\n", int(m), int(n), int(k), biased ? "yes" : "no", error, added ? "yes" : "no", sum_error);
    CHECK(error <= gpu::kBf16Error);
    CHECK(sum_error <= 1e-3);
  }
}

TEST("it can be switched off") {
  const cuda::Device device(gpu::library(), 0);
  CHECK(std::system(("LONGVIEW_CUBLASLT=off " + std::filesystem::read_symlink("/proc/self/exe").string() + " 'products' | grep -q 'no cuBLASLt'").c_str()) == 0);
}

TEST_MAIN()
