// Products with weights against double, at ragged sizes and in every weight type.
#include <algorithm>
#include <array>
#include <memory>
#include <numbers>

#include "base/gate_curve.h"
#include "kernels/gpu.h"
#include "kernels/random_weights.h"

using namespace longview;
using namespace gpu;
using kernels::Element;
using kernels::WeightType;

namespace {

// Products of one row: K in whole chunks and not, rows that begin at multiples of 16 bytes and not, more than a block norms.
struct RowCase {
  WeightType type;
  int64_t k;
  int32_t architecture;
};
std::vector<RowCase> row_cases() {
  std::vector<RowCase> cases;
  for (const int32_t architecture : {0, 80}) {
    for (const int64_t k : {8, 520, 2064, 8192}) cases.push_back({WeightType::kBFloat16, k, architecture});
    for (const WeightType type : kQuantized)
      for (const int64_t k : {1280, 2048, 3840}) cases.push_back({type, k, architecture});
    cases.push_back({WeightType::kQ8_0, 96, architecture});
    cases.push_back({WeightType::kQ4_K, 8448, architecture});
  }
  return cases;
}
template <typename Row, typename Weights>
std::vector<double> product(const Row& x, const Weights& w, const std::vector<float>* bias, int64_t m, int64_t n, int64_t k) {
  std::vector<double> out(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = bias ? (*bias)[static_cast<size_t>(j)] : 0.0;
      for (int64_t l = 0; l < k; ++l) sum += gpu::at(x, static_cast<size_t>(i * k + l)) * gpu::at(w, static_cast<size_t>(j * k + l));
      out[static_cast<size_t>(i * n + j)] = sum;
    }
  return out;
}

void check_bf16(int64_t m, int64_t n, int64_t k, bool with_bias, bool matvec) {
  std::mt19937_64 random(static_cast<uint64_t>(m * 1000003 + n * 1009 + k));
  const auto x = gpu::random_bf16(static_cast<size_t>(m * k), random), w = gpu::random_bf16(static_cast<size_t>(n * k), random);
  const auto bias = gpu::random_float(static_cast<size_t>(n), random, 10);
  const gpu::Memory<uint16_t> dx(x), dw(w);
  const gpu::Memory<float> db(bias);
  const gpu::Memory<float> wide(static_cast<size_t>(m * n));
  const gpu::Memory<uint16_t> narrow(static_cast<size_t>(m * n));
  kernels::GemmArgs args{dx.get(), dw.get(), WeightType::kBFloat16, with_bias ? db.get() : nullptr, wide.get(), Element::kFloat32, m, n, k};
  const auto launch = [&] {
    if (matvec) GPU(matvec(args, gpu::stream()));
    else GPU(gemm(args, gpu::stream()));
  };
  const std::vector<double> wanted = product(x, w, with_bias ? &bias : nullptr, m, n, k);
  for (const int32_t architecture : {0, 80}) {
    args.architecture = architecture;
    args.out = wide.get();
    args.element = Element::kFloat32;
    launch();
    const double exact = gpu::relative_error(wide.read(), wanted);
    args.out = narrow.get();
    args.element = Element::kBFloat16;
    launch();
    const double rounded = gpu::relative_error(narrow.read(), wanted);
    if (!(exact <= gpu::kFloatError && rounded <= gpu::kBf16Error)) std::printf("  m %d n %d k %d: %.1e %.1e\n", int(m), int(n), int(k), exact, rounded);
    CHECK(exact <= gpu::kFloatError);
    CHECK(rounded <= gpu::kBf16Error);
    if (!matvec && !with_bias) {  // added to what was there
      const auto before = gpu::random_float(wanted.size(), random, 10);
      const gpu::Memory<float> sum(before);
      kernels::GemmArgs added = args;
      added.out = sum.get();
      added.element = Element::kFloat32;
      added.add = 1;
      GPU(gemm(added, gpu::stream()));
      std::vector<double> total = wanted;
      for (size_t i = 0; i < total.size(); ++i) total[i] += before[i];
      CHECK(gpu::relative_error(sum.read(), total) <= gpu::kFloatError);
    }
    GPU(fill(wide.get(), 0xff, wide.bytes(), gpu::stream()));
    GPU(fill(narrow.get(), 0xff, narrow.bytes(), gpu::stream()));
  }
}

}  // namespace

TEST("bf16 products on tensor cores at ragged sizes") {
  for (const auto [m, n, k] : std::initializer_list<std::array<int64_t, 3>>{
           {128, 128, 32}, {1, 1, 8}, {9, 1, 8}, {127, 129, 40}, {129, 127, 72}, {300, 576, 576}, {17, 33, 1536}, {256, 1100, 128}, {130, 1153, 200}, {2, 300, 4096}, {513, 2050, 264}, {1000, 257, 72}, {64, 256, 64}, {2300, 4352, 136}}) {
    check_bf16(m, n, k, true, false);
    check_bf16(m, n, k, false, false);
  }
}

TEST("bf16 products of few rows") {
  for (int64_t m = 1; m <= kernels::kMatvecRows; ++m) {
    check_bf16(m, 37, 8, true, true);
    check_bf16(m, 5, 1000, false, true);
    check_bf16(m, 130, 4096, true, true);
  }
}

TEST("quantised weights: every type, as bf16 and in products of few rows") {
  std::mt19937_64 random(7);
  for (const WeightType type : kQuantized)
    // Rows that begin at multiples of 16 bytes and not, of whole parts of 256 elements and not.
    for (const auto [n, k] : std::initializer_list<std::array<int64_t, 2>>{{4103, 1280}, {19, 96}, {515, 1408}, {1031, 2048}}) {
      if (k % format_of_type(type).block_elements != 0) continue;
      const auto blocks = random_blocks(type, n * k, random);
      std::vector<float> values(static_cast<size_t>(n * k));
      dequantize_row(static_cast<DType>(type), reinterpret_cast<const std::byte*>(blocks.data()), values.data(), n * k);
      const gpu::Memory<uint8_t> dw(blocks);
      const gpu::Memory<uint16_t> bf16(static_cast<size_t>(n * k));
      GPU(dequantize({dw.get(), type, bf16.get(), n * k}, gpu::stream()));
      const std::vector<uint16_t> got = bf16.read();
      int different = 0;
      for (size_t i = 0; i < values.size(); ++i) different += std::fabs(gpu::at(got, i) - values[i]) > std::fabs(values[i]) * 0x1p-8 + 1e-6;
      if (different != 0) std::printf("  type %d: %d values\n", int(type), different);
      CHECK(different == 0);
      for (int64_t m = 1; m <= kernels::kMatvecRows; ++m) {
        const auto x = gpu::random_bf16(static_cast<size_t>(m * k), random);
        const gpu::Memory<uint16_t> dx(x);
        const gpu::Memory<float> out(static_cast<size_t>(m * n));
        GPU(matvec({dx.get(), dw.get(), type, nullptr, out.get(), Element::kFloat32, m, n, k}, gpu::stream()));
        // One row meets the weights in codes of its own, several as they are.
        const std::vector<double> wanted = m == 1 ? product(in_codes(x), values, nullptr, m, n, k) : product(x, values, nullptr, m, n, k);
        const double error = gpu::relative_error(out.read(), wanted);
        if (m == 1) CHECK(gpu::relative_error(out.read(), product(x, values, nullptr, m, n, k)) <= 1e-2);
        if (!(error <= gpu::kFloatError)) std::printf("  type %d, %d x %d, m %d: %.1e\n", int(type), int(n), int(k), int(m), error);
        CHECK(error <= gpu::kFloatError);
      }
    }
}

TEST("one row with several weights: apart, added to a sum, and gated") {
  std::mt19937_64 random(11);
  for (const auto& [type, k, architecture] : row_cases()) {
    const int64_t n[3] = {132, 36, 37};
    const auto x = gpu::random_bf16(static_cast<size_t>(k), random);
    const gpu::Memory<uint16_t> dx(x);
    std::vector<std::vector<float>> values;
    std::vector<std::unique_ptr<gpu::Memory<uint8_t>>> weights;
    const auto add = [&](int64_t rows) {
      const std::vector<uint8_t> bytes = random_weights(type, rows * k, random);
      values.emplace_back(static_cast<size_t>(rows * k));
      dequantize_row(static_cast<DType>(type), reinterpret_cast<const std::byte*>(bytes.data()), values.back().data(), rows * k);
      weights.push_back(std::make_unique<gpu::Memory<uint8_t>>(bytes));
    };
    kernels::MatvecRowArgs args{dx.get(), type, k, {}, 3, kernels::MatvecResult::kWrite, Element::kFloat32};
    args.architecture = architecture;
    std::vector<std::unique_ptr<gpu::Memory<float>>> outs;
    const auto bias = gpu::random_float(37, random, 10);
    const gpu::Memory<float> db(bias);
    const std::vector<float> met = as_met(type, x);
    for (int i = 0; i < 3; ++i) {
      add(n[i]);
      outs.push_back(std::make_unique<gpu::Memory<float>>(static_cast<size_t>(n[i])));
      args.parts[i] = {weights.back()->get(), i == 2 ? db.get() : nullptr, outs.back()->get(), n[i]};
    }
    GPU(matvec_row(args, gpu::stream()));
    for (int i = 0; i < 3; ++i)
      CHECK(gpu::relative_error(outs[static_cast<size_t>(i)]->read(), product(met, values[static_cast<size_t>(i)], i == 2 ? &bias : nullptr, 1, n[i], k)) <= gpu::kFloatError);

    const auto before = gpu::random_float(37, random, 10);
    const gpu::Memory<float> sum(before);
    args.count = 1;
    args.parts[0] = {weights[2]->get(), db.get(), sum.get(), 37};
    args.result = kernels::MatvecResult::kAdd;
    GPU(matvec_row(args, gpu::stream()));
    std::vector<float> both = before;
    for (size_t i = 0; i < both.size(); ++i) both[i] += bias[i];
    CHECK(gpu::relative_error(sum.read(), product(met, values[2], &both, 1, 37, k)) <= gpu::kFloatError);

    for (const int64_t gated : {132, 37}) {
      add(gated), add(gated);
      const gpu::Memory<uint16_t> out(static_cast<size_t>(gated));
      args.count = 2;
      for (int i = 0; i < 2; ++i) args.parts[i] = {weights[weights.size() - 2 + static_cast<size_t>(i)]->get(), nullptr, out.get(), gated};
      args.result = kernels::MatvecResult::kGated;
      const kernels::Status status = gpu::library().matvec_row(args, gpu::stream());
      if (gated % 4 != 0) {
        CHECK(status == kernels::kInvalidShape);
        continue;
      }
      CHECK(status == kernels::kOk);
      const auto g = product(met, values[values.size() - 2], nullptr, 1, gated, k), u = product(met, values.back(), nullptr, 1, gated, k);
      std::vector<double> wanted;
      for (size_t i = 0; i < g.size(); ++i) wanted.push_back(g[i] / (1 + std::exp(-g[i])) * u[i]);
      CHECK(gpu::relative_error(out.read(), wanted) <= gpu::kBf16Error);
      args.curve = {kTanhGelu.linear, kTanhGelu.cubic};
      GPU(matvec_row(args, gpu::stream()));
      for (size_t i = 0; i < g.size(); ++i) wanted[i] = g[i] / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (g[i] + 0.044715 * g[i] * g[i] * g[i]))) * u[i];
      CHECK(gpu::relative_error(out.read(), wanted) <= gpu::kBf16Error);
    }
  }
}

TEST("one row that is normed first") {
  std::mt19937_64 random(13);
  for (const auto& [type, k, architecture] : row_cases()) {
    const int64_t n = 4111;
    const auto x = gpu::random_float(static_cast<size_t>(k), random, 3), norm = gpu::random_float(static_cast<size_t>(k), random);
    double squares = 0;
    for (const float value : x) squares += static_cast<double>(value) * value;
    const float epsilon = 1e-5f, scale = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(k)) + epsilon);
    std::vector<uint16_t> normed;
    for (size_t i = 0; i < x.size(); ++i) normed.push_back(float_to_bf16(x[i] * scale * norm[i]));
    const std::vector<uint8_t> bytes = random_weights(type, n * k, random);
    std::vector<float> values(static_cast<size_t>(n * k));
    dequantize_row(static_cast<DType>(type), reinterpret_cast<const std::byte*>(bytes.data()), values.data(), n * k);
    const gpu::Memory<float> dx(x), dnorm(norm), out(static_cast<size_t>(n));
    const gpu::Memory<uint8_t> weight(bytes);
    const gpu::Memory<uint16_t> room(static_cast<size_t>(k));
    kernels::MatvecRowArgs args{dx.get(), type, k, {{weight.get(), nullptr, out.get(), n}}, 1, kernels::MatvecResult::kWrite, Element::kFloat32, dnorm.get(), room.get(), epsilon, architecture};
    GPU(matvec_row(args, gpu::stream()));
    const double error = gpu::relative_error(out.read(), product(as_met(type, normed), values, nullptr, 1, n, k));
    if (!(error <= 1e-3)) std::printf("  type %d k %d: %.1e\n", int(type), int(k), error);
    CHECK(error <= 1e-3);  // a value beside a boundary is rounded to the other bf16, or to the other code
    args.keep = 1;
    GPU(matvec_row(args, gpu::stream()));
    std::vector<double> kept;
    for (const uint16_t value : normed) kept.push_back(bf16_to_float(value));
    CHECK(gpu::relative_error(room.read(), kept) <= 1e-3);
    args.normed = nullptr;
    CHECK(gpu::library().matvec_row(args, gpu::stream()) == kernels::kInvalidAlignment);
  }
}

TEST("what a kernel does not take is refused, not run") {
  const gpu::Memory<uint16_t> some(4096);
  kernels::GemmArgs args{some.get(), some.get(), WeightType::kBFloat16, nullptr, some.get(), Element::kBFloat16, 16, 16, 12};
  CHECK(gpu::library().gemm(args, gpu::stream()) == kernels::kInvalidShape);
  args.k = 16;
  args.x = some.get() + 1;
  CHECK(gpu::library().gemm(args, gpu::stream()) == kernels::kInvalidAlignment);
  args.x = some.get();
  args.type = WeightType::kQ4_K;
  CHECK(gpu::library().gemm(args, gpu::stream()) == kernels::kUnsupportedType);
  args.m = 1;
  CHECK(gpu::library().matvec(args, gpu::stream()) == kernels::kInvalidShape);
  args.type = static_cast<WeightType>(99);
  CHECK(gpu::library().matvec(args, gpu::stream()) == kernels::kUnsupportedType);
}

TEST_MAIN()
