// Calibration on a small model of random weights, whose last chunk is measured again here from the definitions.
#include "engine/calibrate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"
#include "check.h"
#include "model/files.h"
#include "model/quant_formats.h"
#include "sparse/pattern_search.h"

using namespace longview;

namespace {

EngineOptions adaptive() {
  EngineOptions options;
  options.cpu.precision = Precision::kFloat32;
  options.kv_format = KvFormat::kFloat32;
  options.chunk_tokens = 256;
  options.prefill.mode = PrefillMode::kAdaptive;
  return options;
}

std::string model() { return files::fixture("llama.Q8_0.gguf"); }

// Long enough that blocks lie behind the sink and before the window.
std::vector<int32_t> text(const Engine& engine, int64_t tokens = 1024) {
  std::mt19937 random(7);
  std::vector<int32_t> ids(static_cast<size_t>(std::min(tokens, engine.window())));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(engine.model().config.vocabulary));
  return ids;
}

double mean(const std::vector<float>& values) { return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()); }
double sum(const std::vector<float>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

HeadProfile calibrate(double density, int64_t tokens = 1024, int64_t from = 0) {
  Engine engine(model(), adaptive());
  CalibrationOptions options;
  options.density = density;
  options.from_token = from;
  options.every_chunk = 1;
  return calibrate_heads(engine, text(engine, tokens), options, CancelToken());
}

}  // namespace

TEST("a profile is within its density, and errs less where it may visit more") {
  const HeadProfile sparse = calibrate(0.6, 3072), denser = calibrate(0.8, 3072), all = calibrate(1, 3072);
  for (const HeadProfile* profile : {&sparse, &denser, &all}) {
    Engine engine(model(), adaptive());
    const ModelConfig& config = engine.model().config;
    CHECK(profile->layers == config.layers && profile->heads == config.heads);
    CHECK(profile->model_fingerprint == engine.model().fingerprint);
    const HeadProfile read = parse_head_profile(head_profile_json(*profile), {engine.model().fingerprint, config.layers, config.heads}, "The profile");
    CHECK(read.plans == profile->plans);
  }
  std::printf("  mean densities %.3f %.3f %.3f, errors %.3g %.3g %.3g\n", mean(sparse.density), mean(denser.density), mean(all.density), sum(sparse.error), sum(denser.error), sum(all.error));
  CHECK(mean(sparse.density) <= 0.6 && mean(denser.density) <= 0.8);
  CHECK(mean(sparse.density) < mean(all.density));
  CHECK(sum(denser.error) <= sum(sparse.error));
  CHECK(sum(all.error) < 1e-9);
  CHECK(sum(sparse.error) > 1e-9);
}

TEST("a head's error is that of the layer's output, from its definition") {
  const int64_t from = 768, chunk = 256;
  const HeadProfile profile = calibrate(0.85, 1024, from);
  Engine engine(model(), adaptive());
  const ModelConfig& config = engine.model().config;
  const std::vector<int32_t> tokens = text(engine);
  const auto context = engine.create_context();
  engine.prefill(*context, std::span(tokens).first(static_cast<size_t>(from)), CancelToken());
  int64_t sparse_heads = 0;
  engine.observe_attention([&](const Forward::Attention& a) {
    Backend& backend = engine.backend();
    Activation tried = backend.allocate(a.out.rows, a.out.cols);
    const auto plans = std::span(profile.plans).subspan(static_cast<size_t>(a.layer * config.heads), static_cast<size_t>(config.heads));
    backend.attention_sparse(a.q, engine.kv_shape(), config.heads, a.layer, a.pages, a.first_position, plans, tried);
    const TensorView& weight = engine.model().weights.layers[static_cast<size_t>(a.layer)].attention_output;
    std::vector<double> error(static_cast<size_t>(config.heads)), input(1);
    std::vector<float> w(static_cast<size_t>(weight.cols)), dense(w.size()), sparse(w.size()), x(static_cast<size_t>(config.hidden));
    for (int64_t row = chunk / 32 - 1; row < chunk; row += chunk / 32) {
      backend.read_row(a.out, row, dense);
      backend.read_row(tried, row, sparse);
      backend.read_row(a.hidden, row, x);
      for (const float value : x) input[0] += static_cast<double>(value) * static_cast<double>(value);
      for (int64_t r = 0; r < weight.rows; ++r) {
        dequantize_row(weight.type, weight.data + r * (weight.bytes / weight.rows), w.data(), weight.cols);
        for (int64_t h = 0; h < config.heads; ++h) {
          double product = 0;
          for (auto i = static_cast<size_t>(h * config.head_dim); i < static_cast<size_t>((h + 1) * config.head_dim); ++i) product += static_cast<double>(w[i]) * static_cast<double>(sparse[i] - dense[i]);
          error[static_cast<size_t>(h)] += product * product;
        }
      }
    }
    for (int64_t h = 0; h < config.heads; ++h) {
      const auto at = static_cast<size_t>(a.layer * config.heads + h);
      const double expected = error[static_cast<size_t>(h)] / input[0];
      CHECK_NEAR(profile.error[at], expected, 1e-3 * expected + 1e-12);
      sparse_heads += expected > 1e-9;
    }
    backend.release(tried);
  });
  engine.prefill(*context, std::span(tokens).subspan(static_cast<size_t>(from)), CancelToken());
  CHECK(context->length() == from + chunk);
  CHECK(sparse_heads > 0);
}

TEST("the engine reads by a profile, and its pages are told apart from others") {
  const files::Scratch scratch;
  const HeadProfile profile = calibrate(0.6, 3072);
  write_head_profile(scratch.path("profile.json"), profile);
  const auto read = [&](const std::string& file, std::vector<float>& logits) {
    EngineOptions options = adaptive();
    options.prefill.profile = file;
    Engine engine(model(), options);
    const auto context = engine.create_context();
    engine.prefill(*context, text(engine, 3072), CancelToken(), true);
    logits.assign(context->logits().begin(), context->logits().end());
    const HeadCoverage& coverage = engine.counters().coverage;
    return std::pair(coverage.visited / coverage.causal, engine.cache_identity(*context).root);
  };
  std::vector<float> by_profile, by_mode;
  const auto [density, root] = read(scratch.path("profile.json"), by_profile);
  const auto [other_density, other_root] = read("", by_mode);
  std::printf("  density %.3f, by the profile %.3f; without one %.3f\n", density, mean(profile.density), other_density);
  CHECK(root != other_root);
  CHECK(by_profile != by_mode);
  CHECK(density < 1 && density != other_density);
  EngineOptions options = adaptive();
  options.prefill.profile = scratch.put("other.json", "[{}]");
  CHECK_THROWS(Engine(model(), options), kInvalidArgument);
  options.prefill.mode = PrefillMode::kDense;  // needs no profile
  CHECK(Engine(model(), options).window() > 0);
}

TEST("calibration stops when asked to, and leaves the engine as it was") {
  Engine engine(model(), adaptive());
  const std::vector<int32_t> tokens = text(engine);
  CancelToken cancel;
  CalibrationOptions options;
  int64_t read = 0;
  options.on_progress = [&](int64_t done, int64_t total) {
    CHECK(total == static_cast<int64_t>(tokens.size()) && done > read);
    read = done;
    if (done >= 512) cancel.cancel();
  };
  CHECK_THROWS(calibrate_heads(engine, tokens, options, cancel), kCancelled);
  CHECK(read == 512);
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  CHECK(context->length() == static_cast<int64_t>(tokens.size()));
}

TEST("what cannot be calibrated") {
  Engine engine(model(), adaptive());
  const std::vector<int32_t> tokens = text(engine);
  CalibrationOptions options;
  options.from_token = static_cast<int64_t>(tokens.size());
  CHECK_THROWS(calibrate_heads(engine, tokens, options, CancelToken()), kInvalidArgument);
  options.from_token = 100;
  CHECK_THROWS(calibrate_heads(engine, std::span(tokens).first(200), options, CancelToken()), kInvalidArgument);  // one chunk
  options.from_token = 0;
  const std::vector<int32_t> outside = {1, 1 << 30};
  CHECK_THROWS(calibrate_heads(engine, outside, options, CancelToken()), kInvalidArgument);
  EngineOptions dense = adaptive();
  dense.prefill.mode = PrefillMode::kDense;
  Engine without(model(), dense);
  CHECK_THROWS(calibrate_heads(without, tokens, options, CancelToken()), kInvalidArgument);
}

TEST_MAIN()
