// Answers with tokens guessed from the prompt on a GPU, in every format of the KV state: each token is the one that the same GPU chooses
// alone, but where two are nearly alike, and what the state behind them leads to is not much further from that of one token after the other than that of
// all tokens at once is.
#include "engine/generation.h"

#include <algorithm>

#include "check.h"
#include "cuda/beside.h"

using namespace longview;
using namespace longview::beside;

namespace {

// `alike`: how far logits of tokens that are taken for each other may be apart; twice as far as reading at once takes them, where that is more: in
// 4 bits, where that alone reaches 1.
void check_answers(KvFormat format, float alike) {
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
  float widest = 0, at_once_widest = 0;
  double apart = 0, at_once_apart = 0;
  for (const Json& question : *reference.find("questions")->array())
    for (const float temperature : {0.0f, 0.5f}) {
      const std::vector<int32_t> turn = ids(*question.find("turnTokens"));
      const auto context = base->fork(), alone = base->fork();
      for (Context* each : {context.get(), alone.get()}) engine.prefill(*each, turn, CancelToken());
      Generation generation({.sampling = {.temperature = temperature, .seed = 7}, .most_tokens = 60});
      std::vector<int32_t> answer;
      while (!generation.step(engine, *context, CancelToken(), [&](int32_t token, int64_t) { answer.push_back(token); })) ++passes;
      tokens += static_cast<int64_t>(answer.size());
      for (size_t i = 0; i < answer.size(); ++i) {
        if (temperature == 0) {
          const auto behind = [&](int32_t token) { return *std::max_element(alone->logits().begin(), alone->logits().end()) - alone->logits()[static_cast<size_t>(token)]; };
          widest = std::max(widest, behind(answer[i]));
          others += behind(answer[i]) > 0;
          // What the same tokens lead to where they are read at once.
          const auto read = base->fork();
          engine.prefill(*read, turn, CancelToken());
          if (i > 0) engine.prefill(*read, std::span(answer).first(i), CancelToken());
          at_once_widest = std::max(at_once_widest, behind(static_cast<int32_t>(std::max_element(read->logits().begin(), read->logits().end()) - read->logits().begin())));
        }
        engine.decode(*alone, answer[i], CancelToken());
      }
      // What all say next rests on all that was kept.
      const auto at_once = base->fork();
      for (const std::vector<int32_t>& part : {turn, answer}) engine.prefill(*at_once, part, CancelToken());
      engine.complete_logits(*context);
      apart += difference(context->logits(), alone->logits());
      at_once_apart += difference(at_once->logits(), alone->logits());
    }
  std::printf("  %lld tokens in %lld passes, %lld others, %.3f apart at most, read at once %.3f; sums of differences behind them %.3f, all at once %.3f\n", static_cast<long long>(tokens), static_cast<long long>(passes),
              static_cast<long long>(others), static_cast<double>(widest), static_cast<double>(at_once_widest), apart, at_once_apart);
  CHECK(widest <= std::max(alike, 2 * at_once_widest));
  CHECK(passes * 10 < tokens * 9);
  CHECK(apart <= 1.5 * at_once_apart);
}

}  // namespace

TEST("a state in bf16") { check_answers(KvFormat::kBFloat16, 0.25f); }
TEST("in 8 bits") { check_answers(KvFormat::kQ8, 0.25f); }
TEST("in 4 bits") { check_answers(KvFormat::kQ4, 1); }
TEST("in 8-bit floats") { check_answers(KvFormat::kE4M3, 0.5f); }

TEST_MAIN()
