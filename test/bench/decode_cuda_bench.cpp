// Decode of the Llama-3-8B shape on the GPU, or behind "experts" of the Qwen3-30B-A3B shape, behind "hybrid" of the Qwen3.5-9B shape, behind both of the Qwen3.6-35B-A3B shape, beside the time that reading its bytes takes:
// build/native/decode_cuda_bench [experts] [hybrid] [qwen2.5-7b | qwen3.5-27b | gpt-oss-20b | gemma3-12b | gemma3-27b] [bf16 | q4_k | another type of GGUF] [tokens] [q8 | q4 | fp8]. Random weights and token ids through the layer loop, greedily; the median of 96 tokens behind `tokens` others, after 32 that
// are left out. Bytes: every weight but the embedding and the experts that a token does not go through, and K and V of the context, in 16 bits, q8, q4 or fp8, and the recurrent state, read and written; the speed of reading them is that
// of a copy of 2 GiB, read and written, in the same process. Of more than 131,072 tokens only 4,096 are read, whose pages
// stand for the others too; give a multiple of 128.
#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "bench/random_model.h"
#include "engine/forward.h"
#include "engine/sampler.h"
#include "kernels/gpu.h"
#include "model/quant_formats.h"

using namespace longview;

namespace {

constexpr int64_t kVocabulary = 128256, kChunk = 4096, kLongestRead = 131072, kLeftOut = 32, kMeasured = 96;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Bytes a second, read and written.
double copy_speed() {
  const size_t bytes = size_t{2} << 30;
  const gpu::Memory<char> from(bytes), to(bytes);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    GPU(synchronize(gpu::stream()));
    const double begin = now();
    GPU(copy_on_device(to.get(), from.get(), bytes, gpu::stream()));
    GPU(synchronize(gpu::stream()));
    best = std::max(best, 2 * static_cast<double>(bytes) / (now() - begin));
  }
  return best;
}

// "q4_k" is DType::kQ4_K.
DType type_of(std::string name) {
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  for (uint32_t type = 0; type < 64; ++type)
    if (const QuantFormat* format = find_format(type); format && name == format->name) return static_cast<DType>(type);
  LONGVIEW_THROW(kInternal, "no weights are of the type %s", name.c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  const auto takes = [&](const char* word) {
    const bool given = argc > 1 && std::strcmp(argv[1], word) == 0;
    if (given) --argc, ++argv;
    return given;
  };
  const bool with_experts = takes("experts"), hybrid = takes("hybrid");
  std::string_view shape_name;
  for (const auto& [known, shape_named] : kNamedShapes)
    if (takes(known.data())) shape_name = known;
  const DType type = type_of(argc > 1 ? argv[1] : "bf16");
  const int64_t context = argc > 2 ? std::atoll(argv[2]) : 8192;
  const std::string kept = argc > 3 ? argv[3] : "bf16";
  const ModelConfig asked = shape_of(with_experts, hybrid, shape_name);
  const RandomModel random_model(asked, type, asked.vocabulary > 0 ? asked.vocabulary : kVocabulary);
  const ModelConfig& config = random_model.model().config;
  if (const std::string why = why_not_cuda(config); !why.empty()) {
    std::printf("skipped: no CUDA device: %s\n", why.c_str());
    return 77;
  }
  const double speed = copy_speed();
  const std::unique_ptr<Backend> backend = make_cuda_backend({});
  const KvShape shape{config.attention_layers(), config.kv_heads, config.head_dim, kv_format_of(kept).value_or(KvFormat::kBFloat16)};
  Forward forward(*backend, random_model.model(), shape, kChunk);
  const std::unique_ptr<KvStorage> storage = backend->allocate_kv(shape, (context + kLeftOut + kMeasured + Forward::kMostRows) / kPageTokens + 1);
  std::vector<int32_t> slots(static_cast<size_t>(storage->pages()));
  std::iota(slots.begin(), slots.end(), 0);
  const KvPages pages{storage.get(), slots};
  const RecurrentShape recurrent = Forward::recurrent_shape(config);
  std::unique_ptr<RecurrentState> before, after;
  if (recurrent.layers > 0) {
    before = backend->allocate_recurrent(recurrent), after = backend->allocate_recurrent(recurrent);
    backend->clear_recurrent(*before);
  }
  const auto run = [&](std::span<const int32_t> some, int64_t first, int64_t results = 1) {
    forward.run({some, pages, {before.get(), after.get()}, first, false, {}, results}, CancelToken());
    std::swap(before, after);
  };
  std::mt19937 random(2);
  std::vector<int32_t> tokens(static_cast<size_t>(context));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % kVocabulary);
  const int64_t read = context > kLongestRead ? kChunk : context;
  for (int64_t first = 0; first < read; first += kChunk)
    run(std::span(tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(std::min(kChunk, read - first))), first);
  // Reading copies of pages takes as long as reading others, and making others would take minutes.
  for (int64_t page = read / kPageTokens; page < context / kPageTokens; ++page) backend->copy_page(*storage, static_cast<int32_t>(page % (kChunk / kPageTokens)), static_cast<int32_t>(page), kPageTokens);
  int32_t token = forward.choice((read - 1) % kChunk);
  // In order.
  const auto measure = [&](const std::function<int32_t()>& choose, int64_t together = 1) {
    std::vector<double> times;
    std::vector<int32_t> some(static_cast<size_t>(together), token);
    for (int64_t i = 0; i < kLeftOut + kMeasured; ++i) {
      const double begin = now();
      some.back() = token;
      run(some, context + i - i % together, together);
      token = choose();
      if (i >= kLeftOut) times.push_back(now() - begin);
    }
    std::sort(times.begin(), times.end());
    return times;
  };
  const std::vector<double> times = measure([&] { return forward.choice(0); });
  std::vector<float> logits(static_cast<size_t>(kVocabulary));
  forward.logits(0, logits);
  LONGVIEW_CHECK(std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }), kInternal, "the results are not finite");
  int64_t seen = 0;  // tokens, of all layers
  for (int64_t i = 0; i < config.attention_layers(); ++i) seen += config.span(i) > 0 ? std::min(context, config.span(i)) : context;
  double bytes = static_cast<double>(seen * config.kv_dim()) * 2 * (kept == "bf16" ? 2 : kept == "q8" ? 1 + 2.0 / 32 : kept == "q4" ? 0.5 + 2.0 / 32 + 2.0 / kPageTokens : 1) + static_cast<double>(random_model.model().weights.output.bytes) +
                 (recurrent.layers > 0 ? 2 * static_cast<double>(backend->recurrent_bytes(recurrent)) : 0);
  for (const LayerWeights& l : random_model.model().weights.layers)
    for (const TensorView* w : {&l.q, &l.k, &l.v, &l.attention_output, &l.gate, &l.up, &l.down, &l.router, &l.mixed, &l.output_gate, &l.alpha, &l.beta, &l.shared_gate, &l.shared_up, &l.shared_down}) bytes += static_cast<double>(w->bytes);
  for (const LayerWeights& l : random_model.model().weights.layers) l.each_expert([&](const TensorView& w) { bytes += static_cast<double>(w.bytes * config.experts_used) / static_cast<double>(config.experts); });
  const double median = times[times.size() / 2], floor = bytes / speed;
  std::printf("%s; %s behind %lld tokens in %s: %.3f ms a token (worst %.3f); %.2f GB at the copy's %.0f GB/s take %.3f ms: %.1f %%\n", backend->info().name.c_str(), format_of(type).name,
              static_cast<long long>(context), kept.c_str(), median * 1e3, times.back() * 1e3, bytes / 1e9, speed / 1e9, floor * 1e3, 100 * floor / median);
  // Drawn from the vocabulary: there, and on the host.
  Sampler sampler({.temperature = 0.7f, .top_k = 20, .top_p = 0.95f});
  const double there = measure([&] { return forward.draw(0, sampler.sampling(), sampler.random()).token; })[kMeasured / 2];
  const double here = measure([&] {
    forward.logits(0, logits);
    return sampler.choose(logits);
  })[kMeasured / 2];
  std::printf("tokens that are drawn on the device %.3f ms, from logits on the host %.3f ms\n", there * 1e3, here * 1e3);
  // With tokens that were guessed, all of which turn out right: their choices are asked for one by one.
  for (const int64_t together : {2, 3, 4, 6, 8}) {
    const double several = measure(
        [&] {
          forward.make_logits(0, together);
          int32_t last = 0;
          for (int64_t i = 0; i < together; ++i) last = forward.largest(i);
          return last;
        },
        together)[kMeasured / 2];
    std::printf("%lld tokens in a pass %.3f ms, %.2f times as long as one\n", static_cast<long long>(together), several * 1e3, several / median);
  }
  return 0;
} catch (const check::Skip& skip) {
  std::printf("skipped: %s\n", skip.why.c_str());
  return 77;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
