// Answers with tokens guessed from the prompt on a GPU, in every format of the KV state: each token is the one that the same GPU chooses
// alone, but where two are nearly alike, and the state behind them is as good.
#include "engine/generation.h"

#include <algorithm>

#include "check.h"
#include "cuda/beside.h"

using namespace longview;
using namespace longview::beside;

namespace {

void check_answers(KvFormat format) {
  const std::string path = built_in_model();
  if (const std::string why = why_not_cuda(open_model(path).config); !why.empty()) SKIP("no CUDA device: " + why);
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  options.kv_format = format;
  Engine engine(path, options);
  if (engine.kv_shape().format != format) SKIP("this GPU has no 8-bit floats");
  const Json reference = Json::parse(files::read(files::fixture("longview-135m.json")), "the reference");
  const auto base = engine.create_context();
  engine.prefill(*base, ids(*reference.find("packedTokens")), CancelToken());
  int64_t tokens = 0, passes = 0, others = 0;
  double apart = 0;
  for (const Json& question : *reference.find("questions")->array())
    for (const float temperature : {0.0f, 0.5f}) {
      const std::vector<int32_t> turn = ids(*question.find("turnTokens"));
      const auto context = base->fork(), alone = base->fork();
      for (Context* each : {context.get(), alone.get()}) engine.prefill(*each, turn, CancelToken());
      Generation generation({.sampling = {.temperature = temperature, .seed = 7}, .most_tokens = 60});
      std::vector<int32_t> answer;
      while (!generation.step(engine, *context, CancelToken(), [&](int32_t token, int64_t) { answer.push_back(token); })) ++passes;
      tokens += static_cast<int64_t>(answer.size());
      for (const int32_t token : answer) {
        const float largest = *std::max_element(alone->logits().begin(), alone->logits().end()), chosen = alone->logits()[static_cast<size_t>(token)];
        if (temperature == 0) CHECK(chosen >= largest - 0.25f);
        others += temperature == 0 && chosen < largest;
        engine.decode(*alone, token, CancelToken());
      }
      // What both say next rests on all that was kept.
      engine.complete_logits(*context);
      apart = std::max(apart, difference(context->logits(), alone->logits()));
    }
  std::printf("  %lld tokens in %lld passes, %lld others; logits behind them off by %.4f\n", static_cast<long long>(tokens), static_cast<long long>(passes), static_cast<long long>(others), apart);
  CHECK(passes * 10 < tokens * 9);
  CHECK(apart <= 0.05);
}

}  // namespace

TEST("a state in bf16") { check_answers(KvFormat::kBFloat16); }
TEST("in 8 bits") { check_answers(KvFormat::kQ8); }
TEST("in 4 bits") { check_answers(KvFormat::kQ4); }
TEST("in 8-bit floats") { check_answers(KvFormat::kE4M3); }

TEST_MAIN()
