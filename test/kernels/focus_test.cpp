// Squared softmax weights by key, against double.
#include "kernels/sparse_case.h"

using namespace longview;
using namespace sparse_case;

namespace {

// Of keys 0 .. keys - 1, added to 1 that stands there before.
void check_focus(const Shape& s, int64_t keys, Data data, int32_t architecture, const std::vector<float>& sinks = {}) {
  const Context c(s, std::vector<HeadGroup>(static_cast<size_t>(s.kv_heads), dense()), data);
  kernels::FocusArgs args{c.args().q, c.args().kv, s.tokens, s.heads, s.first, nullptr, keys, nullptr, architecture};
  const gpu::Memory<float> dsinks(sinks.empty() ? std::vector<float>(1) : sinks);
  if (!sinks.empty()) args.sinks = dsinks.get();
  const gpu::Memory<float> focus(std::vector<float>(static_cast<size_t>(keys), 1.0f)), workspace(static_cast<size_t>(kernels::focus_workspace_floats(args)));
  args.focus = focus.get();
  args.workspace = workspace.get();
  GPU(focus(args, gpu::stream()));

  std::vector<std::vector<double>> expected(static_cast<size_t>(s.heads), std::vector<double>(static_cast<size_t>(keys), 0));
  in_parallel(expected.size(), [&](size_t h) {
    for (int64_t t = 0; t < s.tokens; ++t) {
      std::vector<double> weights(static_cast<size_t>(s.first + t + 1));
      for (size_t key = 0; key < weights.size(); ++key) weights[key] = c.score(t, static_cast<int64_t>(h), static_cast<int64_t>(key));
      const double highest = *std::max_element(weights.begin(), weights.end());
      double sum = 0;
      for (double& x : weights) sum += x = std::exp(x - highest);
      if (!sinks.empty()) sum += std::exp(sinks[h] - highest);
      for (size_t key = 0; key < std::min(weights.size(), expected[h].size()); ++key) expected[h][key] += weights[key] / sum * (weights[key] / sum);
    }
  });
  const std::vector<float> got = focus.read();
  double worst = 0, total = 0, error = 0;
  for (size_t key = 0; key < got.size(); ++key) {
    double want = 0;
    for (const auto& head : expected) want += head[key];
    total += want;
    error += std::fabs(static_cast<double>(got[key]) - 1 - want);
    worst = std::max(worst, std::fabs(static_cast<double>(got[key]) - 1 - want) / (want + 1e-3));
  }
  CHECK(worst < 5e-3);
  CHECK(error < 2e-3 * total + 1e-4 * static_cast<double>(keys) * 1e-2);
}

}  // namespace

TEST("ragged chunks behind contexts of any length, on all architectures' kernels") {
  for (const Shape& s : std::vector<Shape>{{1, 5000, 4, 1, 128}, {128, 4000, 9, 3, 64}, {37, 9001, 14, 2, 128}, {128, 0, 4, 4, 64}, {300, 100, 8, 2, 128}, {5, 40000, 7, 1, 64}, {1, 5000, 4, 1, 256}, {37, 9001, 24, 4, 256}, {128, 4000, 12, 1, 256}, {300, 100, 16, 2, 256}})
    for (const Data data : {Data::kPlain, Data::kOutliers})
      for (const int32_t architecture : {0, 80}) check_focus(s, std::max<int64_t>(1, s.first), data, architecture);
}

TEST("heads with sinks") {
  for (const Shape& s : std::vector<Shape>{{37, 9001, 14, 2, 64}, {5, 3000, 16, 2, 128}})
    for (const int32_t architecture : {0, 80}) check_focus(s, s.first, Data::kPlain, architecture, gpu::some_sinks(s.heads));
}

TEST("keys of the chunk itself, and the first few alone") {
  check_focus({64, 0, 4, 2, 128}, 64, Data::kPlain, 0);
  check_focus({64, 700, 4, 2, 128}, 3, Data::kPlain, 0);
  check_focus({64, 700, 4, 2, 64}, 764, Data::kPlain, 80);
  check_focus({64, 700, 6, 1, 256}, 764, Data::kPlain, 0);
}

TEST("what cannot be is refused") {
  const Shape s{4, 300, 4, 2, 64};
  const Context c(s, {dense(), dense()});
  const gpu::Memory<float> memory(4096);
  const kernels::FocusArgs good{c.args().q, c.args().kv, s.tokens, s.heads, s.first, memory.get(), 300, memory.get()};
  const auto refused = [&](auto change) {
    kernels::FocusArgs args = good;
    change(args);
    return gpu::library().focus(args, gpu::stream()) != kernels::kOk;
  };
  CHECK(refused([](auto& a) { a.tokens = 0; }));
  CHECK(refused([](auto& a) { a.first_position = -1; }));
  CHECK(refused([](auto& a) { a.first_position = int64_t{1} << 40; }));
  CHECK(refused([](auto& a) { a.heads = 3; }));
  CHECK(refused([](auto& a) { a.kv.head_dim = 96; }));
  CHECK(refused([](auto& a) { a.kv.format = PageFormat::kQ8; }));
  CHECK(refused([](auto& a) { a.kv.format = PageFormat::kQ4; }));
  CHECK(refused([](auto& a) { a.keys = 305; }));
  CHECK(refused([](auto& a) { a.focus = nullptr; }));
}

TEST_MAIN()
