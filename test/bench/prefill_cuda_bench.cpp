// Whole prefill of the Llama-3-8B shape on the GPU, KV kept, sparse beside dense: build/native/prefill_cuda_bench [tokens]
// [chunk]. Random weights in bf16 and random token ids, the operations of the layer loop (engine/forward.cpp) through the
// backend. Random weights attend almost evenly, so that a threshold says nothing: the adaptive heads keep the pages of the
// largest mass until a given share is left over, which sets the density. Coverage is the exact mass of the visited keys.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <random>

#include "backend/backend.h"
#include "base/error.h"
#include "base/half.h"

using namespace longview;

namespace {

constexpr int64_t kLayers = 32, kHidden = 4096, kFfn = 14336, kHeads = 32, kKvHeads = 8, kHeadDim = 128, kVocabulary = 4096;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

class Llama {
 public:
  Llama(Backend& backend, int64_t chunk) : backend_(backend), chunk_(chunk), random_((kFfn * kHidden) + 4096) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<uint16_t> some(1 << 20);
    for (uint16_t& x : some) x = float_to_bf16(normal(random));
    for (size_t i = 0; i < random_.size(); ++i) random_[i] = some[i % (some.size() - 77)];
    ones_.assign(kHidden, 1.0f);
    embedding_ = matrix(kVocabulary, kHidden);
    norm_ = backend.upload({DType::kF32, 1, kHidden, reinterpret_cast<const std::byte*>(ones_.data()), kHidden * 4});
    for (int64_t i = 0; i < kLayers; ++i)
      layers_.push_back({matrix(kHeads * kHeadDim, kHidden), matrix(kKvHeads * kHeadDim, kHidden), matrix(kKvHeads * kHeadDim, kHidden), matrix(kHidden, kHeads * kHeadDim), matrix(kFfn, kHidden),
                         matrix(kFfn, kHidden), matrix(kHidden, kFfn)});
    RopeConfig rope;
    rope.dims = kHeadDim;
    for (int64_t i = 0; i < kHeadDim / 2; ++i) rope.inverse_frequencies.push_back(std::pow(500000.0, -2.0 * static_cast<double>(i) / kHeadDim));
    rope_ = backend.upload_rope(rope);
    hidden_ = backend.allocate_float(chunk, kHidden);
    normed_ = backend.allocate(chunk, kHidden);
    q_ = backend.allocate(chunk, kHeads * kHeadDim);
    k_ = backend.allocate(chunk, kKvHeads * kHeadDim);
    v_ = backend.allocate(chunk, kKvHeads * kHeadDim);
    attended_ = backend.allocate(chunk, kHeads * kHeadDim);
    gate_ = backend.allocate(chunk, kFfn);
    up_ = backend.allocate(chunk, kFfn);
  }

  // Seconds of all tokens; `plans` empty: dense.
  double prefill(const std::vector<int32_t>& tokens, KvStorage& storage, const KvShape& shape, std::span<const HeadPlan> plans) {
    std::vector<int32_t> slots(static_cast<size_t>(storage.pages()));
    std::iota(slots.begin(), slots.end(), 0);
    const KvPages pages{&storage, slots};
    std::vector<float> row(kHidden);
    const double begin = now();
    for (int64_t first = 0; first < static_cast<int64_t>(tokens.size()); first += chunk_) {
      const int64_t count = std::min(chunk_, static_cast<int64_t>(tokens.size()) - first);
      run(std::span(tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count)), pages, shape, first, plans);
    }
    backend_.read_row(hidden_, 0, row);
    LONGVIEW_CHECK(std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); }), kInternal, "the results are not finite");
    return now() - begin;
  }

 private:
  struct Layer {
    WeightHandle q, k, v, output, gate, up, down;
  };

  // A copy of its own for each matrix: the backend tells them apart by their addresses.
  WeightHandle matrix(int64_t rows, int64_t cols) {
    return backend_.upload({DType::kBF16, rows, cols, reinterpret_cast<const std::byte*>(random_.data() + 8 * matrices_++), rows * cols * 2});
  }

  void run(std::span<const int32_t> tokens, const KvPages& pages, const KvShape& shape, int64_t first, std::span<const HeadPlan> plans) {
    const auto part = [&](Activation buffer) { return backend_.rows(buffer, 0, static_cast<int64_t>(tokens.size())); };
    const Activation hidden = part(hidden_), normed = part(normed_), q = part(q_), k = part(k_), v = part(v_), attended = part(attended_), gate = part(gate_), up = part(up_);
    backend_.embed(*embedding_, tokens, hidden);
    for (int64_t i = 0; i < kLayers; ++i) {
      const Layer& layer = layers_[static_cast<size_t>(i)];
      backend_.rms_norm(hidden, *norm_, 1e-5f, normed);
      backend_.linear(normed, *layer.q, nullptr, q);
      backend_.linear(normed, *layer.k, nullptr, k);
      backend_.linear(normed, *layer.v, nullptr, v);
      backend_.rope_and_append_kv(q, k, v, *rope_, shape, i, pages, first);
      if (plans.empty()) backend_.attention(q, shape, kHeads, i, pages, first, attended);
      else backend_.attention_sparse(q, shape, kHeads, i, pages, first, plans, attended);
      backend_.linear(attended, *layer.output, nullptr, normed);
      backend_.add(hidden, normed);
      backend_.rms_norm(hidden, *norm_, 1e-5f, normed);
      backend_.linear(normed, *layer.gate, nullptr, gate);
      backend_.linear(normed, *layer.up, nullptr, up);
      backend_.silu_mul(gate, up);
      backend_.linear(gate, *layer.down, nullptr, normed);
      backend_.add(hidden, normed);
    }
  }

  Backend& backend_;
  const int64_t chunk_;
  std::vector<uint16_t> random_;
  std::vector<float> ones_;
  int64_t matrices_ = 0;
  WeightHandle embedding_, norm_;
  std::vector<Layer> layers_;
  std::unique_ptr<DeviceRope> rope_;
  Activation hidden_, normed_, q_, k_, v_, attended_, gate_, up_;
};

}  // namespace

int main(int argc, char** argv) try {
  const int64_t only = argc > 1 ? std::atoll(argv[1]) : 0, chunk = argc > 2 ? std::atoll(argv[2]) : 16384;
  ModelConfig config;
  config.hidden = kHidden;
  config.ffn = kFfn;
  config.heads = kHeads;
  config.kv_heads = kKvHeads;
  config.head_dim = kHeadDim;
  if (const std::string why = why_not_cuda(config); !why.empty()) {
    std::printf("skipped: no CUDA device: %s\n", why.c_str());
    return 77;
  }
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  double begin = now();
  Llama model(*backend, chunk);
  std::printf("%s; chunks of %lld tokens; %.1f s to make and load the weights\n", backend->info().name.c_str(), static_cast<long long>(chunk), now() - begin);
  KvShape shape{kLayers, kKvHeads, kHeadDim, KvFormat::kBFloat16};
  shape.mean_tokens = backend->sparse_block_tokens(shape);
  std::mt19937 random(2);
  for (const int64_t length : {32768, 131072}) {
    if (only != 0 && only != length) continue;
    std::vector<int32_t> tokens(static_cast<size_t>(length));
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % kVocabulary);
    const std::unique_ptr<KvStorage> storage = backend->allocate_kv(shape, length / kPageTokens);
    model.prefill({tokens.begin(), tokens.begin() + chunk}, *storage, shape, {});  // warms up
    const double flop = 2.0 * static_cast<double>(length) * kLayers * (2 * kHidden * kHidden + 2 * kHidden * kKvHeads * kHeadDim + 3 * kHidden * kFfn);
    const double attention = 4.0 * kLayers * kHeads * kHeadDim * static_cast<double>(length) * static_cast<double>(length + 1) / 2;
    const double dense = model.prefill(tokens, *storage, shape, {});
    std::printf("%7lld tokens: dense %7.3f s (%.3g FLOP of products, %.3g of attention)\n", static_cast<long long>(length), dense, flop, attention);
    for (const float left : {0.97f, 0.9f, 0.8f}) {
      HeadPlan plan = default_plan(Pattern::kAdaptive);
      plan.rule = AdaptiveRule::kMass;
      plan.threshold = left;
      const std::vector<HeadPlan> plans(kHeads, plan);
      const double seconds = model.prefill(tokens, *storage, shape, plans);
      std::vector<HeadCoverage> coverage(kLayers * kHeads);
      backend->take_coverage(coverage);
      HeadCoverage sum;
      for (const HeadCoverage& head : coverage) sum += head;
      std::printf("%7lld tokens: sparse %6.3f s, %.2f times dense; density %.2f %%, covered mass %.3f of %lld probes\n", static_cast<long long>(length), seconds, dense / seconds, 100 * sum.visited / sum.causal,
                  sum.probes ? sum.covered / static_cast<double>(sum.probes) : 0, static_cast<long long>(sum.probes));
      std::fflush(stdout);
    }
  }
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
