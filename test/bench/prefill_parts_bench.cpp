// A whole dense prefill of the Llama-3-8B shape, random weights, beside the sum of its parts: build/native/prefill_parts_bench
// [--fp8] [--chunk N] [tokens ...]. The parts are the engine's operations at its chunk size, each timed by itself, times how often
// they occur.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "bench/random_model.h"
#include "engine/engine.h"

using namespace longview;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double prefill_seconds(Engine& engine, int64_t count) {
  std::mt19937_64 random(1);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % static_cast<uint64_t>(engine.model().config.vocabulary));
  std::vector<double> times;
  const int runs = count > 65536 ? 1 : 3;  // a long one is its own mean
  for (int run = 0; run < runs; ++run) {
    tokens[0] = run;  // pages of another run are not taken over
    const auto context = engine.create_context();
    const double begin = now();
    engine.prefill(*context, tokens, CancelToken());
    times.push_back(now() - begin);
  }
  std::sort(times.begin(), times.end());
  return times[static_cast<size_t>(runs / 2)];
}

class Parts {
 public:
  Parts(Backend& backend, const Model& model, int64_t chunk) : b_(backend), c_(model.config), chunk_(chunk) {
    const LayerWeights& l = model.weights.layers[0];
    const auto matrix = [&](const TensorView& view) { return b_.upload(view, WeightUse::kLayerProduct); };
    query_ = matrix(l.q), key_ = matrix(l.k), value_ = matrix(l.v), output_ = matrix(l.attention_output), gate_weight_ = matrix(l.gate), up_weight_ = matrix(l.up), down_ = matrix(l.down);
    norm_ = b_.upload(l.attention_norm);
    rope_ = b_.upload_rope(c_.rope);
    hidden_ = b_.allocate_float(chunk_, c_.hidden);
    narrow_ = b_.allocate(chunk_, c_.hidden);
    q_ = b_.allocate(chunk_, c_.q_dim()), k_ = b_.allocate(chunk_, c_.kv_dim()), v_ = b_.allocate(chunk_, c_.kv_dim()), out_ = b_.allocate(chunk_, c_.q_dim());
    gate_ = b_.allocate(chunk_, c_.ffn), up_ = b_.allocate(chunk_, c_.ffn);
    // Real numbers everywhere: an embedding through the layer's own operations.
    const WeightHandle embedding = b_.upload(model.weights.embedding);
    std::vector<int32_t> tokens(static_cast<size_t>(chunk_));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 13 % static_cast<size_t>(c_.vocabulary));
    b_.embed(*embedding, tokens, 1, hidden_);
    norm();
    projections();
    feed_forward();
    b_.linear(q_, *output_, nullptr, out_);
  }

  // Seconds of one layer on one chunk but for what depends on the position, a line each, and of the last one, which ends with K and V.
  std::pair<double, double> layer_seconds() {
    const double t = static_cast<double>(chunk_), hidden = static_cast<double>(c_.hidden), q = static_cast<double>(c_.q_dim()), kv = static_cast<double>(c_.kv_dim()), ffn = static_cast<double>(c_.ffn);
    const double norms = 2 * line("RMSNorm (two of them)", 0, t * hidden * 6, [&] { norm(); });
    const double begun = line("Q, K, V", 2 * t * hidden * (q + 2 * kv), 0, [&] { projections(); });
    double sum = norms + begun;
    sum += line("output, added to the residual stream", 2 * t * hidden * q, 0, [&] { b_.linear_add(out_, *output_, nullptr, narrow_, hidden_); });
    sum += line("gate, up, activation", 4 * t * hidden * ffn, 0, [&] { feed_forward(); });
    sum += line("down, added", 2 * t * hidden * ffn, 0, [&] { b_.linear_add(activated(), *down_, nullptr, narrow_, hidden_); });
    return {sum, norms / 2 + begun};
  }
  // Rotation, the KV append and attention of all chunks of one layer.
  std::pair<double, double> attention_seconds(int64_t tokens) {
    const KvShape shape{1, c_.kv_heads, c_.head_dim, KvFormat::kBFloat16};
    const auto storage = b_.allocate_kv(shape, tokens / kPageTokens);
    std::vector<int32_t> slots(static_cast<size_t>(storage->pages()));
    for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int32_t>(i);
    const KvPages pages{storage.get(), slots};
    const int64_t last = tokens - chunk_;
    for (int64_t first = 0; first < last; first += chunk_) b_.rope_and_append_kv(q_, k_, v_, *rope_, shape, 0, pages, first);
    const double append = seconds([&] { b_.rope_and_append_kv(q_, k_, v_, *rope_, shape, 0, pages, last); });
    // The time is linear in the position: the mean of the first and the last chunk's.
    double at[2];
    for (int i = 0; i < 2; ++i) at[i] = seconds([&] { b_.attention(q_, shape, c_.heads, 0, pages, i * last, out_); });
    const double chunks = static_cast<double>(tokens / chunk_), elements = static_cast<double>(chunk_ * (2 * c_.q_dim() + 4 * c_.kv_dim()));
    std::printf("  rotation and KV append              %8.3f ms  %7.0f GB/s\n", append * 1e3, elements * 2 / append / 1e9);
    return {append * chunks, (at[0] + at[1]) / 2 * chunks};
  }

 private:
  void norm() { b_.rms_norm(hidden_, *norm_, c_.norm_epsilon, input()); }
  void projections() { b_.linear_all(input(), std::array<Projection, 3>{{{query_.get(), nullptr, q_}, {key_.get(), nullptr, k_}, {value_.get(), nullptr, v_}}}); }
  void feed_forward() { b_.linear_gated(input(), *gate_weight_, *up_weight_, {}, up_, activated()); }
  Activation input() { return b_.for_products(narrow_, {query_.get(), key_.get(), value_.get()}); }
  Activation activated() { return b_.for_products(gate_, {down_.get()}); }

  void settle() {
    std::vector<float> row(static_cast<size_t>(c_.hidden));
    b_.read_row(narrow_, 0, row);
  }
  // Of one call, in a run that is long enough for the clocks to be those of a prefill.
  double seconds(const std::function<void()>& work) {
    constexpr double kRunSeconds = 0.4;
    work();
    settle();
    double begin = now();
    work();
    settle();
    const int repeats = std::clamp(static_cast<int>(kRunSeconds / (now() - begin)), 2, 5000);
    begin = now();
    for (int i = 0; i < repeats; ++i) work();
    settle();
    return (now() - begin) / repeats;
  }
  double line(const char* name, double flop, double bytes, const std::function<void()>& work) {
    const double s = seconds(work);
    std::printf("  %-36s%8.3f ms  %7.0f %s\n", name, s * 1e3, flop > 0 ? flop / s / 1e12 : bytes / s / 1e9, flop > 0 ? "TFLOP/s" : "GB/s");
    return s;
  }

  Backend& b_;
  const ModelConfig& c_;
  const int64_t chunk_;
  WeightHandle query_, key_, value_, output_, gate_weight_, up_weight_, down_, norm_;
  std::unique_ptr<DeviceRope> rope_;
  Activation hidden_, narrow_, q_, k_, v_, out_, gate_, up_;
};

}  // namespace

int main(int argc, char** argv) try {
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  std::vector<int64_t> sizes;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--fp8") == 0) options.gpu.weights = GpuWeights::kFp8;
    else if (std::strcmp(argv[i], "--chunk") == 0 && i + 1 < argc) options.chunk_tokens = std::atoll(argv[++i]);
    else sizes.push_back(std::atoll(argv[i]));
  }
  if (sizes.empty()) sizes = {32768, 131072};
  const RandomModel llama;
  if (const std::string why = why_not_cuda(llama.model().config); !why.empty()) {
    std::printf("skipped: no CUDA device: %s\n", why.c_str());
    return 77;
  }
  options.kv_budget_bytes = (*std::max_element(sizes.begin(), sizes.end()) + 4 * kPageTokens) * 4 * llama.model().config.layers * llama.model().config.kv_dim();
  std::vector<double> whole;
  {
    Engine engine(llama.model(), options);
    std::printf("%s\n", engine.device().name.c_str());
    for (const int64_t tokens : sizes) whole.push_back(prefill_seconds(engine, tokens));
  }
  const std::unique_ptr<Backend> backend = make_cuda_backend(options.gpu);
  const int64_t chunk = options.chunk_tokens > 0 ? options.chunk_tokens : backend->preferred_chunk_tokens(false);
  std::printf("a layer at %lld tokens:\n", static_cast<long long>(chunk));
  Parts parts(*backend, llama.model(), chunk);
  const auto [layer, last_layer] = parts.layer_seconds();
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double layers = static_cast<double>(llama.model().config.layers), chunks = static_cast<double>(sizes[i]) / static_cast<double>(chunk);
    const auto [append, attention] = parts.attention_seconds(sizes[i]);
    const double attending = (layers - 1) * attention, all = (layers - 1) * chunks * layer + chunks * last_layer + layers * append + attending;
    std::printf("%lld tokens: %.3f s whole, %.0f tokens/s; attention %.3f s + the rest %.3f s = %.3f s (whole %+.1f %%)\n", static_cast<long long>(sizes[i]), whole[i], static_cast<double>(sizes[i]) / whole[i],
                attending, all - attending, all, 100 * (whole[i] / all - 1));
  }
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
