// A whole prefill beside the sum of its parts: build/native/prefill_parts_bench MODEL [tokens ...]. The parts are the engine's
// operations at its chunk size, each timed by itself, times how often they occur.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>

#include "base/error.h"
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
  Parts(Backend& backend, const Model& model) : b_(backend), c_(model.config), chunk_(backend.preferred_chunk_tokens()) {
    const LayerWeights& l = model.weights.layers[0];
    for (const TensorView* view : {&l.q, &l.k, &l.v, &l.attention_output, &l.gate, &l.up, &l.down}) weights_.push_back(b_.upload(*view));
    norm_ = b_.upload(l.attention_norm);
    rope_ = b_.upload_rope(c_.rope);
    hidden_ = b_.allocate_float(chunk_, c_.hidden);
    narrow_ = b_.allocate(chunk_, c_.hidden);
    q_ = b_.allocate(chunk_, c_.q_dim()), k_ = b_.allocate(chunk_, c_.kv_dim()), v_ = b_.allocate(chunk_, c_.kv_dim()), out_ = b_.allocate(chunk_, c_.q_dim());
    gate_ = b_.allocate(chunk_, c_.ffn), up_ = b_.allocate(chunk_, c_.ffn);
    // Real numbers everywhere: an embedding through the layer's own products.
    const WeightHandle embedding = b_.upload(model.weights.embedding);
    std::vector<int32_t> tokens(static_cast<size_t>(chunk_));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 13 % static_cast<size_t>(c_.vocabulary));
    b_.embed(*embedding, tokens, hidden_);
    b_.rms_norm(hidden_, *norm_, c_.norm_epsilon, narrow_);
    products();
    settle();
  }

  // Seconds of one layer on one chunk, but for attention.
  double products_seconds() {
    return seconds([&] { products(); });
  }
  double rest_seconds() {
    return seconds([&] {
      b_.rms_norm(hidden_, *norm_, c_.norm_epsilon, narrow_);
      b_.add(hidden_, narrow_);
      b_.rms_norm(hidden_, *norm_, c_.norm_epsilon, narrow_);
      b_.silu_mul(gate_, up_);
      b_.add(hidden_, narrow_);
    });
  }
  // Rotation, the KV append and attention of all chunks of one layer.
  std::pair<double, double> attention_seconds(int64_t tokens) {
    const KvShape shape{1, c_.kv_heads, c_.head_dim, KvFormat::kBFloat16};
    const auto storage = b_.allocate_kv(shape, tokens / kPageTokens);
    std::vector<int32_t> slots(static_cast<size_t>(storage->pages()));
    for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int32_t>(i);
    const KvPages pages{storage.get(), slots};
    double append = 0;
    for (int64_t first = 0; first < tokens; first += chunk_) append += seconds([&] { b_.rope_and_append_kv(q_, k_, v_, *rope_, shape, 0, pages, first); }, 0.02);
    // The time is linear in the position: a trapezoid over three of them.
    const int64_t last = tokens - chunk_;
    double at[3];
    for (int i = 0; i < 3; ++i) at[i] = seconds([&] { b_.attention(q_, shape, c_.heads, 0, pages, last / chunk_ * i / 2 * chunk_, out_); });
    return {append, (at[0] + 2 * at[1] + at[2]) / 4 * static_cast<double>(tokens / chunk_)};
  }
  int64_t chunk() const { return chunk_; }

 private:
  void products() {
    b_.linear(narrow_, *weights_[0], nullptr, q_);
    b_.linear(narrow_, *weights_[1], nullptr, k_);
    b_.linear(narrow_, *weights_[2], nullptr, v_);
    b_.linear(q_, *weights_[3], nullptr, narrow_);
    b_.linear(narrow_, *weights_[4], nullptr, gate_);
    b_.linear(narrow_, *weights_[5], nullptr, up_);
    b_.linear(gate_, *weights_[6], nullptr, narrow_);
  }
  void settle() {
    std::vector<float> row(static_cast<size_t>(c_.hidden));
    b_.read_row(narrow_, 0, row);
  }
  // Of one call, in a run that is long enough for the clocks to be those of a prefill.
  double seconds(const std::function<void()>& work, double run_seconds = 1) {
    work();
    settle();
    double begin = now();
    work();
    settle();
    const int repeats = std::clamp(static_cast<int>(run_seconds / (now() - begin)), 2, 5000);
    begin = now();
    for (int i = 0; i < repeats; ++i) work();
    settle();
    return (now() - begin) / repeats;
  }

  Backend& b_;
  const ModelConfig& c_;
  const int64_t chunk_;
  std::vector<WeightHandle> weights_;
  WeightHandle norm_;
  std::unique_ptr<DeviceRope> rope_;
  Activation hidden_, narrow_, q_, k_, v_, out_, gate_, up_;
};

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::printf("usage: prefill_parts_bench MODEL [tokens ...]\n");
    return 2;
  }
  std::vector<int64_t> sizes;
  for (int i = 2; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  if (sizes.empty()) sizes = {32768, 131072};
  std::vector<double> whole;
  {
    EngineOptions options;
    options.device = DeviceChoice::kCuda;
    Engine engine(argv[1], options);
    std::printf("%s\n", engine.device().name.c_str());
    for (const int64_t tokens : sizes) whole.push_back(prefill_seconds(engine, tokens));
  }
  const Model model = open_model(argv[1]);
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Parts parts(*backend, model);
  const double products = parts.products_seconds(), rest = parts.rest_seconds();
  const double flop = 2.0 * static_cast<double>(parts.chunk()) * static_cast<double>(model.config.hidden * (2 * model.config.q_dim() + 2 * model.config.kv_dim() + 3 * model.config.ffn));
  std::printf("a layer's products at %lld tokens: %.3f ms, %.0f TFLOP/s; norms, sums and activation %.3f ms\n", static_cast<long long>(parts.chunk()), products * 1e3, flop / products / 1e12, rest * 1e3);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double layers = static_cast<double>(model.config.layers), chunks = static_cast<double>(sizes[i]) / static_cast<double>(parts.chunk());
    const auto [append, attention] = parts.attention_seconds(sizes[i]);
    const double main = layers * (chunks * products + attention), all = main + layers * (chunks * rest + append);
    std::printf("%lld tokens: %.3f s whole, %.0f tokens/s; products %.3f s + attention %.3f s = %.3f s (whole %+.1f %%); with norms, sums, activation, KV append %.3f s (whole %+.1f %%)\n",
                static_cast<long long>(sizes[i]), whole[i], static_cast<double>(sizes[i]) / whole[i], layers * chunks * products, layers * attention, main, 100 * (whole[i] / main - 1), all, 100 * (whole[i] / all - 1));
  }
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
