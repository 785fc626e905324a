// Layers that see only a span of tokens, and heads with sinks, on the CPU against double: one row and many, of every format of pages and on every
// code path.
#include "check.h"
#include "sparse/random_layer.h"

using namespace longview;
using namespace random_layer;

namespace {

// What the layer lets a row see.
Visits visits_of(const Layer& layer) {
  return [&layer](int64_t t, int64_t h) {
    const Case& c = layer.c();
    Visited visited{up_to(c.before + t), {}};
    if (c.span > 0) std::erase_if(visited.keys, [&](int64_t key) { return key <= c.before + t - c.span; });
    if (!c.sinks.empty()) visited.means.push_back(sink_of(c, h));
    return visited;
  };
}

void check_layer(Case c, double bound) {
  for (const bool sinks : {false, true}) {
    c.sinks = sinks ? some_sinks(c) : std::vector<float>();
    Layer layer(c);
    const double worst = worst_error(layer, layer.attend({}), visits_of(layer), 5);
    if (worst > bound) std::printf("  span %lld, %lld tokens behind %lld, %s: %.1e\n", static_cast<long long>(c.span), static_cast<long long>(c.tokens), static_cast<long long>(c.before), name(c.format), worst);
    CHECK(worst <= bound);
  }
}

}  // namespace

TEST("spans shorter than a step, as long as a page, and longer than the context, with sinks and without") {
  for (const Case& shape : std::vector<Case>{{1, 1, 64, 1500, 130}, {2, 3, 64, 1003, 77}, {1, 4, 128, 700, 64}, {1, 7, 96, 900, 33}, {2, 1, 64, 0, 500}, {1, 2, 64, 2291, 1}})
    for (const int64_t span : {0, 1, 24, 127, 128, 129, 700, 5000}) {
      Case c = shape;
      c.span = span;
      check_layer(c, 2e-5);
    }
}

TEST("in every format of pages and code path") {
  for (const std::string& isa : available_cpu_isas())
    for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8, KvFormat::kQ4})
      for (const int64_t span : {0, 100}) {
        check_layer({2, 2, 64, 700, 40, format, Precision::kFloat32, isa, 3, span, {}}, 2e-4);
        check_layer({2, 2, 64, 700, 40, format, Precision::kAuto, isa, 3, span, {}}, 0.08);  // scores of up to 40 in bf16
        check_layer({2, 2, 64, 1700, 1, format, Precision::kFloat32, isa, 3, span, {}}, 2e-4);
      }
}

TEST("a key that no row of a span sees may be no number") {
  Case c{1, 2, 64, 300, 20};
  c.span = 64;
  Layer layer(c);
  const std::vector<float> before = layer.attend({});
  layer.spoil(200);  // rows from 300 on see 237 and later
  const std::vector<float> after = layer.attend({});
  CHECK(before == after);
}

TEST("sinks take their share of what sparse attention visits") {
  Case c{2, 3, 64, 1003, 77};
  c.sinks = some_sinks(c);
  Layer layer(c);
  HeadPlan window = default_plan(Pattern::kAShape), every = default_plan(Pattern::kAdaptive);
  window.sink = 40, window.window = 200;
  every.threshold = 0;  // keeps every block
  std::vector<HeadPlan> plans(static_cast<size_t>(c.heads()), window);
  plans[1] = plans[4] = every;
  plans[2] = plans[5] = {};
  const Visits visits = [&](int64_t t, int64_t h) {
    Visited visited{up_to(c.before + t), {sink_of(c, h)}};
    if (plans[static_cast<size_t>(h)] == window) std::erase_if(visited.keys, [&](int64_t key) { return key >= 40 && key <= c.before + t - 200; });
    return visited;
  };
  CHECK(worst_error(layer, layer.attend(plans), visits, 3) <= 2e-5);
}

TEST_MAIN()
