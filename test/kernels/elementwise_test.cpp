// Embedding, norms, activation, residual and rotary positions against double.
#include <algorithm>
#include <array>
#include <numbers>

#include "base/argmax.h"
#include "base/draw.h"
#include "base/gate_curve.h"
#include "kernels/gpu.h"
#include "model/quant_formats.h"

using namespace longview;
using kernels::Element;
using kernels::WeightType;

namespace {

// Rows as long as `weight`, normed.
template <typename T>
std::vector<double> normed(const std::vector<T>& x, const std::vector<float>& weight, double epsilon) {
  std::vector<double> all;
  for (size_t row = 0; row < x.size(); row += weight.size()) {
    double sum = 0;
    for (size_t i = 0; i < weight.size(); ++i) sum += std::pow(gpu::at(x, row + i), 2);
    for (size_t i = 0; i < weight.size(); ++i) all.push_back(gpu::at(x, row + i) / std::sqrt(sum / static_cast<double>(weight.size()) + epsilon) * weight[i]);
  }
  return all;
}

}  // namespace

TEST("rms_norm of float32 and bf16 rows, in place too") {
  std::mt19937_64 random(1);
  for (const int64_t cols : {1, 31, 64, 128, 257, 576, 4096}) {
    const int64_t rows = 19;
    const auto wide = gpu::random_float(static_cast<size_t>(rows * cols), random, 30);
    const auto narrow = gpu::random_bf16(static_cast<size_t>(rows * cols), random, 0.01f);
    const auto weight = gpu::random_float(static_cast<size_t>(cols), random);
    const gpu::Memory<float> dwide(wide), dweight(weight);
    const gpu::Memory<uint16_t> dnarrow(narrow), out(wide.size());
    GPU(rms_norm({dwide.get(), Element::kFloat32, dweight.get(), out.get(), rows, cols, 1e-6f}, gpu::stream()));
    GPU(rms_norm({dnarrow.get(), Element::kBFloat16, dweight.get(), dnarrow.get(), rows, cols, 1e-3f}, gpu::stream()));
    CHECK(gpu::relative_error(out.read(), normed(wide, weight, 1e-6)) <= gpu::kBf16Error);
    CHECK(gpu::relative_error(dnarrow.read(), normed(narrow, weight, 1e-3)) <= gpu::kBf16Error);
  }
}

TEST("rms_norm of the heads of Q and of K, each by its own weights") {
  std::mt19937_64 random(3);
  for (const auto& [q_rows, k_rows, cols] : std::initializer_list<std::array<int64_t, 3>>{{32, 4, 128}, {9, 3, 64}, {1, 1, 96}, {777, 111, 32}, {5, 0, 256}, {24, 4, 256}, {0, 3, 7}}) {
    const auto q = gpu::random_bf16(static_cast<size_t>(q_rows * cols), random, 3), k = gpu::random_bf16(static_cast<size_t>(k_rows * cols), random);
    const auto q_weight = gpu::random_float(static_cast<size_t>(cols), random), k_weight = gpu::random_float(static_cast<size_t>(cols), random);
    const gpu::Memory<uint16_t> dq(q), dk(k);
    const gpu::Memory<float> dq_weight(q_weight), dk_weight(k_weight);
    GPU(rms_norm_heads({dq.get(), dq_weight.get(), q_rows, dk.get(), dk_weight.get(), k_rows, cols, 1e-6f}, gpu::stream()));
    if (q_rows > 0) CHECK(gpu::relative_error(dq.read(), normed(q, q_weight, 1e-6)) <= gpu::kBf16Error);
    if (k_rows > 0) CHECK(gpu::relative_error(dk.read(), normed(k, k_weight, 1e-6)) <= gpu::kBf16Error);
    CHECK(gpu::library().rms_norm_heads({dq.get(), dq_weight.get(), q_rows, dk.get(), dk_weight.get(), k_rows, 257, 1e-6f}, gpu::stream()) == kernels::kInvalidShape);
  }
}

TEST("queries that grow with their position, far out too, and by one that lies on the device") {
  std::mt19937_64 random(4);
  for (const auto& [rows, cols, first] : std::initializer_list<std::array<int64_t, 3>>{{1, 8, 0}, {300, 64, 100}, {7, 4096, 1 << 20}, {65, 136, (int64_t{1} << 33) + 5}}) {
    const auto q = gpu::random_bf16(static_cast<size_t>(rows * cols), random, 3);
    std::vector<double> wanted;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < cols; ++i) wanted.push_back(gpu::at(q, static_cast<size_t>(r * cols + i)) * (1 + 0.1 * std::log(1 + std::floor(static_cast<double>(first + r) / 128))));
    const gpu::Memory<uint16_t> at_host(q), on_device(q);
    const gpu::Memory<int64_t> position(std::vector<int64_t>{first});
    GPU(scale_queries({at_host.get(), rows, cols, first, 0.1, 128}, gpu::stream()));
    GPU(scale_queries({on_device.get(), rows, cols, 0, 0.1, 128, position.get()}, gpu::stream()));
    CHECK(gpu::relative_error(at_host.read(), wanted) <= gpu::kBf16Error);
    CHECK(on_device.read() == at_host.read());
    CHECK(gpu::library().scale_queries({at_host.get(), rows, cols, first, 0.1, 0}, gpu::stream()) == kernels::kInvalidShape);
  }
}

TEST("gate_mul and add, with large values") {
  std::mt19937_64 random(2);
  const size_t count = 8 * 1237;
  auto gate = gpu::random_bf16(count, random, 20);
  gate[0] = float_to_bf16(-1e30f);
  gate[1] = float_to_bf16(200.0f);
  const auto up = gpu::random_bf16(count, random);
  const auto x = gpu::random_float(count, random);
  const gpu::Memory<uint16_t> dgate(gate), dup(up), gelu(gate);
  const gpu::Memory<float> dx(x);
  GPU(gate_mul({dgate.get(), dup.get(), static_cast<int64_t>(count)}, gpu::stream()));
  GPU(gate_mul({gelu.get(), dup.get(), static_cast<int64_t>(count), {kTanhGelu.linear, kTanhGelu.cubic}}, gpu::stream()));
  GPU(add({dx.get(), dup.get(), static_cast<int64_t>(count)}, gpu::stream()));
  std::vector<double> activated, by_tanh, sum;
  for (size_t i = 0; i < count; ++i) {
    const double g = gpu::at(gate, i), u = gpu::at(up, i);
    activated.push_back(g / (1 + std::exp(-g)) * u);
    by_tanh.push_back(g / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (g + 0.044715 * g * g * g))) * u);
    sum.push_back(x[i] + u);
  }
  CHECK(gpu::relative_error(dgate.read(), activated) <= gpu::kBf16Error);
  CHECK(gpu::relative_error(gelu.read(), by_tanh) <= gpu::kBf16Error);
  CHECK(gpu::relative_error(dx.read(), sum) <= 1e-7);
}

TEST("gates far out on both curves") {
  const std::vector<float> far = {0, -0.0f, 1e-30f, 30, -30, 200, 1e20f, 3e38f};
  for (const kernels::GateCurve curve : {kernels::GateCurve{}, kernels::GateCurve{kTanhGelu.linear, kTanhGelu.cubic}}) {
    std::vector<uint16_t> gate;
    for (const float value : far) gate.push_back(float_to_bf16(value));
    const gpu::Memory<uint16_t> dgate(gate), ones(std::vector<uint16_t>(far.size(), float_to_bf16(1)));
    GPU(gate_mul({dgate.get(), ones.get(), static_cast<int64_t>(far.size()), curve}, gpu::stream()));
    const std::vector<uint16_t> got = dgate.read();
    for (size_t i = 0; i < far.size(); ++i) {
      const float value = bf16_to_float(got[i]), large = bf16_to_float(gate[i]);
      if (large >= 30) CHECK(value == large);
      else CHECK(std::fabs(value) <= 1e-11f);
    }
  }
}

TEST("what is normed before it is added") {
  std::mt19937_64 random(6);
  for (const auto& [rows, cols] : std::initializer_list<std::array<int64_t, 2>>{{1, 8}, {1, 2560}, {3, 5376}, {300, 1160}, {2, kernels::kMostAddNormedColumns}}) {
    const auto x = gpu::random_bf16(static_cast<size_t>(rows * cols), random, 5);
    const auto before = gpu::random_float(static_cast<size_t>(rows * cols), random, 30), weight = gpu::random_float(static_cast<size_t>(cols), random, 20);
    const gpu::Memory<uint16_t> dx(x);
    const gpu::Memory<float> sum(before), dweight(weight);
    GPU(add_normed({sum.get(), dx.get(), dweight.get(), rows, cols, 1e-6f}, gpu::stream()));
    std::vector<double> wanted;
    for (int64_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (int64_t i = 0; i < cols; ++i) squares += std::pow(gpu::at(x, static_cast<size_t>(r * cols + i)), 2);
      for (int64_t i = 0; i < cols; ++i) {
        const auto at = static_cast<size_t>(r * cols + i);
        wanted.push_back(before[at] + gpu::at(x, at) / std::sqrt(squares / static_cast<double>(cols) + 1e-6) * weight[static_cast<size_t>(i)]);
      }
    }
    CHECK(gpu::relative_error(sum.read(), wanted) <= 1e-6);
    CHECK(dx.read() == x);
  }
  const gpu::Memory<float> some(64);
  CHECK(gpu::library().add_normed({some.get(), some.get(), some.get(), 1, 12, 1e-6f}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().add_normed({some.get(), some.get(), some.get(), 1, kernels::kMostAddNormedColumns + 8, 1e-6f}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().add_normed({some.get() + 1, some.get(), some.get(), 1, 16, 1e-6f}, gpu::stream()) == kernels::kInvalidAlignment);
}

TEST("results times the sigmoids of their gates, also of gates far out") {
  std::mt19937_64 random(12);
  for (const int64_t count : {int64_t{8}, int64_t{2048}, int64_t{8 * 1237}, int64_t{3 * 16 * 256}}) {
    const auto x = gpu::random_bf16(static_cast<size_t>(count), random, 5);
    auto gate = gpu::random_bf16(static_cast<size_t>(count), random, 4);
    const float far[] = {0, -0.0f, 100, -80, 3e38f, -3e38f, INFINITY, -INFINITY};  // the first eight of all cases
    for (size_t i = 0; i < 8; ++i) gate[i] = float_to_bf16(far[i]);
    const gpu::Memory<uint16_t> dx(x), dgate(gate);
    GPU(sigmoid_mul({dx.get(), dgate.get(), count}, gpu::stream()));
    const std::vector<uint16_t> got = dx.read();
    int64_t wrong = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double wanted = gpu::at(x, i) / (1 + std::exp(-gpu::at(gate, i)));
      wrong += !(std::fabs(gpu::at(got, i) - wanted) <= std::fabs(wanted) * 0x1.02p-8 + 1e-37);  // rounded to bf16, each by itself
    }
    CHECK(wrong == 0);
    CHECK(dgate.read() == gate);
  }
  const gpu::Memory<uint16_t> some(64);
  CHECK(gpu::library().sigmoid_mul({some.get(), some.get() + 32, 12}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().sigmoid_mul({some.get(), some.get() + 32, 0}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().sigmoid_mul({some.get(), some.get() + 4, 16}, gpu::stream()) == kernels::kInvalidAlignment);
}

TEST("rows that count by the sigmoid of their product with a weight") {
  std::mt19937_64 random(13);
  for (const auto& [tokens, cols, k] : std::initializer_list<std::array<int64_t, 3>>{{1, 512, 2048}, {1, 8, 8}, {37, 72, 4104}, {1000, 2056, 64}, {5, 6144, 24}}) {
    const auto x = gpu::random_bf16(static_cast<size_t>(tokens * cols), random, 5), input = gpu::random_bf16(static_cast<size_t>(tokens * k), random, 1);
    std::vector<float> weight(static_cast<size_t>(k));
    std::normal_distribution<float> normal(0, 2 / std::sqrt(static_cast<float>(k)));
    for (float& w : weight) w = normal(random);
    const gpu::Memory<uint16_t> dx(x), dinput(input);
    const gpu::Memory<float> dweight(weight);
    GPU(scale_rows({dx.get(), dinput.get(), dweight.get(), tokens, cols, k}, gpu::stream()));
    const std::vector<uint16_t> got = dx.read();
    int64_t wrong = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      double product = 0;
      for (int64_t i = 0; i < k; ++i) product += gpu::at(input, static_cast<size_t>(t * k + i)) * static_cast<double>(weight[static_cast<size_t>(i)]);
      for (int64_t i = 0; i < cols; ++i) {
        const double wanted = gpu::at(x, static_cast<size_t>(t * cols + i)) / (1 + std::exp(-product));
        wrong += !(std::fabs(gpu::at(got, static_cast<size_t>(t * cols + i)) - wanted) <= std::fabs(wanted) * 0x1.02p-8 + 1e-30);
      }
    }
    CHECK(wrong == 0);
  }
  const gpu::Memory<uint16_t> some(64);
  const gpu::Memory<float> weights(64);
  CHECK(gpu::library().scale_rows({some.get(), some.get() + 32, weights.get(), 1, 12, 8}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().scale_rows({some.get(), some.get() + 32, weights.get(), 1, 8, 12}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().scale_rows({some.get(), some.get() + 32, weights.get(), 0, 8, 8}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().scale_rows({some.get() + 4, some.get() + 32, weights.get(), 1, 8, 8}, gpu::stream()) == kernels::kInvalidAlignment);
}

TEST("heads that are split in two, bit for bit, and nothing behind them is written") {
  for (const auto& [tokens, heads, d] : std::initializer_list<std::array<int64_t, 3>>{{1, 1, 8}, {1, 16, 256}, {37, 24, 256}, {5, 3, 72}, {1000, 7, 128}, {2, 2, 1024}, {129, 1, 8}, {3, 4096, 16}}) {
    std::vector<uint16_t> x(static_cast<size_t>(tokens * heads * 2 * d)), first, last;
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i * 40503 + i / 65536);
    for (int64_t row = 0; row < tokens * heads; ++row)
      for (int64_t i = 0; i < 2 * d; ++i) (i < d ? first : last).push_back(x[static_cast<size_t>(row * 2 * d + i)]);
    const gpu::Memory<uint16_t> dx(x), dfirst(first.size() + 64), dlast(last.size() + 64);
    GPU(split_heads({dx.get(), dfirst.get(), dlast.get(), tokens, heads, d}, gpu::stream()));
    for (std::vector<uint16_t>* half : {&first, &last}) half->insert(half->end(), 64, uint16_t{0xffff});
    CHECK(dfirst.read() == first);
    CHECK(dlast.read() == last);
  }
  const gpu::Memory<uint16_t> some(4096);
  CHECK(gpu::library().split_heads({some.get(), some.get() + 1024, some.get() + 2048, 1, 1, 12}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().split_heads({some.get(), some.get() + 1024, some.get() + 2048, 0, 1, 8}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().split_heads({some.get(), some.get() + 1024, some.get() + 2048, 1, 4097, 8}, gpu::stream()) == kernels::kInvalidShape);
  CHECK(gpu::library().split_heads({some.get(), some.get() + 1028, some.get() + 2048, 1, 1, 8}, gpu::stream()) == kernels::kInvalidAlignment);
}

TEST("the largest, as on the CPU: the first of equals, -0 equal to 0, NaN behind all") {
  std::mt19937_64 random(5);
  std::vector<uint8_t> zeros(kernels::kLargestWorkspaceBytes, 0);
  const gpu::Memory<uint8_t> workspace(zeros);
  const gpu::Memory<int32_t> index(1);
  const auto check = [&](const std::vector<float>& values) {
    const gpu::Memory<float> x(values);
    GPU(largest({x.get(), static_cast<int64_t>(values.size()), workspace.get(), index.get()}, gpu::stream()));
    CHECK(index.read()[0] == argmax(values));
  };
  for (const size_t count : {size_t{1}, size_t{31}, size_t{257}, size_t{32768}, size_t{49152}, size_t{128256}, size_t{151936}}) {
    std::vector<float> values = gpu::random_float(count, random);
    check(values);
    for (float& x : values) x = std::round(x);  // many equals
    check(values);
    for (float& x : values) x = -std::abs(x);  // -0 among them
    values[count / 2] = 0;
    check(values);
    for (size_t i = 0; i < count; i += 2) values[i] = i % 4 == 0 ? NAN : -NAN;
    check(values);
    values[random() % count] = INFINITY;
    check(values);
    std::fill(values.begin(), values.end(), -INFINITY);
    values[0] = NAN;
    check(values);
    check(std::vector<float>(count, NAN));
  }
}

// Tokens that are drawn from `count` logits by the same random numbers on the device and on the host, under every limit.
void check_draws(size_t count) {
  std::mt19937_64 random(6);
  std::vector<uint8_t> zeros(kernels::kLargestWorkspaceBytes, 0);
  const gpu::Memory<uint8_t> workspace(zeros);
  const gpu::Memory<int32_t> largest(1), token(1);
  const gpu::Memory<uint32_t> weights(static_cast<size_t>(gpu::library().draw_weights(static_cast<int64_t>(count))));
  const auto check = [&](const std::vector<float>& values, const Sampling& sampling) {
    const gpu::Memory<float> x(values);
    GPU(largest({x.get(), static_cast<int64_t>(count), workspace.get(), largest.get()}, gpu::stream()));
    for (int i = 0; i < 20; ++i) {
      const uint64_t number = random();
      GPU(draw({x.get(), static_cast<int64_t>(count), largest.get(), sampling.scale(), sampling.least_weight(), sampling.top_k, sampling.top_p, number, weights.get(), token.get()}, gpu::stream()));
      CHECK(token.read()[0] == draw(values, sampling, number));
    }
  };
  std::vector<float> values = gpu::random_float(count, random);
  for (float& x : values) x *= 4;
  for (const Sampling& sampling : {Sampling{.temperature = 1}, Sampling{.temperature = 0.6f, .top_k = 20, .top_p = 0.95f}, Sampling{.temperature = 100}, Sampling{.temperature = 1e-30f}, Sampling{.temperature = 2, .top_k = 1},
                                   Sampling{.temperature = 1, .top_p = 0}, Sampling{.temperature = 1.5f, .min_p = 0.1f}, Sampling{.temperature = 1, .min_p = 1}})
    check(values, sampling);
  for (float& x : values) x = std::round(x);  // many equals
  check(values, {.temperature = 1, .top_k = 3});
  for (size_t i = 0; i < count; i += 2) values[i] = i % 4 == 0 ? NAN : -INFINITY;
  check(values, {.temperature = 1});
  values[count / 2] = INFINITY;
  check(values, {.temperature = 1});
  check(std::vector<float>(count, NAN), {.temperature = 1});
  check(std::vector<float>(count, -INFINITY), {.temperature = 1});
  check(std::vector<float>(count, 7), {.temperature = 1, .top_p = 0.5f});
}

TEST("drawing from a few logits, as on the CPU") {
  for (const size_t count : {size_t{1}, size_t{31}, size_t{4097}}) check_draws(count);
}

TEST("drawing from those of whole vocabularies, as on the CPU") {
  for (const size_t count : {size_t{49152}, size_t{128256}, size_t{151936}}) check_draws(count);
}

TEST("embeddings of bf16 and quantised tables") {
  std::mt19937_64 random(3);
  const int64_t vocabulary = 50, cols = 512;
  const std::vector<int32_t> tokens = {49, 0, 7, 7, 13};
  const gpu::Memory<int32_t> dtokens(tokens);
  for (const WeightType type : {WeightType::kBFloat16, WeightType::kQ8_0, WeightType::kQ5_0, WeightType::kQ3_K, WeightType::kQ6_K, WeightType::kIQ4_XS, WeightType::kMXFP4}) {
    const int64_t bytes = row_bytes(static_cast<DType>(type), cols);
    std::vector<uint8_t> table(static_cast<size_t>(vocabulary * bytes));
    for (uint8_t& byte : table) byte = static_cast<uint8_t>(random() & 0x3f);  // no exponent of all ones
    const gpu::Memory<uint8_t> dtable(table);
    const gpu::Memory<float> out(tokens.size() * static_cast<size_t>(cols));
    GPU(embed({dtable.get(), type, dtokens.get(), out.get(), static_cast<int64_t>(tokens.size()), cols, 3.7f}, gpu::stream()));
    std::vector<float> row(static_cast<size_t>(cols));
    std::vector<double> wanted;
    for (const int32_t token : tokens) {
      dequantize_row(static_cast<DType>(type), reinterpret_cast<const std::byte*>(table.data()) + token * bytes, row.data(), cols);
      for (const float value : row) wanted.push_back(static_cast<double>(3.7f) * value);
    }
    CHECK(gpu::relative_error(out.read(), wanted) <= 1e-6);
  }
}

TEST("embeddings of rows that are no whole groups") {
  std::mt19937_64 random(5);
  const int64_t cols = 40;
  const auto table = gpu::random_bf16(static_cast<size_t>(7 * cols), random);
  const gpu::Memory<uint16_t> dtable(table);
  const gpu::Memory<int32_t> dtokens(std::vector<int32_t>{6, 0, 6});
  const gpu::Memory<float> out(static_cast<size_t>(3 * cols));
  GPU(embed({dtable.get(), WeightType::kBFloat16, dtokens.get(), out.get(), 3, cols}, gpu::stream()));
  const std::vector<float> got = out.read();
  for (int64_t i = 0; i < cols; ++i)
    for (const int64_t t : {0, 1, 2}) CHECK(got[static_cast<size_t>(t * cols + i)] == bf16_to_float(table[static_cast<size_t>((t == 1 ? 0 : 6) * cols + i)]));
  CHECK(gpu::library().embed({dtable.get(), WeightType::kBFloat16, dtokens.get(), out.get(), 3, 36}, gpu::stream()) == kernels::kInvalidShape);
}

TEST("rotary positions, far out too, and what lands in the pages") {
  std::mt19937_64 random(4);
  struct Case {
    int64_t own, d, half;  // dimensions of a head, of a page's head, pairs that are rotated
  };
  for (const int32_t adjacent : {0, 1})
    for (const auto& [own, d, half] : {Case{64, 64, 16}, Case{64, 64, 32}, Case{128, 128, 64}, Case{128, 128, 32}, Case{128, 128, 24}, Case{96, 128, 48}, Case{48, 64, 12}, Case{256, 256, 32}, Case{256, 256, 128}, Case{256, 256, 12}, Case{192, 256, 24}}) {
      const int64_t heads = 6, kv_heads = 2, tokens = 203, layers = 3, layer = 2, pages = 8193;
      const int64_t first = kernels::kPageTokens * (pages - 2) - 50;  // a million, across page borders
      std::vector<double> frequencies;
      for (int64_t i = 0; i < half; ++i) frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half)));
      const auto q = gpu::random_bf16(static_cast<size_t>(tokens * heads * own), random);
      const auto k = gpu::random_bf16(static_cast<size_t>(tokens * kv_heads * own), random), v = gpu::random_bf16(k.size(), random);
      const gpu::Memory<double> df(frequencies);
      const gpu::Memory<float> cosine(static_cast<size_t>(tokens * half)), sine(static_cast<size_t>(tokens * half));
      const int64_t block = kernels::kPageTokens * d, page = layers * kv_heads * 2 * block;
      const gpu::Memory<uint16_t> dq(q), dk(k), dv(v), storage(static_cast<size_t>(3 * page)), padded(static_cast<size_t>(tokens * heads * d));
      std::vector<void*> pointers(static_cast<size_t>(pages), nullptr);
      for (int64_t i = 0; i < 3; ++i) pointers[static_cast<size_t>(pages - 3 + i)] = storage.get() + i * page;
      const gpu::Memory<void*> table(pointers);
      uint16_t* to = own == d ? dq.get() : padded.get();
      GPU(rope_table({df.get(), cosine.get(), sine.get(), tokens, half, first, 1.5}, gpu::stream()));
      GPU(rope_append({dq.get(), to, dk.get(), dv.get(), cosine.get(), sine.get(), {table.get(), kv_heads, d, layer}, tokens, heads, own, half, first, adjacent}, gpu::stream()));
      // Heads of `width` dimensions, zeros behind their own, times `factor`.
      const auto rotated = [&](const std::vector<uint16_t>& x, int64_t count, int64_t width, double factor) {
        std::vector<double> out;
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t h = 0; h < count; ++h) {
            std::vector<double> head;
            for (int64_t i = 0; i < own; ++i) head.push_back(factor * gpu::at(x, static_cast<size_t>((t * count + h) * own + i)));
            for (int64_t i = 0; i < half; ++i) {
              const double angle = static_cast<double>(first + t) * frequencies[static_cast<size_t>(i)];
              double& a = head[static_cast<size_t>(adjacent ? 2 * i : i)];
              double& b = head[static_cast<size_t>(adjacent ? 2 * i + 1 : i + half)];
              const double x0 = a, y0 = b;
              a = 1.5 * (x0 * std::cos(angle) - y0 * std::sin(angle));
              b = 1.5 * (x0 * std::sin(angle) + y0 * std::cos(angle));
            }
            head.resize(static_cast<size_t>(width), 0);
            out.insert(out.end(), head.begin(), head.end());
          }
        return out;
      };
      const double grown = std::sqrt(static_cast<double>(d) / static_cast<double>(own));
      CHECK(gpu::relative_error((own == d ? dq : padded).read(), rotated(q, heads, d, grown)) <= gpu::kBf16Error);
      const std::vector<uint16_t> written = storage.read();
      std::vector<uint16_t> keys, values;
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t g = 0; g < kv_heads; ++g) {
          const int64_t position = first + t, local = position / kernels::kPageTokens - (pages - 3);
          for (int64_t i = 0; i < own; ++i) {
            const auto at = static_cast<size_t>(local * page + (layer * kv_heads + g) * 2 * block + kernels::page_offset(position % kernels::kPageTokens, i));
            keys.push_back(written[at]);
            values.push_back(written[at + static_cast<size_t>(block)]);
          }
        }
      CHECK(gpu::relative_error(keys, rotated(k, kv_heads, own, 1)) <= gpu::kBf16Error);
      CHECK(values == v);
      // Nothing else was written.
      const auto touched = static_cast<int64_t>(std::count_if(written.begin(), written.end(), [](uint16_t x) { return x != 0xffff; }));
      CHECK(touched == tokens * kv_heads * own * 2);
      if (own != d) continue;
      const gpu::Memory<uint16_t> kept(q);  // not in place
      GPU(rope_append({kept.get(), padded.get(), dk.get(), dv.get(), cosine.get(), sine.get(), {table.get(), kv_heads, d, layer}, tokens, heads, own, half, first, adjacent}, gpu::stream()));
      CHECK(padded.read() == dq.read());
      CHECK(kept.read() == q);
    }
}

TEST("rotary positions of one token, its position on the device") {
  std::mt19937_64 random(6);
  for (const auto& [d, half] : std::initializer_list<std::array<int64_t, 2>>{{64, 32}, {128, 64}, {256, 128}, {256, 32}}) {
    const int64_t heads = 28, kv_heads = 4, first = 300, page = kv_heads * 2 * kernels::kPageTokens * d;
    const auto q = gpu::random_bf16(static_cast<size_t>(heads * d), random), k = gpu::random_bf16(static_cast<size_t>(kv_heads * d), random), v = gpu::random_bf16(k.size(), random);
    std::vector<double> frequencies;
    for (int64_t i = 0; i < half; ++i) frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half)));
    const gpu::Memory<double> df(frequencies);
    const gpu::Memory<int64_t> position(std::vector<int64_t>{first});
    const auto run = [&](int64_t recorded, const int64_t* at) {
      const gpu::Memory<float> cosine(static_cast<size_t>(half)), sine(static_cast<size_t>(half));
      const gpu::Memory<uint16_t> dq(q), dk(k), dv(v), storage(static_cast<size_t>(3 * page));
      const gpu::Memory<void*> table(std::vector<void*>{storage.get(), storage.get() + page, storage.get() + 2 * page});
      GPU(rope_table({df.get(), cosine.get(), sine.get(), 1, half, recorded, 1, at}, gpu::stream()));
      GPU(rope_append({dq.get(), dq.get(), dk.get(), dv.get(), cosine.get(), sine.get(), {table.get(), kv_heads, d, 0}, 1, heads, d, half, recorded, 0, at}, gpu::stream()));
      std::vector<uint16_t> all = dq.read();
      const std::vector<uint16_t> pages = storage.read();
      all.insert(all.end(), pages.begin(), pages.end());
      return all;
    };
    const std::vector<uint16_t> got = run(7, position.get());
    CHECK(got == run(first, nullptr));
    std::vector<double> wanted;
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<double> head;
      for (int64_t i = 0; i < d; ++i) head.push_back(gpu::at(q, static_cast<size_t>(h * d + i)));
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(first) * frequencies[static_cast<size_t>(i)], x = head[static_cast<size_t>(i)], y = head[static_cast<size_t>(i + half)];
        head[static_cast<size_t>(i)] = x * std::cos(angle) - y * std::sin(angle);
        head[static_cast<size_t>(i + half)] = x * std::sin(angle) + y * std::cos(angle);
      }
      wanted.insert(wanted.end(), head.begin(), head.end());
    }
    CHECK(gpu::relative_error(std::vector<uint16_t>(got.begin(), got.begin() + heads * d), wanted) <= gpu::kBf16Error);
  }
}

TEST("pages that become full get the means of their keys and values, others keep what they had") {
  std::mt19937_64 random(5);
  for (const int64_t d : {64, 128, 256}) {
    const int64_t heads = 4, kv_heads = 2, half = d / 2, layers = 2, layer = 1, pages = 4, page = kernels::page_elements(layers, kv_heads, d, true);
    const gpu::Memory<uint16_t> storage(static_cast<size_t>(pages * page));
    std::vector<void*> pointers;
    for (int64_t i = 0; i < pages; ++i) pointers.push_back(storage.get() + i * page);
    const gpu::Memory<void*> table(pointers);
    const gpu::Memory<double> frequencies(std::vector<double>(static_cast<size_t>(half), 0.01));
    const gpu::Memory<float> cosine(static_cast<size_t>(pages * kernels::kPageTokens * half)), sine(static_cast<size_t>(pages * kernels::kPageTokens * half));
    int64_t first = 0;
    for (const int64_t tokens : {100, 27, 1, 200, 129}) {  // 0 .. 456: three pages full, in pieces
      auto v = gpu::random_bf16(static_cast<size_t>(tokens * kv_heads * d), random), k = v;
      for (uint16_t& x : k) x = float_to_bf16(bf16_to_float(x) + 8);
      const gpu::Memory<uint16_t> q(static_cast<size_t>(tokens * heads * d)), dk(k), dv(v);
      GPU(rope_table({frequencies.get(), cosine.get(), sine.get(), tokens, half, first, 1}, gpu::stream()));
      GPU(rope_append({q.get(), q.get(), dk.get(), dv.get(), cosine.get(), sine.get(), {table.get(), kv_heads, d, layer, layers}, tokens, heads, d, half, first, 0}, gpu::stream()));
      first += tokens;
      const std::vector<uint16_t> got = storage.read();
      for (int64_t p = 0; p < pages; ++p)
        for (int64_t g = 0; g < kv_heads; ++g)
          for (const bool value : {false, true}) {
            const int64_t mean = p * page + kernels::page_mean_offset(layers, kv_heads, d, layer, g) + value * d, block = p * page + ((layer * kv_heads + g) * 2 + value) * kernels::kPageTokens * d;
            const std::vector<uint16_t> made(got.begin() + mean, got.begin() + mean + d);
            if ((p + 1) * kernels::kPageTokens > first) {
              CHECK(std::all_of(made.begin(), made.end(), [](uint16_t x) { return x == 0xffff; }));
              continue;
            }
            std::vector<double> wanted(static_cast<size_t>(d), 0);
            for (int64_t t = 0; t < kernels::kPageTokens; ++t)
              for (int64_t i = 0; i < d; ++i) wanted[static_cast<size_t>(i)] += gpu::at(got, static_cast<size_t>(block + kernels::page_offset(t, i))) / kernels::kPageTokens;
            CHECK(gpu::relative_error(made, wanted) <= gpu::kBf16Error);
          }
    }
  }
}

TEST_MAIN()
