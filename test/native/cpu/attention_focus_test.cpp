// Squared attention weights on the CPU, against double, in every format of pages and code path.
#include "check.h"
#include "sparse/random_layer.h"

using namespace longview;
using namespace random_layer;

namespace {

// The largest error of a key, and the error of all, relative to the sum of all; that sum.
struct Errors {
  double worst = 0, all = 0, total = 0;
};

Errors errors(const Layer& layer, std::span<const float> focus) {
  const Case& c = layer.c();
  std::vector<double> expected(focus.size(), 0);
  for (int64_t t = 0; t < c.tokens; ++t)
    for (int64_t h = 0; h < c.heads(); ++h) {
      std::vector<double> weights;
      for (int64_t key = 0; key <= c.before + t; ++key) weights.push_back(layer.score(t, h, key));
      const double maximum = *std::max_element(weights.begin(), weights.end());
      double sum = 0;
      for (double& x : weights) sum += x = std::exp(x - maximum);
      if (!c.sinks.empty()) sum += std::exp(static_cast<double>(c.sinks[static_cast<size_t>(h)]) - maximum);
      for (size_t key = 0; key < std::min(focus.size(), weights.size()); ++key) expected[key] += weights[key] * weights[key] / (sum * sum);
    }
  const double total = std::accumulate(expected.begin(), expected.end(), 0.0);
  Errors out;
  out.total = total;
  for (size_t key = 0; key < focus.size(); ++key) {
    const double off = std::isfinite(focus[key]) ? std::fabs(static_cast<double>(focus[key]) - expected[key]) / total : 1e300;
    out.worst = std::max(out.worst, off);
    out.all += off;
  }
  return out;
}

}  // namespace

TEST("each key has the squares of its weights, over all rows and heads") {
  for (const Case& c : std::vector<Case>{{1, 1, 16, 1, 1}, {2, 3, 64, 700, 37}, {1, 4, 128, 129, 128}, {3, 1, 96, 0, 65}, {1, 2, 64, 5000, 1}}) {
    Layer layer(c);
    for (const int64_t keys : {std::max<int64_t>(1, c.before), c.end(), int64_t{1}}) {
      const Errors e = errors(layer, layer.focus(keys));
      CHECK(e.worst < 1e-4);
      CHECK(e.all < 1e-3);
    }
  }
}

TEST("in every format of pages and code path") {
  for (const std::string& isa : available_cpu_isas())
    for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8, KvFormat::kQ4})
      for (const Precision precision : {Precision::kAuto, Precision::kFloat32}) {
        Layer layer({2, 2, 64, 300, 20, format, precision, isa});
        const Errors e = errors(layer, layer.focus(300));
        CHECK(e.worst < 0.01);  // scores of up to 40 in bf16
        CHECK(e.all < 0.05);
      }
}

TEST("heads with sinks") {
  for (Case c : std::vector<Case>{{1, 4, 64, 300, 9}, {2, 3, 64, 700, 37}}) {
    c.sinks = some_sinks(c);
    Layer layer(c);
    const Errors e = errors(layer, layer.focus(c.before));
    CHECK(e.worst * e.total <= 1e-4);
    CHECK(e.all < 1e-3);
  }
}

TEST("what was taken does not come again") {
  Layer layer({1, 2, 64, 200, 3});
  const std::vector<float> first = layer.focus(200);
  const std::vector<float> second = layer.focus(200);
  for (size_t key = 0; key < first.size(); ++key) CHECK_NEAR(second[key], first[key], 1e-5 * (first[key] + 1));
}

TEST_MAIN()
