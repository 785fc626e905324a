// Teacher-forced scores against the logits of the same engine.
#include "engine/score.h"

#include <algorithm>

#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;

namespace {

EngineOptions exact(int64_t chunk = 0) {
  EngineOptions options;
  options.cpu.precision = Precision::kFloat32;
  options.kv_format = KvFormat::kFloat32;
  options.chunk_tokens = chunk;
  return options;
}

// Of one token, from logits in double and without the maximum subtracted: another way than the engine's.
double plain_nll(std::span<const float> logits, int32_t token) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  return -std::log(std::exp(static_cast<double>(logits[static_cast<size_t>(token)])) / sum);
}

}  // namespace

TEST("a token's score is the softmax's, whatever the size of the logits; of equal logits the first counts") {
  const std::vector<float> logits = {1, 3, 3, -2};
  for (int32_t token = 0; token < 4; ++token) {
    const TokenScore score = score_token(logits, token);
    CHECK(std::fabs(score.nll - plain_nll(logits, token)) < 1e-12);
    CHECK(score.top1 == 1);
  }
  const std::vector<float> large = {3e4f, 3e4f, -3e4f};
  CHECK(std::fabs(score_token(large, 1).nll - std::log(2.0)) < 1e-12);
  CHECK(std::fabs(score_token(large, 2).nll - (6e4 + std::log(2.0))) < 1e-8);
}

TEST("scores of a sequence are those of its logits, in chunks and blocks of any size") {
  for (const char* name : {"llama", "llama-d128-gqa4-tied", "qwen2", "qwen3-tied"}) {
    const std::string folder = files::shared(std::string("golden/tiny/") + name);
    const std::vector<int32_t> given = files::references(folder + "/reference.safetensors").at("tokens").values<int32_t>();
    std::vector<int32_t> tokens;
    while (tokens.size() < 200) tokens.insert(tokens.end(), given.begin(), given.end());  // more than kLogitRows
    Engine whole(folder, exact());
    const auto reference = whole.create_context();
    const std::vector<float> logits = whole.all_logits(*reference, tokens);
    const auto vocabulary = static_cast<size_t>(whole.model().config.vocabulary);
    for (const int64_t chunk : {0, 1, 65, 128}) {
      Engine engine(folder, exact(chunk));
      const auto context = engine.create_context();
      std::vector<TokenScore> scores(tokens.size());
      size_t done = 3;
      engine.prefill(*context, std::span(tokens).first(done), CancelToken());
      while (done < tokens.size())
        done += static_cast<size_t>(engine.score_chunk(*context, std::span(tokens).subspan(done), std::span(scores).subspan(done), CancelToken()));
      CHECK(context->length() == static_cast<int64_t>(tokens.size()));
      CHECK(engine.counters().prefilled_tokens == static_cast<int64_t>(tokens.size()));
      for (size_t i = 3; i < tokens.size(); ++i) {
        const auto before = std::span(logits).subspan((i - 1) * vocabulary, vocabulary);
        CHECK(std::fabs(scores[i].nll - plain_nll(before, tokens[i])) < 1e-3);
        const auto best = *std::max_element(before.begin(), before.end());
        CHECK(before[static_cast<size_t>(scores[i].top1)] > best - 1e-3f * std::fabs(best));
      }
    }
  }
}

TEST("a context that was cut has no logits, and no next token, until it goes on") {
  Engine engine(files::fixture("qwen3-tied"), exact());
  const auto context = engine.create_context();
  std::vector<int32_t> tokens(20);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  engine.prefill(*context, tokens, CancelToken());
  CHECK(!context->logits().empty());
  context->truncate(19);
  CHECK(context->logits().empty());
  std::vector<TokenScore> scores(1);
  CHECK_THROWS(engine.score_chunk(*context, std::span(tokens).first(1), scores, CancelToken()), kInvalidArgument);
}

TEST("a pre-filled prompt ends with the last token's logits, though the last layer leaves out the others") {
  for (const char* name : {"llama", "qwen3-tied", "glm"}) {
    const std::string folder = files::shared(std::string("golden/tiny/") + name);
    const std::vector<int32_t> given = files::references(folder + "/reference.safetensors").at("tokens").values<int32_t>();
    Engine whole(folder, exact());
    const auto reference = whole.create_context();
    const std::vector<float> logits = whole.all_logits(*reference, given);
    const auto wanted = std::span(logits).last(static_cast<size_t>(whole.model().config.vocabulary));
    for (const int64_t chunk : {0, 1, 7, 16}) {
      Engine engine(folder, exact(chunk));
      const auto context = engine.create_context();
      engine.prefill(*context, given, CancelToken());
      CHECK(context->logits().size() == wanted.size());
      for (size_t i = 0; i < wanted.size(); ++i) CHECK(std::fabs(context->logits()[i] - wanted[i]) < 1e-3f);
    }
  }
}

TEST("scoring behind a token that left its choice alone is as behind one that left its logits") {
  Engine engine(files::fixture("qwen3-tied"), exact());
  const auto context = engine.create_context(), chosen = engine.create_context();
  const std::vector<int32_t> tokens = {1, 2, 3, 4};
  std::vector<TokenScore> scores(tokens.size()), again(tokens.size());
  for (const auto& [one, next] : {std::pair{context.get(), Next::kLogits}, std::pair{chosen.get(), Next::kChoice}}) {
    engine.prefill(*one, tokens, CancelToken());
    engine.decode(*one, 5, CancelToken(), next);
  }
  CHECK(!context->logits().empty() && chosen->logits().empty() && context->choice() == chosen->choice());
  CHECK(engine.score_chunk(*context, tokens, scores, CancelToken()) == engine.score_chunk(*chosen, tokens, again, CancelToken()));
  CHECK(scores[0].nll == again[0].nll && scores[0].top1 == again[0].top1);
  CHECK(chosen->length() == context->length());
}

TEST("drawing behind a token is as drawing from its logits, and leaves the choice") {
  Engine engine(files::fixture("qwen3-tied"), exact());
  const auto context = engine.create_context(), drawn = engine.create_context();
  for (Context* one : {context.get(), drawn.get()}) engine.prefill(*one, std::vector<int32_t>{1, 2, 3, 4}, CancelToken());
  Sampler sampler({.temperature = 1, .seed = 3}), same({.temperature = 1, .seed = 3});
  for (int32_t token = 5; drawn->length() < 40;) {
    engine.decode(*context, token, CancelToken());
    const int32_t next = engine.decode(*drawn, token, {}, same, CancelToken()).next;
    CHECK(next == sampler.choose(context->logits()) && drawn->choice() == context->choice());
    token = next;
  }
}

TEST("where there is no room for a copy of the last token's page, its logits cannot be had, and the context is as before") {
  const std::string model = files::fixture("llama.Q8_0.gguf");
  EngineOptions options = exact();
  options.kv_budget_bytes = Engine(model, options).pool().page_bytes() * 8;
  Engine engine(model, options);
  const auto context = engine.create_context();
  std::vector<int32_t> tokens(static_cast<size_t>(engine.pool().capacity() * kPageTokens - 50), 7);
  engine.prefill(*context, tokens, CancelToken());
  engine.decode(*context, 5, CancelToken(), Next::kChoice);
  const auto fork = context->fork();
  const auto choice = context->choice();
  CHECK_THROWS(engine.complete_logits(*context), kOutOfMemory);
  CHECK(context->length() == static_cast<int64_t>(tokens.size()) + 1 && context->choice() == choice);
}

TEST("scoring needs something before it, and a stopped one leaves the context as it was") {
  Engine engine(files::shared("golden/tiny/llama"), exact());
  const auto context = engine.create_context();
  const std::vector<int32_t> tokens = {1, 2, 3, 4};
  std::vector<TokenScore> scores(tokens.size());
  CHECK_THROWS(engine.score_chunk(*context, tokens, scores, CancelToken()), kInvalidArgument);
  engine.prefill(*context, tokens, CancelToken());
  CHECK(engine.score_chunk(*context, {}, {}, CancelToken()) == 0);
  CancelToken stopped;
  stopped.cancel();
  CHECK_THROWS(engine.score_chunk(*context, tokens, scores, stopped), kCancelled);
  CHECK(context->length() == 4);
  const std::vector<int32_t> outside = {1, 1 << 30};
  CHECK_THROWS(engine.score_chunk(*context, outside, scores, CancelToken()), kInvalidArgument);
}

TEST_MAIN()
