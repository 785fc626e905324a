// Whole prefill of the Llama-3-8B shape on the GPU, or with --experts of the Qwen3-30B-A3B shape, with --hybrid of the Qwen3.5-9B shape, with both of the Qwen3.6-35B-A3B shape, KV kept, sparse beside dense: build/native/prefill_cuda_bench [--experts] [--hybrid] [--q4_k | --mxfp4] [--fp8]
// [--q8 | --q4 | --fp8-kv] [--shape NAME] [--parts] [--left PERCENT]... [--window KEYS]... [--pattern NAME]... [--chunk N] [tokens ...]. --q8, --q4, --fp8-kv: the KV state in 8 or 4 bits, or in 8-bit floats. --parts: how the time is shared out, by events
// around the kernels; what is between them is products, mostly. Random weights and token ids through the layer loop. Random weights attend almost evenly, so that a
// threshold says nothing: the adaptive heads keep the pages of the largest mass until a given share is left over, which sets the
// density (97 and 90 %, or what --left says). --window: the index of heads that visit what holds a share of the mass, as they do by default;
// no page holds so much, and what is visited are the last so many keys. --pattern: one for all heads, a_shape, vertical_slash or block_sparse with MInference's budgets. Coverage is the exact mass of the visited keys. Dense prefill of more than 131,072 tokens is left out.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "bench/random_model.h"
#include "cuda/library.h"
#include "engine/forward.h"

using namespace longview;

namespace {

constexpr int64_t kLongestDense = 131072;

// Milliseconds of kernels, by the functions that launch them.
class Parts {
 public:
  enum Part { kExpansion, kIndex, kCoverage, kStandIns, kAttention, kAppend, kGrouping, kGroups, kDelta, kRest, kCount };

  // The library, with events around what is timed.
  const kernels::Library& table() {
    const kernels::Library& plain = *cuda::load_library().library;
    timed_ = plain;
    time<&kernels::Library::expand_pages, kExpansion>(timed_.expand_pages);
    time<&kernels::Library::sparse_index, kIndex>(timed_.sparse_index);
    time<&kernels::Library::sparse_coverage, kCoverage>(timed_.sparse_coverage);
    time<&kernels::Library::sparse_stand_ins, kStandIns>(timed_.sparse_stand_ins);
    time<&kernels::Library::sparse_attention, kAttention>(timed_.sparse_attention);
    time<&kernels::Library::attention, kAttention>(timed_.attention);
    time<&kernels::Library::rope_append, kAppend>(timed_.rope_append);
    time<&kernels::Library::choose_experts, kGrouping>(timed_.choose_experts);
    time<&kernels::Library::group_experts, kGrouping>(timed_.group_experts);
    time<&kernels::Library::gather_rows, kGrouping>(timed_.gather_rows);
    time<&kernels::Library::activate_experts, kGrouping>(timed_.activate_experts);
    time<&kernels::Library::combine_experts, kGrouping>(timed_.combine_experts);
    time<&kernels::Library::gemm, kGroups>(timed_.gemm);  // the router's, too; others are cuBLASLt's
    time<&kernels::Library::delta_net, kDelta>(timed_.delta_net);
    time<&kernels::Library::split_heads, kRest>(timed_.split_heads);
    time<&kernels::Library::sigmoid_mul, kRest>(timed_.sigmoid_mul);
    time<&kernels::Library::rms_norm, kRest>(timed_.rms_norm);
    time<&kernels::Library::rms_norm_heads, kRest>(timed_.rms_norm_heads);
    time<&kernels::Library::gate_mul, kRest>(timed_.gate_mul);
    time<&kernels::Library::gate_mul_quantize, kRest>(timed_.gate_mul_quantize);
    time<&kernels::Library::quantize_rows, kRest>(timed_.quantize_rows);
    time<&kernels::Library::add, kRest>(timed_.add);
    time<&kernels::Library::embed, kRest>(timed_.embed);
    return timed_;
  }
  static void clear() {
    for (const Span& span : spans_) {
      cuda::load_library().library->destroy_event(span.begin);
      cuda::load_library().library->destroy_event(span.end);
    }
    spans_.clear();
  }
  // Prints how the `seconds` since clear() are shared out.
  static void report(double seconds) {
    const kernels::Library& plain = *cuda::load_library().library;
    double sums[kCount] = {}, all = 0;
    for (const Span& span : spans_) {
      float ms = 0;
      plain.elapsed_ms(span.begin, span.end, &ms);
      sums[span.part] += ms / 1e3;
      all += ms / 1e3;
    }
    clear();
    std::printf("         expansion %.3f s, index %.3f, coverage %.3f, stand-ins %.3f, attention %.3f, append %.3f, experts' choice and order %.3f, own products %.3f, recurrence %.3f, norms, activations and codes %.3f; other products and gaps %.3f\n", sums[kExpansion], sums[kIndex], sums[kCoverage], sums[kStandIns],
                sums[kAttention], sums[kAppend], sums[kGrouping], sums[kGroups], sums[kDelta], sums[kRest], seconds - all);
  }

 private:
  struct Span {
    Part part;
    kernels::Event begin, end;
  };

  template <auto kFunction, Part kPart, typename Args>
  static void time(kernels::Status (*&function)(const Args&, kernels::Stream)) {
    function = [](const Args& args, kernels::Stream stream) {
      const kernels::Library& plain = *cuda::load_library().library;
      Span span{kPart, nullptr, nullptr};
      plain.create_event(&span.begin);
      plain.create_event(&span.end);
      plain.record_event(span.begin, stream);
      const kernels::Status status = (plain.*kFunction)(args, stream);
      plain.record_event(span.end, stream);
      spans_.push_back(span);
      return status;
    };
  }

  kernels::Library timed_{};
  static inline std::vector<Span> spans_;
};

// Bytes of the index of so many tokens at the end of a context, as sparse_layout has them.
int64_t index_bytes(const ModelConfig& c, int64_t length, int64_t chunk) {
  kernels::SparseArgs args{};
  args.kv.kv_heads = c.kv_heads;
  args.kv.head_dim = c.head_dim;
  args.tokens = std::min(chunk, length);
  args.heads = c.heads;
  args.first_position = length - args.tokens;
  args.group_count = c.kv_heads;
  args.tiles = c.kv_heads * kernels::sparse_tiles(args.tokens, c.heads / c.kv_heads);
  return kernels::sparse_layout(args).bytes;
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Bench {
  Backend& backend;
  Forward& forward;
  const ModelConfig& config;
  int64_t chunk;
  std::unique_ptr<RecurrentState> before = {}, after = {};

  // Seconds of all tokens; `plans` empty: dense.
  double prefill(std::span<const int32_t> tokens, KvStorage& storage, std::span<const HeadPlan> plans) {
    std::vector<int32_t> slots(static_cast<size_t>(storage.pages()));
    std::iota(slots.begin(), slots.end(), 0);
    const KvPages pages{&storage, slots};
    std::vector<float> logits(static_cast<size_t>(config.vocabulary));
    Parts::clear();
    if (const RecurrentShape shape = Forward::recurrent_shape(config); shape.layers > 0) {
      if (!before) before = backend.allocate_recurrent(shape), after = backend.allocate_recurrent(shape);
      backend.clear_recurrent(*before);
    }
    const double begin = now();
    int64_t last = 0;
    for (size_t first = 0; first < tokens.size(); first += static_cast<size_t>(chunk)) {
      const size_t count = std::min(static_cast<size_t>(chunk), tokens.size() - first);
      forward.run({tokens.subspan(first, count), pages, {before.get(), after.get()}, static_cast<int64_t>(first), false, plans, first + count == tokens.size() ? 1 : 0}, CancelToken());
      std::swap(before, after);
      last = static_cast<int64_t>(count) - 1;
    }
    forward.logits(last, logits);
    LONGVIEW_CHECK(std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }), kInternal, "the results are not finite");
    return now() - begin;
  }
};

}  // namespace

int main(int argc, char** argv) try {
  GpuOptions options;
  int64_t chunk = 0;
  KvFormat format_of_kv = KvFormat::kBFloat16;
  std::string shape_name;
  bool with_parts = false, with_experts = false, hybrid = false;
  DType type = DType::kBF16;
  std::vector<HeadPlan> kinds;
  const auto add = [&](AdaptiveRule rule, float threshold, int32_t window) {
    HeadPlan plan = default_plan(Pattern::kAdaptive);
    plan.rule = rule;
    plan.threshold = threshold;
    if (window > 0) plan.window = window;
    kinds.push_back(plan);
  };
  std::vector<int64_t> lengths;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--fp8") == 0) options.weights = GpuWeights::kFp8;
    else if (std::strcmp(argv[i], "--q8") == 0) format_of_kv = KvFormat::kQ8;
    else if (std::strcmp(argv[i], "--q4") == 0) format_of_kv = KvFormat::kQ4;
    else if (std::strcmp(argv[i], "--fp8-kv") == 0) format_of_kv = KvFormat::kE4M3;
    else if (std::strcmp(argv[i], "--parts") == 0) with_parts = true;
    else if (std::strcmp(argv[i], "--experts") == 0) with_experts = true;
    else if (std::strcmp(argv[i], "--hybrid") == 0) hybrid = true;
    else if (std::strcmp(argv[i], "--q4_k") == 0) type = DType::kQ4_K;
    else if (std::strcmp(argv[i], "--mxfp4") == 0) type = DType::kMXFP4;
    else if (std::strcmp(argv[i], "--shape") == 0 && i + 1 < argc) shape_name = argv[++i];
    else if (std::strcmp(argv[i], "--left") == 0 && i + 1 < argc) add(AdaptiveRule::kMass, static_cast<float>(std::atof(argv[++i]) / 100), 0);
    else if (std::strcmp(argv[i], "--window") == 0 && i + 1 < argc) add(AdaptiveRule::kShare, 2, std::atoi(argv[++i]));
    else if (std::strcmp(argv[i], "--pattern") == 0 && i + 1 < argc) kinds.push_back(default_plan(pattern_of(argv[++i]).value()));
    else if (std::strcmp(argv[i], "--chunk") == 0 && i + 1 < argc) chunk = std::atoll(argv[++i]);
    else lengths.push_back(std::atoll(argv[i]));
  }
  if (lengths.empty()) lengths = {32768, 131072};
  if (kinds.empty())
    for (const float left : {0.97f, 0.9f}) add(AdaptiveRule::kMass, left, 0);
  const ModelConfig asked = shape_of(with_experts, hybrid, shape_name);
  const RandomModel random_model = asked.vocabulary > 0 ? RandomModel(asked, type, asked.vocabulary) : RandomModel(asked, type);
  const ModelConfig& config = random_model.model().config;
  if (const std::string why = why_not_cuda(config); !why.empty()) {
    std::printf("skipped: no CUDA device: %s\n", why.c_str());
    return 77;
  }
  Parts parts;
  const std::unique_ptr<Backend> backend = with_parts ? cuda::make_backend(parts.table(), options) : make_cuda_backend(options);
  if (chunk <= 0) chunk = backend->preferred_chunk_tokens(true);
  KvShape shape{config.attention_layers(), config.kv_heads, config.head_dim, format_of_kv};
  shape.mean_tokens = backend->sparse_block_tokens(shape);
  const int64_t free_before = backend->info().free_memory_bytes;
  const double begin = now();
  Forward forward(*backend, random_model.model(), shape, chunk);
  std::printf("%s; chunks of %lld tokens, the KV state in %s; %.1f s to load the weights\n", backend->info().name.c_str(), static_cast<long long>(chunk), name(format_of_kv), now() - begin);
  Bench bench{*backend, forward, config, chunk};
  std::mt19937 random(2);
  for (const int64_t length : lengths) {
    std::vector<int32_t> tokens(static_cast<size_t>(length));
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % static_cast<uint64_t>(config.vocabulary));
    const std::unique_ptr<KvStorage> storage = backend->allocate_kv(shape, pages_of(length));
    bench.prefill(std::span(tokens).first(static_cast<size_t>(std::min(length, chunk))), *storage, {});  // warms up
    std::printf("%7lld tokens: %.2f GB of KV state, %.2f GB beside it; an index of %.1f MiB, %.1f for 32,768 tokens\n", static_cast<long long>(length), static_cast<double>(storage->pages() * storage->page_bytes()) / 1e9,
                static_cast<double>(storage->pages() * backend->kv_scratch_page_bytes(shape)) / 1e9, static_cast<double>(index_bytes(config, length, chunk)) / (1 << 20), static_cast<double>(index_bytes(config, length, 32768)) / (1 << 20));
    double dense = 0;
    if (length <= kLongestDense) {
      const double n = static_cast<double>(length);
      double scores = 0;  // of the last layer those of the last token alone
      for (int64_t i = 0; i + 1 < config.attention_layers(); ++i) scores += config.span(i) > 0 ? n * static_cast<double>(config.span(i)) : n * (n + 1) / 2;
      const double flop = 2 * n * parameters_met(config);
      dense = bench.prefill(tokens, *storage, {});
      std::printf("%7lld tokens: dense %7.3f s (%.3g FLOP of products, %.3g of attention)\n", static_cast<long long>(length), dense, flop, 4 * static_cast<double>(config.q_dim()) * scores);
      if (with_parts) Parts::report(dense);
    }
    for (const HeadPlan& plan : kinds) {
      if (shape.mean_tokens == 0) break;  // this model is read densely
      const std::vector<HeadPlan> plans(static_cast<size_t>(config.attention_layers() * config.heads), plan);
      const double seconds = bench.prefill(tokens, *storage, plans);
      std::vector<HeadCoverage> coverage(plans.size());
      backend->take_coverage(coverage);
      HeadCoverage sum;
      for (const HeadCoverage& head : coverage) sum += head;
      const std::string ratio = dense > 0 ? format(", %.2f times dense", dense / seconds) : "";
      std::printf("%7lld tokens: %s %6.3f s%s; density %.2f %%, covered mass %.3f of %lld probes\n", static_cast<long long>(length), (plan.pattern == Pattern::kAdaptive ? format("sparse by %s", name(plan.rule)) : std::string(name(plan.pattern))).c_str(), seconds, ratio.c_str(), 100 * sum.visited / sum.causal,
                  sum.probes ? sum.covered / static_cast<double>(sum.probes) : 0, static_cast<long long>(sum.probes));
      if (with_parts) Parts::report(seconds);
      std::fflush(stdout);
    }
    std::printf("%7lld tokens: %.2f GB of the device taken in all\n", static_cast<long long>(length), static_cast<double>(free_before - backend->info().free_memory_bytes) / 1e9);
  }
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
