// Sparse attention through the backend: pages that hold means, copies of pages, plans of heads, coverage.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "backend/backend.h"
#include "base/error.h"
#include "base/half.h"
#include "check.h"

using namespace longview;

namespace {

constexpr int64_t kHidden = 256, kHeads = 8, kKvHeads = 2, kVocabulary = 500, kLayers = 2, kLayer = 1;

// A layer's queries, keys and values of random tokens, written into pages.
struct Prompt {
  std::unique_ptr<Backend> backend;
  KvShape shape;
  int64_t tokens;
  Activation q, k, v, out;
  std::unique_ptr<KvStorage> storage;
  std::vector<int32_t> slots;

  explicit Prompt(int64_t head_dim, int64_t length = 6000) : tokens(length) {
    ModelConfig config;
    config.hidden = config.ffn = kHidden;
    config.heads = kHeads;
    config.kv_heads = kKvHeads;
    config.head_dim = head_dim;
    if (const std::string why = why_not_cuda(config); !why.empty()) SKIP("no CUDA device: " + why);
    backend = make_cuda_backend();
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    std::vector<std::vector<uint16_t>> kept;
    const auto matrix = [&](int64_t rows, int64_t cols, float spread) {
      auto& data = kept.emplace_back(static_cast<size_t>(rows * cols));
      for (uint16_t& x : data) x = float_to_bf16(normal(random) * spread);
      return backend->upload({DType::kBF16, rows, cols, reinterpret_cast<const std::byte*>(data.data()), rows * cols * 2});
    };
    std::vector<int32_t> ids(static_cast<size_t>(tokens));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % kVocabulary);
    const std::vector<float> ones(kHidden, 1);
    const WeightHandle embedding = matrix(kVocabulary, kHidden, 1), norm = backend->upload({DType::kF32, 1, kHidden, reinterpret_cast<const std::byte*>(ones.data()), kHidden * 4});
    const WeightHandle wq = matrix(kHeads * head_dim, kHidden, 0.1f), wk = matrix(kKvHeads * head_dim, kHidden, 0.1f), wv = matrix(kKvHeads * head_dim, kHidden, 0.1f);
    const Activation hidden = backend->allocate_float(tokens, kHidden), normed = backend->allocate(tokens, kHidden);
    q = backend->allocate(tokens, kHeads * head_dim);
    k = backend->allocate(tokens, kKvHeads * head_dim);
    v = backend->allocate(tokens, kKvHeads * head_dim);
    out = backend->allocate(tokens, kHeads * head_dim);
    backend->embed(*embedding, ids, 1, hidden);
    backend->rms_norm(hidden, *norm, 1e-5f, normed);
    backend->linear(normed, *wq, nullptr, q);
    backend->linear(normed, *wk, nullptr, k);
    backend->linear(normed, *wv, nullptr, v);

    shape = {kLayers, kKvHeads, head_dim, KvFormat::kBFloat16};
    shape.mean_tokens = backend->sparse_block_tokens(shape);
    const int64_t pages = pages_of(tokens);
    storage = backend->allocate_kv(shape, 2 * pages);
    slots.resize(static_cast<size_t>(pages));
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), random);
    RopeConfig rope;
    rope.dims = head_dim;
    for (int64_t i = 0; i < head_dim / 2; ++i) rope.inverse_frequencies.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)));
    backend->rope_and_append_kv(q, k, v, *backend->upload_rope(rope), shape, kLayer, paged(slots), 0);
    std::vector<float> wait(static_cast<size_t>(q.cols));
    backend->read_row(q, 0, wait);
  }

  KvPages paged(const std::vector<int32_t>& of) const { return {storage.get(), of}; }

  std::vector<float> dense() {
    backend->attention(q, shape, kHeads, {kLayer}, paged(slots), 0, out);
    return read();
  }
  std::vector<float> sparse(const std::vector<HeadPlan>& plans, const std::vector<int32_t>& of) {
    backend->attention_sparse(q, shape, kHeads, {kLayer}, paged(of), 0, plans, out);
    return read();
  }
  std::vector<HeadCoverage> coverage() {
    std::vector<HeadCoverage> all(kLayers * kHeads);
    backend->take_coverage(all);
    for (int64_t h = 0; h < kHeads; ++h) CHECK(all[static_cast<size_t>(h)].causal == 0);  // of layer 0
    return {all.begin() + kLayer * kHeads, all.end()};
  }

 private:
  // Some rows, the last among them.
  std::vector<float> read() {
    std::vector<float> rows, row(static_cast<size_t>(out.cols));
    for (int64_t r = tokens - 1; r >= 0; r -= 97) {
      backend->read_row(out, r, row);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    return rows;
  }
};

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(a[i] - b[i], 2);
    norm += std::pow(b[i], 2);
  }
  return std::sqrt(difference / norm);
}

HeadPlan adaptive(float threshold) {
  HeadPlan plan = default_plan(Pattern::kAdaptive);
  plan.threshold = threshold;
  return plan;
}

}  // namespace

TEST("a threshold of 0 is dense attention, and counted so") {
  for (const int64_t d : {64, 96, 128, 160, 256}) {
    Prompt prompt(d);
    const std::vector<float> wanted = prompt.dense();
    CHECK(distance(prompt.sparse(std::vector<HeadPlan>(kHeads, adaptive(0)), prompt.slots), wanted) <= 5e-3);
    for (const HeadCoverage& head : prompt.coverage()) {
      CHECK(head.visited == head.causal && head.causal == static_cast<double>(prompt.tokens) * static_cast<double>(prompt.tokens + 1) / 2);
      CHECK(head.probes == 64);
      CHECK_NEAR(head.covered, 64, 1e-3);
    }
    CHECK(prompt.coverage()[0].causal == 0);  // taken
  }
}

TEST("sparse heads visit less, cover less, and stay near; copies of pages carry their means") {
  for (const int64_t d : {128, 256}) {
    Prompt prompt(d);
    const std::vector<float> wanted = prompt.dense();
    std::vector<HeadPlan> plans(kHeads, adaptive(0.03f));
    plans[1] = default_plan(Pattern::kAShape);
    plans[2] = HeadPlan{};
    const std::vector<float> got = prompt.sparse(plans, prompt.slots);
    const double off = distance(got, wanted);
    std::printf("  %.3f from dense\n", off);
    CHECK(off > 1e-3 && off < 1);  // random keys: much of the mass lies where the plans do not look
    const std::vector<HeadCoverage> coverage = prompt.coverage();
    for (size_t h = 0; h < coverage.size(); ++h) {
      const double share = coverage[h].visited / coverage[h].causal, mass = coverage[h].covered / static_cast<double>(coverage[h].probes);
      std::printf("  head %d: density %.3f, covered %.3f\n", int(h), share, mass);
      CHECK(h == 2 ? share == 1 : share < 0.9 && share > 0.05);
      CHECK(h == 2 ? mass > 0.999 : mass < 0.999 && mass > 0.05);
    }
    std::vector<int32_t> copies;
    for (const int32_t slot : prompt.slots) {
      copies.push_back(slot + static_cast<int32_t>(prompt.slots.size()));
      prompt.backend->copy_page(*prompt.storage, slot, copies.back(), kPageTokens);
    }
    CHECK(prompt.sparse(plans, copies) == got);
  }
}

TEST("a short chunk takes the dense kernels, and says so") {
  Prompt prompt(64, 500);
  const std::vector<float> wanted = prompt.dense();
  CHECK(prompt.sparse(std::vector<HeadPlan>(kHeads, adaptive(0.5f)), prompt.slots) == wanted);
  for (const HeadCoverage& head : prompt.coverage()) CHECK(head.visited == head.causal && head.causal == 500.0 * 501 / 2 && head.probes == 0);
}

TEST_MAIN()
