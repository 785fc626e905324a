// 8-bit floats with a scale for each row: making them, and products with them, against double.
#include <algorithm>
#include <array>
#include <memory>
#include <numbers>

#include "base/gate_curve.h"
#include "kernels/e4m3.h"
#include "kernels/gpu.h"

using namespace longview;
using kernels::Element;
using kernels::WeightType;

namespace {

struct Rows {
  std::vector<uint8_t> codes;  // [rows, cols]
  std::vector<float> scales;   // [rows]
  std::vector<double> values() const {
    std::vector<double> out;
    for (size_t i = 0; i < codes.size(); ++i) out.push_back(decoded_e4m3(codes[i]) * scales[i / (codes.size() / scales.size())]);
    return out;
  }
};

Rows split(const std::vector<uint8_t>& bytes, int64_t rows, int64_t cols) {
  Rows out{{bytes.begin(), bytes.begin() + rows * cols}, std::vector<float>(static_cast<size_t>(rows))};
  std::memcpy(out.scales.data(), bytes.data() + rows * cols, out.scales.size() * 4);
  return out;
}

gpu::Memory<uint8_t> room(int64_t rows, int64_t cols) { return gpu::Memory<uint8_t>(static_cast<size_t>(kernels::e4m3_bytes(rows, cols))); }

// Every code is the nearest to its value by the row's scale, and the largest of a row is e4m3's largest.
void check_rows(const Rows& got, const std::vector<double>& wanted, double rounded) {
  const size_t cols = wanted.size() / got.scales.size();
  int wrong = 0;
  for (size_t row = 0; row < got.scales.size(); ++row) {
    double largest = 0;
    for (size_t i = 0; i < cols; ++i) largest = std::max(largest, std::fabs(wanted[row * cols + i]));
    const double scale = got.scales[row];
    CHECK(std::fabs(scale - largest / 448) <= (rounded + 1e-6) * largest / 448);
    for (size_t i = 0; i < cols; ++i) {
      const double value = wanted[row * cols + i], code = decoded_e4m3(got.codes[row * cols + i]) * scale;
      // Half a step of three bits of fraction, or of the smallest numbers; and what was rounded before.
      wrong += !(std::fabs(code - value) <= std::fabs(value) * (0x1p-4 + rounded) + scale * 0x1.01p-10);
    }
  }
  CHECK(wrong == 0);
}

struct Operand {
  gpu::Memory<uint8_t> device;
  std::vector<double> values;
};

// Random rows of unlike magnitudes, one of them zero, one with an outlier, in e4m3.
std::unique_ptr<Operand> random_operand(int64_t rows, int64_t cols, std::mt19937_64& random) {
  std::vector<uint16_t> x = gpu::random_bf16(static_cast<size_t>(rows * cols), random);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < cols; ++i) {
      uint16_t& v = x[static_cast<size_t>(r * cols + i)];
      if (rows > 3 && r == 2) v = 0;
      else v = float_to_bf16(bf16_to_float(v) * std::ldexp(1.0f, static_cast<int>(r % 7) - 3) * (r == 1 && i == 5 ? 300.0f : 1.0f));
    }
  const gpu::Memory<uint16_t> narrow(x);
  auto out = std::unique_ptr<Operand>(new Operand{room(rows, cols), {}});
  GPU(quantize_rows({narrow.get(), out->device.get(), rows, cols}, gpu::stream()));
  out->values = split(out->device.read(), rows, cols).values();
  return out;
}

std::vector<double> product(const std::vector<double>& x, const std::vector<double>& w, const std::vector<float>* added, bool bias, int64_t m, int64_t n, int64_t k) {
  std::vector<double> out(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = added ? (*added)[static_cast<size_t>(bias ? j : i * n + j)] : 0.0;
      for (int64_t l = 0; l < k; ++l) sum += x[static_cast<size_t>(i * k + l)] * w[static_cast<size_t>(j * k + l)];
      out[static_cast<size_t>(i * n + j)] = sum;
    }
  return out;
}

bool has_tensor_cores() { return gpu::properties().major == 9; }
// What the tensor cores round their sums of 128 products to.
constexpr double kPartialSums = 5e-4;

}  // namespace

TEST("rows become the nearest codes") {
  std::mt19937_64 random(1);
  for (const int64_t cols : {32, 576, 1536, 4096, 14336, 32768}) {
    const int64_t rows = 5;
    auto x = gpu::random_bf16(static_cast<size_t>(rows * cols), random, 3);
    for (int64_t i = 0; i < cols; ++i) x[static_cast<size_t>(2 * cols + i)] = 0;
    x[7] = float_to_bf16(-1e30f);  // an outlier: the rest of its row becomes zero
    for (int64_t i = 0; i < cols; ++i) x[static_cast<size_t>(3 * cols + i)] = float_to_bf16(i % 2 ? 1e-34f : -3e-33f);
    const gpu::Memory<uint16_t> dx(x);
    const auto out = room(rows, cols);
    GPU(quantize_rows({dx.get(), out.get(), rows, cols}, gpu::stream()));
    Rows got = split(out.read(), rows, cols);
    std::vector<double> wanted;
    for (size_t i = 0; i < x.size(); ++i) wanted.push_back(gpu::at(x, i));
    for (const int64_t zero : {2, 3}) {  // zeros, and what is too small for a scale
      CHECK(got.scales[static_cast<size_t>(zero)] == 0);
      CHECK(std::all_of(got.codes.begin() + zero * cols, got.codes.begin() + (zero + 1) * cols, [](uint8_t code) { return (code & 0x7f) == 0; }));
      std::fill(wanted.begin() + zero * cols, wanted.begin() + (zero + 1) * cols, 0);
    }
    check_rows(got, wanted, 0);
  }
}

TEST("gate_mul and rms_norm write codes") {
  std::mt19937_64 random(2);
  for (const int64_t cols : {64, 1536, 4096, 14336}) {
    const int64_t rows = 21;
    const auto gate = gpu::random_bf16(static_cast<size_t>(rows * cols), random, 4), up = gpu::random_bf16(static_cast<size_t>(rows * cols), random);
    const auto hidden = gpu::random_float(static_cast<size_t>(rows * cols), random, 30), weight = gpu::random_float(static_cast<size_t>(cols), random);
    const gpu::Memory<uint16_t> dgate(gate), dup(up);
    const gpu::Memory<float> dhidden(hidden), dweight(weight);
    const auto activated = room(rows, cols), normed = room(rows, cols);
    const bool gelu = cols == 1536;
    GPU(gate_mul_quantize({dgate.get(), dup.get(), activated.get(), rows, cols, gelu ? kernels::GateCurve{kTanhGelu.linear, kTanhGelu.cubic} : kernels::GateCurve{}}, gpu::stream()));
    GPU(rms_norm({dhidden.get(), Element::kFloat32, dweight.get(), normed.get(), rows, cols, 1e-5f, 1}, gpu::stream()));
    std::vector<double> a, b;
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < cols; ++i) sum += std::pow(hidden[static_cast<size_t>(r * cols + i)], 2);
      for (int64_t i = 0; i < cols; ++i) {
        const auto at = static_cast<size_t>(r * cols + i);
        const double g = gpu::at(gate, at), inner = gelu ? 2 * std::sqrt(2 / std::numbers::pi) * (g + 0.044715 * g * g * g) : g;
        a.push_back(g / (1 + std::exp(-inner)) * gpu::at(up, at));
        b.push_back(hidden[at] / std::sqrt(sum / static_cast<double>(cols) + 1e-5) * weight[static_cast<size_t>(i)]);
      }
    }
    check_rows(split(activated.read(), rows, cols), a, 0x1p-7);
    check_rows(split(normed.read(), rows, cols), b, 0x1p-7);
  }
}

TEST("products on tensor cores at ragged sizes, with a bias, and added to a sum") {
  if (!has_tensor_cores()) SKIP("this GPU has no such tensor cores that we use");
  std::mt19937_64 random(3);
  for (const auto& [m, n, k] : std::initializer_list<std::array<int64_t, 3>>{{128, 256, 128}, {9, 1, 32}, {64, 8, 96}, {127, 129, 160}, {300, 576, 576}, {130, 1153, 1536}, {513, 2056, 288}, {70, 96, 14336}}) {
    const auto x = random_operand(m, k, random), w = random_operand(n, k, random);
    const auto bias = gpu::random_float(static_cast<size_t>(n), random, 10), before = gpu::random_float(static_cast<size_t>(m * n), random, 10);
    const gpu::Memory<float> dbias(bias), wide(static_cast<size_t>(m * n)), sum(before);
    const gpu::Memory<uint16_t> narrow(static_cast<size_t>(m * n));
    kernels::GemmArgs args{x->device.get(), w->device.get(), WeightType::kE4M3, nullptr, wide.get(), Element::kFloat32, m, n, k};
    GPU(gemm(args, gpu::stream()));
    const double plain = gpu::relative_error(wide.read(), product(x->values, w->values, nullptr, false, m, n, k));
    args.out = sum.get();
    args.add = 1;
    GPU(gemm(args, gpu::stream()));
    const double added = gpu::relative_error(sum.read(), product(x->values, w->values, &before, false, m, n, k));
    args = {x->device.get(), w->device.get(), WeightType::kE4M3, dbias.get(), narrow.get(), Element::kBFloat16, m, n, k};
    GPU(gemm(args, gpu::stream()));
    const double biased = gpu::relative_error(narrow.read(), product(x->values, w->values, &bias, true, m, n, k));
    std::printf("  m %d n %d k %d: %.1e, added %.1e, bf16 with a bias %.1e\n", int(m), int(n), int(k), plain, added, biased);
    CHECK(plain <= kPartialSums);
    CHECK(added <= kPartialSums);
    CHECK(biased <= gpu::kBf16Error);
  }
}

TEST("products of few rows, with several weights, added and gated") {
  std::mt19937_64 random(4);
  for (const int64_t k : {32, 576, 4096}) {
    const int64_t n[3] = {132, 36, 37};
    std::vector<std::unique_ptr<Operand>> w;
    for (const int64_t rows : n) w.push_back(random_operand(rows, k, random));
    for (int64_t m = 1; m <= kernels::kMatvecRows; ++m) {
      const auto x = gpu::random_bf16(static_cast<size_t>(m * k), random);
      const gpu::Memory<uint16_t> dx(x);
      const gpu::Memory<float> out(static_cast<size_t>(m * n[2]));
      std::vector<double> values;
      for (size_t i = 0; i < x.size(); ++i) values.push_back(gpu::at(x, i));
      GPU(matvec({dx.get(), w[2]->device.get(), WeightType::kE4M3, nullptr, out.get(), Element::kFloat32, m, n[2], k}, gpu::stream()));
      CHECK(gpu::relative_error(out.read(), product(values, w[2]->values, nullptr, false, m, n[2], k)) <= gpu::kFloatError);
      if (m > 1) continue;

      const auto bias = gpu::random_float(static_cast<size_t>(n[2]), random, 10);
      const gpu::Memory<float> dbias(bias);
      std::vector<std::unique_ptr<gpu::Memory<float>>> outs;
      kernels::MatvecRowArgs args{dx.get(), WeightType::kE4M3, k, {}, 3, kernels::MatvecResult::kWrite, Element::kFloat32};
      for (size_t i = 0; i < 3; ++i) {
        outs.push_back(std::make_unique<gpu::Memory<float>>(static_cast<size_t>(n[i])));
        args.parts[i] = {w[i]->device.get(), i == 2 ? dbias.get() : nullptr, outs.back()->get(), n[i]};
      }
      GPU(matvec_row(args, gpu::stream()));
      for (size_t i = 0; i < 3; ++i) CHECK(gpu::relative_error(outs[i]->read(), product(values, w[i]->values, i == 2 ? &bias : nullptr, true, 1, n[i], k)) <= gpu::kFloatError);

      const gpu::Memory<float> sum(bias);
      args.count = 1;
      args.result = kernels::MatvecResult::kAdd;
      args.parts[0] = {w[2]->device.get(), nullptr, sum.get(), n[2]};
      GPU(matvec_row(args, gpu::stream()));
      CHECK(gpu::relative_error(sum.read(), product(values, w[2]->values, &bias, true, 1, n[2], k)) <= gpu::kFloatError);

      const auto gate = random_operand(n[0], k, random);
      const gpu::Memory<uint16_t> gated(static_cast<size_t>(n[0]));
      args.count = 2;
      args.result = kernels::MatvecResult::kGated;
      args.parts[0] = {gate->device.get(), nullptr, gated.get(), n[0]};
      args.parts[1] = {w[0]->device.get(), nullptr, gated.get(), n[0]};
      GPU(matvec_row(args, gpu::stream()));
      const auto g = product(values, gate->values, nullptr, false, 1, n[0], k), u = product(values, w[0]->values, nullptr, false, 1, n[0], k);
      std::vector<double> wanted;
      for (size_t i = 0; i < g.size(); ++i) wanted.push_back(g[i] / (1 + std::exp(-g[i])) * u[i]);
      CHECK(gpu::relative_error(gated.read(), wanted) <= gpu::kBf16Error);
    }
  }
}

TEST("what a kernel does not take is refused, not run") {
  const gpu::Memory<uint16_t> some(8192);
  const kernels::Library& library = gpu::library();
  CHECK(library.quantize_rows({some.get(), some.get(), 4, 40}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(library.quantize_rows({some.get(), some.get(), 1, kernels::kMostE4M3Columns + 32}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(library.quantize_rows({some.get() + 1, some.get(), 4, 64}, gpu::stream()) == kernels::kInvalidAlignment);
  CHECK(library.gate_mul_quantize({some.get(), some.get(), some.get(), 0, 64}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(library.rms_norm({some.get(), Element::kBFloat16, nullptr, some.get(), 4, 64, 1e-5f, 1}, gpu::stream()) == kernels::kUnsupportedType);
  CHECK(library.gemm({some.get(), some.get(), WeightType::kE4M3, nullptr, some.get(), Element::kBFloat16, 16, 16, 40}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(library.gemm({some.get(), some.get(), WeightType::kE4M3, nullptr, some.get(), Element::kBFloat16, 16, 16, 64, 80}, gpu::stream()) == kernels::kUnsupportedType);
  CHECK(library.gemm({some.get(), some.get(), WeightType::kBFloat16, nullptr, some.get(), Element::kBFloat16, 16, 16, 64, 0, 1}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(library.embed({some.get(), WeightType::kE4M3, nullptr, nullptr, 1, 64}, gpu::stream()) == kernels::kUnsupportedType);
  CHECK(library.dequantize({some.get(), WeightType::kE4M3, some.get(), 64}, gpu::stream()) == kernels::kUnsupportedType);
}

TEST_MAIN()
