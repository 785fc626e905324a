// A layer's mixture of experts on every code path of the CPU against double: shares that add up to 1 and shares of all, one token and
// many, experts that nobody chose, and scores that are no numbers.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "backend/backend.h"
#include "check.h"
#include "model/quant_formats.h"

using namespace longview;

namespace {

constexpr int64_t kExperts = 11, kUsed = 3, kHidden = 64, kFfn = 96;
constexpr float kEpsilon = 1e-6f;

struct Layer {
  std::vector<float> norm, router;
  std::vector<std::vector<float>> gates, ups, downs;
  // gpt-oss's: [experts], [experts * ffn] twice, [experts * hidden]; empty where there are none.
  std::vector<float> router_bias = {}, gate_biases = {}, up_biases = {}, down_biases = {};
};

Layer random_layer(uint32_t seed, bool biased = false) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  const auto some = [&](int64_t count, float scale) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& x : out) x = scale * normal(random);
    return out;
  };
  Layer layer{some(kHidden, 1), some(kExperts * kHidden, 0.3f), {}, {}, {}};
  if (biased) layer.router_bias = some(kExperts, 1), layer.gate_biases = some(kExperts * kFfn, 5), layer.up_biases = some(kExperts * kFfn, 5), layer.down_biases = some(kExperts * kHidden, 1);
  for (int64_t d = 0; d < kHidden; ++d) layer.router[static_cast<size_t>(7 * kHidden + d)] = 0;  // of all scores alike, and seldom chosen
  for (int64_t e = 0; e < kExperts; ++e) {
    layer.gates.push_back(some(kFfn * kHidden, 0.15f));
    layer.ups.push_back(some(kFfn * kHidden, 0.15f));
    layer.downs.push_back(some(kHidden * kFfn, 0.15f));
  }
  return layer;
}

TensorView view(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return {DType::kF32, rows, cols, reinterpret_cast<const std::byte*>(values.data()), static_cast<int64_t>(values.size() * sizeof(float))};
}
std::vector<TensorView> views(const std::vector<std::vector<float>>& matrices, int64_t rows, int64_t cols) {
  std::vector<TensorView> out;
  for (const auto& matrix : matrices) out.push_back(view(matrix, rows, cols));
  return out;
}

double dot(const float* row, const std::vector<double>& x) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(row[i]) * x[i];
  return sum;
}

double bias(const std::vector<float>& biases, int64_t at) { return biases.empty() ? 0.0 : static_cast<double>(biases[static_cast<size_t>(at)]); }

// What is added to one token.
std::vector<double> reference(const Layer& layer, const float* hidden, bool normalised) {
  double squares = 0;
  for (int64_t d = 0; d < kHidden; ++d) squares += static_cast<double>(hidden[d]) * hidden[d];
  std::vector<double> x, scores, out(static_cast<size_t>(kHidden));
  for (int64_t d = 0; d < kHidden; ++d) x.push_back(hidden[d] / std::sqrt(squares / kHidden + static_cast<double>(kEpsilon)) * layer.norm[static_cast<size_t>(d)]);
  for (int64_t e = 0; e < kExperts; ++e) scores.push_back(dot(layer.router.data() + e * kHidden, x) + bias(layer.router_bias, e));
  std::vector<size_t> order(static_cast<size_t>(kExperts));
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  double sum = 0;
  for (int64_t i = 0; i < (normalised ? kUsed : kExperts); ++i) sum += std::exp(scores[order[static_cast<size_t>(i)]]);
  for (int64_t i = 0; i < kUsed; ++i) {
    const size_t e = order[static_cast<size_t>(i)];
    std::vector<double> middle;
    for (int64_t f = 0; f < kFfn; ++f) {
      const int64_t at = static_cast<int64_t>(e) * kFfn + f;
      const double gate = dot(layer.gates[e].data() + f * kHidden, x) + bias(layer.gate_biases, at), up = dot(layer.ups[e].data() + f * kHidden, x) + bias(layer.up_biases, at);
      const double least = std::min(gate, 7.0);
      middle.push_back(layer.gate_biases.empty() ? gate / (1 + std::exp(-gate)) * up : least / (1 + std::exp(-1.702 * least)) * (1 + std::clamp(up, -7.0, 7.0)));
    }
    for (int64_t d = 0; d < kHidden; ++d)
      out[static_cast<size_t>(d)] += std::exp(scores[e]) / sum * (dot(layer.downs[e].data() + d * kFfn, middle) + bias(layer.down_biases, static_cast<int64_t>(e) * kHidden + d));
  }
  return out;
}

struct Run {
  std::unique_ptr<Backend> backend;
  WeightHandle norm, router, gates, ups, downs, router_bias, gate_biases, up_biases, down_biases;

  Run(const Layer& layer, const std::string& isa) {
    CpuOptions options;
    options.isa = isa;
    options.precision = Precision::kFloat32;
    options.threads = 3;
    backend = make_cpu_backend(options);
    norm = backend->upload(view(layer.norm, 1, kHidden));
    router = backend->upload(view(layer.router, kExperts, kHidden));
    gates = backend->upload_experts(views(layer.gates, kFfn, kHidden));
    ups = backend->upload_experts(views(layer.ups, kFfn, kHidden));
    downs = backend->upload_experts(views(layer.downs, kHidden, kFfn));
    const auto vector = [&](const std::vector<float>& values) { return values.empty() ? WeightHandle() : backend->upload(view(values, 1, static_cast<int64_t>(values.size()))); };
    router_bias = vector(layer.router_bias), gate_biases = vector(layer.gate_biases), up_biases = vector(layer.up_biases), down_biases = vector(layer.down_biases);
  }
  std::vector<float> add(const std::vector<float>& hidden, bool normalised) {
    const auto tokens = static_cast<int64_t>(hidden.size()) / kHidden;
    Activation sum = backend->allocate_float(tokens, kHidden), normed = backend->allocate(tokens, kHidden);
    std::copy(hidden.begin(), hidden.end(), static_cast<float*>(sum.data));
    backend->norm_add_experts(sum, *norm, kEpsilon, normed, {router.get(), gates.get(), ups.get(), downs.get(), kUsed, normalised, router_bias.get(), gate_biases.get(), up_biases.get(), down_biases.get(), gate_biases != nullptr});
    std::vector<float> out(static_cast<float*>(sum.data), static_cast<float*>(sum.data) + hidden.size());
    backend->release(sum);
    backend->release(normed);
    return out;
  }
};

std::vector<float> random_hidden(int64_t tokens, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> out(static_cast<size_t>(tokens * kHidden));
  for (float& x : out) x = normal(random);
  return out;
}

}  // namespace

static void check_on_every_path(const Layer& layer, double bound) {
  for (const std::string& isa : available_cpu_isas()) {
    Run run(layer, isa);
    double worst = 0;
    for (const bool normalised : {true, false})
      for (const int64_t tokens : {1, 2, 7, 300}) {
        const std::vector<float> hidden = random_hidden(tokens, static_cast<uint32_t>(tokens));
        const std::vector<float> got = run.add(hidden, normalised);
        for (int64_t t = 0; t < tokens; ++t) {
          const std::vector<double> added = reference(layer, hidden.data() + t * kHidden, normalised);
          for (int64_t d = 0; d < kHidden; ++d) worst = std::max(worst, std::fabs(got[static_cast<size_t>(t * kHidden + d)] - hidden[static_cast<size_t>(t * kHidden + d)] - added[static_cast<size_t>(d)]));
        }
      }
    std::printf("  %s: worst %.1e\n", isa.c_str(), worst);
    CHECK(worst <= bound);
  }
}

TEST("experts against double, on every code path") { check_on_every_path(random_layer(1), 2e-5); }

TEST("gpt-oss's experts: biases, and halves that are bounded") { check_on_every_path(random_layer(3, true), 2e-4); }

TEST("a token that is no number stays alone with it") {
  const Layer layer = random_layer(2);
  Run run(layer, "");
  std::vector<float> hidden = random_hidden(20, 5);
  const std::vector<float> whole = run.add(hidden, true);
  hidden[static_cast<size_t>(9 * kHidden + 3)] = NAN;
  const std::vector<float> got = run.add(hidden, true);
  for (int64_t t = 0; t < 20; ++t)
    for (int64_t d = 0; d < kHidden; ++d) {
      const auto at = static_cast<size_t>(t * kHidden + d);
      CHECK(t == 9 ? std::isnan(got[at]) : std::fabs(got[at] - whole[at]) <= 2e-5f);
    }
}

TEST_MAIN()
