// Mixtures of experts against double: the choice, rows in the experts' order, products in tiles of groups, and few tokens that read
// their experts as they are stored.
#include <algorithm>
#include <array>
#include <numeric>
#include <set>

#include "kernels/gpu.h"
#include "kernels/random_weights.h"

using namespace longview;
using namespace gpu;
using kernels::Element;
using kernels::WeightType;

namespace {

struct Choices {
  std::vector<int32_t> chosen;
  std::vector<double> shares;
};

// By the declaration of launch_choose_experts.
Choices choose(const std::vector<float>& scores, int64_t tokens, int64_t experts, int64_t used, bool normalised) {
  Choices out;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* s = scores.data() + t * experts;
    std::vector<int32_t> order(static_cast<size_t>(experts));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return std::isnan(s[b]) ? !std::isnan(s[a]) : s[a] > s[b]; });
    double sum = 0;
    for (int64_t i = 0; i < (normalised ? used : experts); ++i) sum += std::exp(static_cast<double>(s[order[static_cast<size_t>(i)]]) - s[order[0]]);
    for (int64_t i = 0; i < used; ++i) {
      out.chosen.push_back(order[static_cast<size_t>(i)]);
      out.shares.push_back(std::exp(static_cast<double>(s[order[static_cast<size_t>(i)]]) - s[order[0]]) / sum);
    }
  }
  return out;
}

// Random ones, each token's different from each other; `few` of the experts alone where it is not 0.
std::vector<int32_t> random_choices(int64_t tokens, int64_t experts, int64_t used, int64_t few, std::mt19937_64& random) {
  std::vector<int32_t> out, all(static_cast<size_t>(few ? few : experts));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    std::shuffle(all.begin(), all.end(), random);
    out.insert(out.end(), all.begin(), all.begin() + used);
  }
  return out;
}

std::vector<float> floats(WeightType type, const std::vector<uint8_t>& bytes, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  dequantize_row(static_cast<DType>(type), reinterpret_cast<const std::byte*>(bytes.data()), values.data(), count);
  return values;
}

// By Experts::clamped of native/backend/backend.h.
double clamped(double gate, double up) {
  gate = std::min(gate, 7.0);
  return gate / (1 + std::exp(-1.702 * gate)) * (1 + std::clamp(up, -7.0, 7.0));
}

double dot(const float* a, const float* b, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace

TEST("the experts of a token and their shares") {
  std::mt19937_64 random(1);
  for (const auto& [tokens, experts, used] : std::initializer_list<std::array<int64_t, 3>>{{1, 1, 1}, {1, 128, 8}, {5, 8, 3}, {130, 128, 8}, {3, 512, 32}, {7, 33, 32}, {64, 60, 4}}) {
    std::vector<float> scores = random_float(static_cast<size_t>(tokens * experts), random, 2);
    if (experts > 8) scores[1] = scores[5] = 30, scores[static_cast<size_t>(experts) - 1] = -INFINITY;  // equals, and one of no weight
    for (const bool normalised : {true, false}) {
      const Memory<float> in(scores), shares(static_cast<size_t>(tokens * used));
      const Memory<int32_t> chosen(static_cast<size_t>(tokens * used));
      GPU(choose_experts({in.get(), chosen.get(), shares.get(), tokens, experts, used, normalised}, stream()));
      const Choices wanted = choose(scores, tokens, experts, used, normalised);
      CHECK(chosen.read() == wanted.chosen);
      CHECK(relative_error(shares.read(), wanted.shares) <= 1e-5);
    }
  }
  // Scores that are no numbers: experts that there are, each once, and no share that looks like one.
  const std::vector<float> scores{NAN, 1, NAN, 2, NAN, NAN, NAN, NAN};
  const Memory<float> in(scores), shares(4);
  const Memory<int32_t> chosen(4);
  GPU(choose_experts({in.get(), chosen.get(), shares.get(), 1, 8, 4, 1}, stream()));
  CHECK((chosen.read() == std::vector<int32_t>{3, 1, 0, 2}));
  for (const float share : shares.read()) CHECK(std::isnan(share));
  for (const auto& [tokens, experts, used] : std::initializer_list<std::array<int64_t, 3>>{{0, 8, 2}, {1, 513, 2}, {1, 8, 9}, {1, 64, 33}, {1, 8, 0}})
    CHECK(library().choose_experts({in.get(), chosen.get(), shares.get(), tokens, experts, used, 1}, stream()) == kernels::kInvalidShape);
}

TEST("rows in the order of experts, gathered, multiplied by their group's matrix and put back") {
  std::mt19937_64 random(2);
  struct Case {
    int64_t tokens, experts, used, few, n, k;
  };
  for (const auto& [tokens, experts, used, few, n, k] : std::initializer_list<Case>{
           {1, 8, 3, 0, 40, 64}, {2, 1, 1, 0, 8, 8}, {300, 8, 3, 0, 264, 72}, {300, 8, 3, 4, 48, 200}, {129, 128, 8, 0, 96, 64}, {4096, 16, 2, 0, 257, 40}, {513, 512, 4, 0, 16, 32}, {1000, 5, 5, 0, 300, 136}}) {
    const int64_t rows = kernels::grouped_rows(tokens, experts, used);
    const std::vector<int32_t> chosen = random_choices(tokens, experts, used, few, random);
    const Memory<int32_t> dchosen(chosen), counts(static_cast<size_t>(experts)), places(chosen.size()), row_tokens(static_cast<size_t>(rows)), groups(static_cast<size_t>(rows / kernels::kGroupRows));
    GPU(group_experts({dchosen.get(), counts.get(), places.get(), row_tokens.get(), groups.get(), tokens, experts, used}, stream()));
    const std::vector<int32_t> place = places.read(), token = row_tokens.read(), group = groups.read();
    // Every choice has a row of its own, in a tile of its expert; rows ascend by expert, then by token; the others are padding.
    std::set<int32_t> taken;
    int64_t last = -1, wrong = 0;
    std::vector<size_t> order(chosen.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return chosen[a] < chosen[b]; });
    for (const size_t i : order) {
      const int32_t row = place[i];
      if (row < 0 || row >= rows) {
        ++wrong;
        continue;
      }
      wrong += !taken.insert(row).second || row <= last || group[static_cast<size_t>(row / kernels::kGroupRows)] != chosen[i] || token[static_cast<size_t>(row)] != static_cast<int32_t>(i) / used;
      last = row;
    }
    for (int64_t row = 0; row < rows; ++row) wrong += group[static_cast<size_t>(row / kernels::kGroupRows)] >= 0 && !taken.contains(static_cast<int32_t>(row)) && token[static_cast<size_t>(row)] != -1;
    CHECK(wrong == 0);

    const auto x = random_bf16(static_cast<size_t>(tokens * k), random), w = random_bf16(static_cast<size_t>(experts * n * k), random);
    const Memory<uint16_t> dx(x), dw(w), gathered(static_cast<size_t>(rows * k));
    GPU(gather_rows({dx.get(), row_tokens.get(), groups.get(), gathered.get(), rows, k}, stream()));
    std::vector<double> wanted;
    for (size_t i = 0; i < chosen.size(); ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < k; ++l) sum += at(x, i / static_cast<size_t>(used) * static_cast<size_t>(k) + static_cast<size_t>(l)) * at(w, static_cast<size_t>((chosen[i] * n + j) * k + l));
        wanted.push_back(sum);
      }
    for (const int32_t architecture : {0, 80}) {
      const Memory<uint16_t> out(static_cast<size_t>(rows * n));
      GPU(gemm({gathered.get(), dw.get(), WeightType::kBFloat16, nullptr, out.get(), Element::kBFloat16, rows, n, k, architecture, 0, groups.get(), experts}, stream()));
      const std::vector<uint16_t> all = out.read();
      std::vector<uint16_t> got;
      for (const int32_t row : place) got.insert(got.end(), all.begin() + row * n, all.begin() + (row + 1) * n);
      const double error = relative_error(got, wanted);
      if (!(error <= kBf16Error)) std::printf("  %d tokens, %d experts, n %d k %d, architecture %d: %.1e\n", int(tokens), int(experts), int(n), int(k), architecture, error);
      CHECK(error <= kBf16Error);
      if (n % 8 != 0) continue;
      const auto before = random_float(static_cast<size_t>(tokens * n), random, 10), shares = random_float(chosen.size(), random);
      const Memory<float> sum(before), dshares(shares);
      GPU(combine_experts({out.get(), places.get(), dshares.get(), sum.get(), tokens, used, n}, stream()));
      std::vector<double> combined(before.begin(), before.end());
      for (size_t i = 0; i < chosen.size(); ++i)
        for (int64_t j = 0; j < n; ++j) combined[i / static_cast<size_t>(used) * static_cast<size_t>(n) + static_cast<size_t>(j)] += shares[i] * at(got, i * static_cast<size_t>(n) + static_cast<size_t>(j));
      CHECK(relative_error(sum.read(), combined) <= kFloatError);

      const auto biases = random_float(static_cast<size_t>(experts * n), random);
      const Memory<float> dbiases(biases), biased(before);
      GPU(combine_experts({out.get(), places.get(), dshares.get(), biased.get(), tokens, used, n, dchosen.get(), dbiases.get()}, stream()));
      for (size_t i = 0; i < chosen.size(); ++i)
        for (int64_t j = 0; j < n; ++j) combined[i / static_cast<size_t>(used) * static_cast<size_t>(n) + static_cast<size_t>(j)] += static_cast<double>(shares[i]) * biases[static_cast<size_t>(chosen[i] * n + j)];
      CHECK(relative_error(biased.read(), combined) <= kFloatError);

      // Halves of gpt-oss's experts, some beyond their bounds.
      const auto gates = random_bf16(static_cast<size_t>(rows * n), random, 6), ups = random_bf16(gates.size(), random, 6);
      const Memory<uint16_t> halves(gates), other(ups);
      GPU(activate_experts({halves.get(), other.get(), groups.get(), dbiases.get(), dbiases.get(), rows, n}, stream()));
      const std::vector<uint16_t> activated = halves.read();
      std::vector<uint16_t> seen;
      std::vector<double> expected;
      for (size_t i = 0; i < chosen.size(); ++i)
        for (int64_t j = 0; j < n; ++j) {
          const auto at_row = static_cast<size_t>(place[i] * n + j);
          const double bias = biases[static_cast<size_t>(chosen[i] * n + j)];
          seen.push_back(activated[at_row]);
          expected.push_back(clamped(at(gates, at_row) + bias, at(ups, at_row) + bias));
        }
      CHECK(relative_error(seen, expected) <= kBf16Error);
    }
  }
}

TEST("products in groups are refused where tiles are not whole, and with what only one matrix has") {
  const Memory<uint16_t> some(1 << 16);
  const Memory<int32_t> groups(std::vector<int32_t>{0, 1});
  const Memory<float> bias(64);
  kernels::GemmArgs args{some.get(), some.get(), WeightType::kBFloat16, nullptr, some.get(), Element::kBFloat16, 256, 64, 64, 0, 0, groups.get(), 2};
  args.m = 200;
  CHECK(library().gemm(args, stream()) == kernels::kInvalidShape);
  args.m = 256, args.bias = bias.get();
  CHECK(library().gemm(args, stream()) == kernels::kInvalidShape);
  args.bias = nullptr, args.group_count = 0;
  CHECK(library().gemm(args, stream()) == kernels::kInvalidShape);
}

TEST("few tokens through their experts, of every type") {
  std::mt19937_64 random(3);
  std::vector<WeightType> types(std::begin(kQuantized), std::end(kQuantized));
  types.push_back(WeightType::kBFloat16);
  for (const WeightType type : types)
    for (const auto& [tokens, exact] : std::initializer_list<std::pair<int64_t, bool>>{{1, false}, {4, false}, {1, true}, {33, true}}) {
      const int64_t experts = 9, used = 5, ffn = 256 * 3 + (type == WeightType::kBFloat16 ? 8 : 0), hidden = 512;
      const std::vector<int32_t> chosen = random_choices(tokens, experts, used, 0, random);
      const auto x = random_bf16(static_cast<size_t>(tokens * hidden), random);
      const auto shares = random_float(chosen.size(), random), before = random_float(static_cast<size_t>(tokens * hidden), random, 10);
      const std::vector<uint8_t> gate = random_weights(type, experts * ffn * hidden, random), up = random_weights(type, experts * ffn * hidden, random), down = random_weights(type, experts * hidden * ffn, random);
      const std::vector<float> gates = floats(type, gate, experts * ffn * hidden), ups = floats(type, up, experts * ffn * hidden), downs = floats(type, down, experts * hidden * ffn);
      const Memory<uint16_t> dx(x), activated(chosen.size() * static_cast<size_t>(ffn));
      const Memory<uint8_t> dgate(gate), dup(up), ddown(down);
      const Memory<int32_t> dchosen(chosen);
      const Memory<float> dshares(shares), sum(before);
      const bool biased = tokens % 4 != 0;
      const auto biases = random_float(static_cast<size_t>(experts * std::max(ffn, hidden)), random, 4);
      const Memory<float> dbiases(biases);
      const float* on_device = biased ? dbiases.get() : nullptr;
      const auto bias = [&](size_t i, int64_t rows, int64_t row) { return static_cast<double>(biases[static_cast<size_t>(chosen[i] * rows + row)]); };
      GPU(expert_gates({dx.get(), type, dgate.get(), dup.get(), dchosen.get(), activated.get(), tokens, used, ffn, hidden, exact, on_device, on_device}, stream()));
      const std::vector<float> met = as_met(exact ? WeightType::kBFloat16 : type, x);
      std::vector<double> wanted;
      for (size_t i = 0; i < chosen.size(); ++i)
        for (int64_t j = 0; j < ffn; ++j) {
          const float* row = met.data() + static_cast<int64_t>(i) / used * hidden;
          const double g = dot(row, gates.data() + (chosen[i] * ffn + j) * hidden, hidden), u = dot(row, ups.data() + (chosen[i] * ffn + j) * hidden, hidden);
          wanted.push_back(biased ? clamped(g + bias(i, ffn, j), u + bias(i, ffn, j)) : g / (1 + std::exp(-g)) * u);
        }
      const std::vector<uint16_t> middle = activated.read();
      CHECK(relative_error(middle, wanted) <= kBf16Error);

      GPU(expert_downs({activated.get(), type, ddown.get(), dchosen.get(), dshares.get(), sum.get(), tokens, used, hidden, ffn, exact, on_device}, stream()));
      const std::vector<float> met_middle = as_met(exact ? WeightType::kBFloat16 : type, middle);
      std::vector<double> total(before.begin(), before.end());
      for (size_t i = 0; i < chosen.size(); ++i)
        for (int64_t j = 0; j < hidden; ++j)
          total[i / static_cast<size_t>(used) * static_cast<size_t>(hidden) + static_cast<size_t>(j)] += shares[i] * (dot(met_middle.data() + static_cast<int64_t>(i) * ffn, downs.data() + (chosen[i] * hidden + j) * ffn, ffn) + (biased ? bias(i, hidden, j) : 0));
      const double error = relative_error(sum.read(), total);
      if (!(error <= kFloatError)) std::printf("  type %d, %d tokens: %.1e\n", int(type), int(tokens), error);
      CHECK(error <= kFloatError);
    }
  CHECK(kernels::expert_downs_fit(8, 768) && kernels::expert_gates_fit(8192) && !kernels::expert_downs_fit(32, 4096));
}

TEST_MAIN()
