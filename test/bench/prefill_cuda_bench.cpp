// Whole prefill of the Llama-3-8B shape on the GPU, KV kept, sparse beside dense: build/native/prefill_cuda_bench [--fp8]
// [--chunk N] [tokens ...]. Random weights and token ids through the layer loop. Random weights attend almost evenly, so that a
// threshold says nothing: the adaptive heads keep the pages of the largest mass until a given share is left over, which sets the
// density. Coverage is the exact mass of the visited keys. Dense prefill of more than 131,072 tokens is left out.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "bench/random_llama.h"
#include "engine/forward.h"

using namespace longview;

namespace {

constexpr int64_t kLongestDense = 131072;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Bench {
  Backend& backend;
  Forward& forward;
  const ModelConfig& config;
  int64_t chunk;

  // Seconds of all tokens; `plans` empty: dense.
  double prefill(std::span<const int32_t> tokens, KvStorage& storage, std::span<const HeadPlan> plans) {
    std::vector<int32_t> slots(static_cast<size_t>(storage.pages()));
    std::iota(slots.begin(), slots.end(), 0);
    const KvPages pages{&storage, slots};
    std::vector<float> logits(static_cast<size_t>(config.vocabulary));
    const double begin = now();
    for (size_t first = 0; first < tokens.size(); first += static_cast<size_t>(chunk))
      forward.run(tokens.subspan(first, std::min(static_cast<size_t>(chunk), tokens.size() - first)), pages, static_cast<int64_t>(first), false, plans, CancelToken());
    forward.logits(0, logits);
    LONGVIEW_CHECK(std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }), kInternal, "the results are not finite");
    return now() - begin;
  }
};

}  // namespace

int main(int argc, char** argv) try {
  GpuOptions options;
  int64_t chunk = 0;
  std::vector<int64_t> lengths;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--fp8") == 0) options.weights = GpuWeights::kFp8;
    else if (std::strcmp(argv[i], "--chunk") == 0 && i + 1 < argc) chunk = std::atoll(argv[++i]);
    else lengths.push_back(std::atoll(argv[i]));
  }
  if (lengths.empty()) lengths = {32768, 131072};
  const RandomLlama llama;
  const ModelConfig& config = llama.model().config;
  if (const std::string why = why_not_cuda(config); !why.empty()) {
    std::printf("skipped: no CUDA device: %s\n", why.c_str());
    return 77;
  }
  const std::unique_ptr<Backend> backend = make_cuda_backend(options);
  if (chunk <= 0) chunk = backend->preferred_chunk_tokens(true);
  KvShape shape{config.layers, config.kv_heads, config.head_dim, KvFormat::kBFloat16};
  shape.mean_tokens = backend->sparse_block_tokens(shape);
  const double begin = now();
  Forward forward(*backend, llama.model(), shape, chunk);
  std::printf("%s; chunks of %lld tokens; %.1f s to load the weights\n", backend->info().name.c_str(), static_cast<long long>(chunk), now() - begin);
  Bench bench{*backend, forward, config, chunk};
  std::mt19937 random(2);
  for (const int64_t length : lengths) {
    std::vector<int32_t> tokens(static_cast<size_t>(length));
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % static_cast<uint64_t>(config.vocabulary));
    const std::unique_ptr<KvStorage> storage = backend->allocate_kv(shape, (length + kPageTokens - 1) / kPageTokens);
    bench.prefill(std::span(tokens).first(static_cast<size_t>(std::min(length, chunk))), *storage, {});  // warms up
    double dense = 0;
    if (length <= kLongestDense) {
      const double width = static_cast<double>(config.hidden), n = static_cast<double>(length), layers = static_cast<double>(config.layers);
      const double flop = 2 * n * layers * width * static_cast<double>(2 * config.q_dim() + 2 * config.kv_dim() + 3 * config.ffn);
      dense = bench.prefill(tokens, *storage, {});
      std::printf("%7lld tokens: dense %7.3f s (%.3g FLOP of products, %.3g of attention)\n", static_cast<long long>(length), dense, flop, 2 * layers * static_cast<double>(config.q_dim()) * n * (n + 1));
    }
    for (const float left : {0.97f, 0.9f}) {
      HeadPlan plan = default_plan(Pattern::kAdaptive);
      plan.rule = AdaptiveRule::kMass;
      plan.threshold = left;
      const std::vector<HeadPlan> plans(static_cast<size_t>(config.layers * config.heads), plan);
      const double seconds = bench.prefill(tokens, *storage, plans);
      std::vector<HeadCoverage> coverage(plans.size());
      backend->take_coverage(coverage);
      HeadCoverage sum;
      for (const HeadCoverage& head : coverage) sum += head;
      const std::string ratio = dense > 0 ? format(", %.2f times dense", dense / seconds) : "";
      std::printf("%7lld tokens: sparse %6.3f s%s; density %.2f %%, covered mass %.3f of %lld probes\n", static_cast<long long>(length), seconds, ratio.c_str(), 100 * sum.visited / sum.causal,
                  sum.probes ? sum.covered / static_cast<double>(sum.probes) : 0, static_cast<long long>(sum.probes));
      std::fflush(stdout);
    }
  }
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
