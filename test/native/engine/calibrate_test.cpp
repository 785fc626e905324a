// Calibration on a small model of random weights, whose last chunk is measured again here from the definitions.
#include "engine/calibrate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "check.h"
#include "engine/small_calibration.h"
#include "model/files.h"
#include "model/quant_formats.h"
#include "sparse/adaptive.h"
#include "sparse/pattern_search.h"

using namespace longview;
using namespace longview::small_calibration;

namespace {

double mean(const std::vector<float>& values) { return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()); }
double sum(const std::vector<float>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

HeadProfile calibrate(double density, int64_t tokens = 1024, int64_t from = 0) {
  Engine engine(model(), adaptive());
  Calibration calibration(engine, text(engine, tokens), every_chunk(from));
  finish(calibration);
  return calibration.profile(kBalanced, density);
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
    const auto plans = std::span(profile.plans).subspan(static_cast<size_t>(a.layer.index * config.heads), static_cast<size_t>(config.heads));
    backend.attention_sparse(a.q, engine.kv_shape(), config.heads, a.layer, a.pages, a.first_position, plans, tried);
    const TensorView& weight = engine.model().weights.layers[static_cast<size_t>(a.layer.index)].attention_output;
    std::vector<double> fourth(static_cast<size_t>(config.heads));
    std::vector<float> w(static_cast<size_t>(weight.cols)), dense(w.size()), sparse(w.size()), x(static_cast<size_t>(config.hidden));
    for (int64_t row = chunk / 64 - 1; row < chunk; row += chunk / 64) {
      backend.read_row(a.out, row, dense);
      backend.read_row(tried, row, sparse);
      backend.read_row(a.hidden, row, x);
      double input = 0;
      std::vector<double> error(static_cast<size_t>(config.heads));
      for (const float value : x) input += static_cast<double>(value) * static_cast<double>(value);
      for (int64_t r = 0; r < weight.rows; ++r) {
        dequantize_row(weight.type, weight.data + r * (weight.bytes / weight.rows), w.data(), weight.cols);
        for (int64_t h = 0; h < config.heads; ++h) {
          double product = 0;
          for (auto i = static_cast<size_t>(h * config.head_dim); i < static_cast<size_t>((h + 1) * config.head_dim); ++i) product += static_cast<double>(w[i]) * static_cast<double>(sparse[i] - dense[i]);
          error[static_cast<size_t>(h)] += product * product;
        }
      }
      for (size_t h = 0; h < error.size(); ++h) fourth[h] += std::pow(error[h] / input, 2);
    }
    for (int64_t h = 0; h < config.heads; ++h) {
      const auto at = static_cast<size_t>(a.layer.index * config.heads + h);
      const double expected = std::sqrt(fourth[static_cast<size_t>(h)] / 64);
      CHECK_NEAR(profile.error[at], expected, 1e-3 * expected + 1e-12);
      sparse_heads += expected > 1e-9;
    }
    backend.release(tried);
  });
  engine.prefill(*context, std::span(tokens).subspan(static_cast<size_t>(from)), CancelToken());
  CHECK(context->length() == from + chunk);
  CHECK(sparse_heads > 0);
}

TEST("chunks that end before the first token to measure, or with it, are only read") {
  const files::Scratch scratch;
  Engine engine(model(), adaptive());
  for (const auto& [from, chunks] : {std::pair<int64_t, int64_t>{0, 4}, {255, 4}, {256, 3}, {767, 2}, {768, 1}, {1023, 1}}) {
    const std::string path = scratch.path(std::to_string(from));
    Calibration calibration(engine, text(engine), every_chunk(from, path));
    finish(calibration);
    CHECK(Part(path, engine).rows(0) == 64 * chunks);
  }
}

TEST("in a text of more blocks than shares are meant for, plans are tried as such a context is read by them") {
  const files::Scratch scratch;
  Model far = open_model(model());
  far.config.window = int64_t{1} << 17;
  // One layer of one head: that is read in seconds.
  far.weights.layers.resize(1);
  LayerWeights& layer = far.weights.layers.front();
  far.config.layers = far.config.heads = far.config.kv_heads = 1;
  const auto shrink = [](TensorView& view, int64_t rows, int64_t cols) {
    view.bytes = view.bytes * rows * cols / (view.rows * view.cols);
    view.rows = rows, view.cols = cols;
  };
  for (TensorView* view : {&layer.q, &layer.k, &layer.v}) shrink(*view, far.config.head_dim, view->cols);
  shrink(layer.attention_output, layer.attention_output.rows, far.config.head_dim);
  EngineOptions fast;  // as the device reads fastest
  fast.chunk_tokens = 1024;
  fast.prefill.mode = PrefillMode::kAdaptive;
  Engine engine(std::move(far), fast);
  const int64_t total = 66 * 1024, last = 1024, length = engine.kv_shape().mean_tokens * sparse::kShareBlocks;
  CHECK(total > length);
  const std::vector<int32_t> tokens = text(engine, total);
  Calibration calibration(engine, tokens, every_chunk(total - last, scratch.path("part")));
  finish(calibration);
  const Part part(scratch.path("part"), engine);

  // The last chunk again, behind the pages that are there.
  const auto context = engine.create_context();
  CHECK(engine.adopt(*context, tokens) == total - kPageTokens);
  context->truncate(total - last);
  const std::vector<HeadPlan> plans = adaptive_candidates();
  size_t scaled = 0;
  engine.observe_attention([&](const Forward::Attention& a) {
    Backend& backend = engine.backend();
    Activation tried = backend.allocate(a.out.rows, a.out.cols);
    std::vector<HeadCoverage> coverage(part.heads);
    const auto visited = [&](const HeadPlan& plan) {
      backend.take_coverage(coverage);  // of what came before
      const std::vector<HeadPlan> all(part.heads, plan);
      backend.attention_sparse(a.q, engine.kv_shape(), engine.model().config.heads, {0}, a.pages, a.first_position, all, tried);
      backend.take_coverage(coverage);
      return coverage.front().visited;
    };
    for (size_t i = 0; i < plans.size(); ++i) {
      HeadPlan plan = plans[i];
      if (plan.pattern == Pattern::kAdaptive && plan.rule == AdaptiveRule::kShare) plan.threshold *= static_cast<float>(length) / static_cast<float>(total);
      CHECK(part.trial(0, 0, i, 2) == visited(plan));
      scaled += visited(plan) != visited(plans[i]);
    }
    backend.release(tried);
  });
  engine.prefill(*context, std::span(tokens).last(last), CancelToken());
  std::printf("  %zu of %zu plans visit more there\n", scaled, plans.size());
  CHECK(scaled > 0);
}

TEST("the last chunk is measured in any case, where most can be left out") {
  Engine engine(model(), adaptive());
  Calibration calibration(engine, text(engine), {true, false, 0, 1000, ""});
  finish(calibration);  // of the other chunks the first alone, which leaves out nothing
  CHECK(sum(calibration.profile(kFast, 0.8).error) > 1e-9);
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

TEST("what a stopped reading visited is not counted as the next one's") {
  Engine engine(model(), adaptive());
  const std::vector<int32_t> tokens = text(engine);
  const auto read = [&] {
    const HeadCoverage before = engine.counters().coverage;
    engine.prefill(*engine.create_context(), tokens, CancelToken(), true);
    return engine.counters().coverage - before;
  };
  const HeadCoverage alone = read();
  CancelToken cancel;
  engine.observe_attention([&](const Forward::Attention&) { cancel.cancel(); });  // behind the first layer
  CHECK_THROWS(engine.prefill(*engine.create_context(), tokens, cancel, true), kCancelled);
  engine.observe_attention({});
  const HeadCoverage after = read();
  CHECK(after.visited == alone.visited && after.causal == alone.causal && after.probes == alone.probes);
}

TEST("heads that run at once share the time that they took, by the keys that they visited") {
  const files::Scratch scratch;
  Engine engine(model(), adaptive());
  const ModelConfig& config = engine.model().config;
  Calibration calibration(engine, text(engine), every_chunk(768, scratch.path("part")));  // one chunk is measured
  const auto start = std::chrono::steady_clock::now();
  finish(calibration);
  const double all = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Part part(scratch.path("part"), engine);
  double seconds = 0;
  for (size_t layer = 0; layer < static_cast<size_t>(config.layers); ++layer)
    for (size_t head = 0; head < part.heads; ++head)
      for (size_t candidate = 0; candidate < part.candidates; ++candidate) {
        const auto of = [&](size_t h, size_t number) { return part.trial(layer, h, candidate, number); };
        CHECK(of(head, 1) > 0);
        CHECK_NEAR(of(head, 1) * of(0, 2), of(0, 1) * of(head, 2), 1e-9 * of(head, 1) * of(0, 2));
        seconds += of(head, 1);
      }
  CHECK(seconds < all);
}

TEST("of three layers the last is late: an error there weighs a fiftieth, and less is visited without a profile") {
  const files::Scratch scratch;
  Model three = open_model(model());
  three.weights.layers.push_back(three.weights.layers.front());
  three.config.layers = 3;
  Engine engine(std::move(three), adaptive());
  Calibration calibration(engine, text(engine), every_chunk(768, scratch.path("part")));
  finish(calibration);
  const Part part(scratch.path("part"), engine);
  const std::vector<HeadPlan> plans = adaptive_candidates();
  std::vector<PlanMeasurement> measured;
  double uncalibrated = 0;
  for (size_t layer = 0; layer < 3; ++layer)
    for (size_t head = 0; head < part.heads; ++head)
      for (size_t candidate = 0; candidate < part.candidates; ++candidate) {
        const double error = std::sqrt(part.trial(layer, head, candidate, 0) / static_cast<double>(part.rows(layer)));
        const double density = part.trial(layer, head, candidate, 2) / part.trial(layer, head, candidate, 3);
        measured.push_back({layer == 2 ? 0.02 * error : error, density, part.trial(layer, head, candidate, 1)});
        if (plans[candidate] == uncalibrated_plan(kFast, "cpu", layer == 2)) uncalibrated += density;
      }
  CHECK_NEAR(calibration.uncalibrated_density(kFast), uncalibrated / static_cast<double>(3 * part.heads), 1e-12);
  const HeadProfile profile = calibration.profile(kFast, 0.8);
  const std::vector<int32_t> chosen = choose_plans(measured, static_cast<int64_t>(part.candidates), 0.8);
  for (size_t i = 0; i < chosen.size(); ++i) {
    CHECK(profile.plans[i] == plans[static_cast<size_t>(chosen[i])]);
    const double error = measured[i * part.candidates + static_cast<size_t>(chosen[i])].error * (i < 2 * part.heads ? 1 : 50);
    CHECK_NEAR(profile.error[i], error, 1e-6 * error);
  }
}

TEST("calibrated heads visit no more keys than others do, by the plans of their mode") {
  Engine engine(model(), adaptive());
  CalibrationOptions options = every_chunk();
  options.minference = true;
  Calibration calibration(engine, text(engine, 3072), options);
  finish(calibration);
  for (const ProfileUse& use : {kFast, kBalanced, kMinference}) {
    const double density = calibration.uncalibrated_density(use);
    CHECK(density > 0 && density <= 1);
    const HeadProfile profile = calibration.profile(use, density);
    CHECK(mean(profile.density) <= density);
    for (const HeadPlan& plan : profile.plans) {
      const std::vector<HeadPlan> allowed = use.mode == PrefillMode::kMinference ? minference_candidates() : adaptive_candidates();
      CHECK(std::find(allowed.begin(), allowed.end(), plan) != allowed.end());
    }
  }
  CHECK_THROWS(calibration.profile(kFast, 0), kInvalidArgument);
  Calibration without(engine, text(engine, 3072), every_chunk());
  CHECK_THROWS(without.profile(kMinference, 1), kInvalidArgument);
  Calibration alone(engine, text(engine), {false, true, 0, 1000, ""});
  finish(alone);
  CHECK(mean(alone.profile(kMinference, 1).density) <= 1);
  CHECK_THROWS(alone.profile(kFast, 1), kInvalidArgument);
}

TEST("a text that was read sparsely before is measured as one that was not") {
  const files::Scratch scratch;
  EngineOptions options = adaptive();
  options.prefill.profile = scratch.path("profile.json");
  write_head_profile(options.prefill.profile, calibrate(0.6, 3072));
  const auto errors = [&](bool before) {
    Engine engine(model(), options);
    const std::vector<int32_t> tokens = text(engine, 3072);
    const auto context = engine.create_context();
    if (before) engine.prefill(*context, tokens, CancelToken(), true);
    const HeadCoverage& coverage = engine.counters().coverage;
    CHECK(!before || coverage.visited < coverage.causal);
    Calibration calibration(engine, tokens, every_chunk(2048, scratch.path("part")));
    finish(calibration);
    const Part part(scratch.path("part"), engine);
    calibration.forget_part();
    std::vector<double> all;
    for (size_t layer = 0; layer < static_cast<size_t>(engine.model().config.layers); ++layer)
      for (size_t head = 0; head < part.heads; ++head)
        for (size_t candidate = 0; candidate < part.candidates; ++candidate) all.push_back(part.trial(layer, head, candidate, 0));
    return all;
  };
  CHECK(errors(true) == errors(false));
}

TEST("a profile is found by model, device and target; one that cannot be used is passed over, and that is said") {
  const files::Scratch scratch;
  const HeadProfile profile = calibrate(0.6, 3072);
  const auto opened = [&](PrefillTarget target) {
    EngineOptions options = adaptive();
    options.prefill.mode = PrefillMode::kAuto;
    options.prefill.target = target;
    options.prefill.profile_folders = {scratch.path("missing"), scratch.path()};
    Engine engine(model(), options);
    return std::pair(engine.cache_identity(*engine.create_context()).root, engine.device().note);
  };
  const auto without = opened(PrefillTarget::kFast);
  const ProfiledModel owner{profile.model_fingerprint, profile.layers, profile.heads, "cpu"};
  const std::string path = scratch.path(profile_name(owner, kFast));
  write_head_profile(path, profile);
  const auto with = opened(PrefillTarget::kFast);
  CHECK(with.first != without.first && with.second == without.second);
  files::write(path, "{\"format\": \"longview-head-profile\"");
  const auto damaged = opened(PrefillTarget::kFast);
  CHECK(damaged.first == without.first);
  CHECK(damaged.second.find(path) != std::string::npos);
}

TEST("what cannot be calibrated") {
  Engine engine(model(), adaptive());
  const std::vector<int32_t> tokens = text(engine);
  CHECK_THROWS(Calibration(engine, tokens, every_chunk(static_cast<int64_t>(tokens.size()))), kInvalidArgument);
  CHECK_THROWS(Calibration(engine, tokens, {true, false, 0, 0, ""}), kInvalidArgument);
  CHECK_THROWS(Calibration(engine, tokens, {false, false, 0, 4, ""}), kInvalidArgument);
  CHECK_THROWS(Calibration(engine, {1, 1 << 30}, {}), kInvalidArgument);
  EngineOptions dense = adaptive();
  dense.prefill.mode = PrefillMode::kDense;
  Engine without(model(), dense);
  CHECK_THROWS(Calibration(without, tokens, {}), kInvalidArgument);
}

TEST_MAIN()
