// Models whose layers, all or some, see only the last tokens: read in any chunks, cut and gone on with, sparsely, and calibrated.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "engine/reference.h"
#include "engine/small_calibration.h"

using namespace longview;
using namespace longview::small_calibration;

namespace {

Model gpt_oss() { return open_model(files::fixture("gpt_oss.MXFP4.gguf")); }
Model gemma3() { return open_model(files::fixture("gemma3")); }

// A llama all of whose layers see so many tokens.
Model all_slide(int64_t span) {
  Model model = open_model(small_calibration::model());
  model.config.sliding = {span, 0};
  return model;
}

EngineOptions in_chunks(int64_t tokens) {
  EngineOptions options = exact("");
  options.chunk_tokens = tokens;
  return options;
}

double apart(std::span<const float> a, std::span<const float> b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return worst;
}

}  // namespace

TEST("whatever number of tokens is read at a time, and behind a cut, a token's logits are the same") {
  for (Model (*const open)() : {gpt_oss, gemma3}) {
    Engine whole(open(), in_chunks(512));
    const std::vector<int32_t> tokens = text(whole, 400);
    const auto all = whole.create_context();
    const std::vector<float> logits = whole.all_logits(*all, tokens);
    const double most = open == gpt_oss ? 2e-4 : 1e-5 * apart(logits, std::vector<float>(logits.size()));
    const auto vocabulary = static_cast<size_t>(whole.model().config.vocabulary);
    for (const int64_t chunk : {1, 29, 128}) {
      Engine parts(open(), in_chunks(chunk));
      const auto context = parts.create_context();
      CHECK(apart(parts.all_logits(*context, tokens), logits) <= most);
      // An answer that is dropped, and another question behind what was read.
      context->truncate(300);
      parts.prefill(*context, std::vector<int32_t>{5, 6, 7}, CancelToken());
      context->truncate(300);
      parts.prefill(*context, std::span(tokens).subspan(300, 60), CancelToken());
      CHECK(apart(context->logits(), std::span(logits).subspan(359 * vocabulary, vocabulary)) <= most);
    }
  }
}

TEST("where all layers slide, what lies behind all spans changes nothing, and there is nothing to read sparsely") {
  EngineOptions options = adaptive();
  Engine engine(all_slide(40), options), wide(small_calibration::model(), options);
  CHECK(engine.kv_shape().mean_tokens == 0 && engine.device().note.find("read densely") != std::string::npos);
  std::vector<int32_t> tokens = text(engine, 600);
  const auto logits_of = [&](Engine& of) {
    const auto context = of.create_context();
    of.prefill(*context, tokens, CancelToken());
    return std::vector<float>(context->logits().begin(), context->logits().end());
  };
  const std::vector<float> before = logits_of(engine), of_wide = logits_of(wide);
  const auto layers = static_cast<size_t>(engine.model().config.layers);
  for (size_t i = 0; i + layers * 40 < tokens.size(); ++i) tokens[i] = (tokens[i] + 1) % static_cast<int32_t>(engine.model().config.vocabulary);
  CHECK(apart(logits_of(engine), before) <= 1e-5);
  CHECK(apart(logits_of(wide), of_wide) > 1e-3 && apart(before, of_wide) > 1e-3);
  tokens[tokens.size() - layers * 40 + layers] += 1;  // which a token sees that the last one sees
  CHECK(apart(logits_of(engine), before) > 1e-5);
}

TEST("calibration measures the layers that see everything; the others' heads stay as they are, and are not counted") {
  Engine engine(gpt_oss(), adaptive());
  const ModelConfig& config = engine.model().config;
  CHECK(config.span(0) > 0 && config.span(1) == 0 && config.layers == 2);
  Calibration calibration(engine, text(engine, 512), every_chunk());
  finish(calibration);
  CHECK(calibration.uncalibrated_density(kBalanced) <= 1);
  const HeadProfile profile = calibration.profile(kBalanced, 0.9);
  const auto heads = static_cast<size_t>(config.heads);
  CHECK(profile.plans.size() == 2 * heads && profile.layers == 2);
  for (size_t head = 0; head < heads; ++head) {
    CHECK(profile.plans[head] == HeadPlan{} && profile.density[head] == 1 && profile.error[head] == 0);
    CHECK(profile.plans[heads + head].pattern != Pattern::kDense || profile.density[heads + head] == 1);
  }
  const files::Scratch scratch;
  EngineOptions by_profile = adaptive();
  by_profile.prefill.profile = scratch.put("profile.json", head_profile_json(profile));
  Engine reading(gpt_oss(), by_profile);
  const auto context = reading.create_context();
  reading.prefill(*context, text(reading, 512), CancelToken());
  for (const float x : context->logits()) CHECK(std::isfinite(x));
  CHECK(reading.counters().coverage.causal == 0);  // the first slides, and of the last nothing is counted
}

TEST_MAIN()
