// Answers with tokens guessed from the prompt are those without, wherever they end.
#include "engine/generation.h"

#include <algorithm>
#include <random>

#include "base/error.h"
#include "check.h"
#include "engine/reference.h"
#include "model/files.h"

using namespace longview;

namespace {

struct Outcome {
  std::vector<int32_t> tokens, context;
  Generation::Finish finish{};
  int64_t passes = 0, guessed = 0;
  bool operator==(const Outcome& other) const { return tokens == other.tokens && context == other.context && finish == other.finish; }
};

Outcome outcome(Engine& engine, const Context& before, GenerationOptions options) {
  const auto context = before.fork();
  const int64_t decoded = engine.counters().decoded_tokens, guessed = engine.counters().guessed_tokens;
  Generation generation(std::move(options));
  Outcome out;
  for (std::optional<Generation::Finish> finish; !finish; ++out.passes) {
    finish = generation.step(engine, *context, CancelToken(), [&](int32_t token, int64_t length) {
      out.tokens.push_back(token);
      CHECK(length >= before.length() && length < engine.window());
    });
    if (finish) out.finish = *finish;
  }
  out.context.assign(context->tokens().begin(), context->tokens().end());
  out.guessed = engine.counters().guessed_tokens - guessed;
  CHECK(engine.counters().decoded_tokens - decoded >= static_cast<int64_t>(out.tokens.size()) && out.guessed <= engine.counters().decoded_tokens - decoded);
  return out;
}

// A prompt of so many tokens, the same passage again and again.
std::vector<int32_t> passages(const Engine& engine, int64_t length, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> passage(50), out;
  for (int32_t& token : passage) token = static_cast<int32_t>(random() % static_cast<uint64_t>(engine.model().config.vocabulary));
  while (static_cast<int64_t>(out.size()) < length) out.push_back(passage[out.size() % passage.size()]);
  return out;
}

std::unique_ptr<Context> quoting(Engine& engine, int64_t length, uint64_t seed) {
  auto context = engine.create_context();
  engine.prefill(*context, passages(engine, length, seed), CancelToken());
  return context;
}

const std::vector<std::string> kModels = {"qwen3-tied", "llama.Q8_0.gguf", "glm4", "phi3", "ministral3"};

}  // namespace

TEST("the same tokens as one by one, greedily and drawn, in fewer passes, across the ends of pages") {
  int64_t guessed = 0;
  for (const std::string& model : kModels) {
    Engine engine(files::fixture(model), exact(""));
    for (const int64_t length : {61, 100, 128 - 60, 150}) {
      const auto context = quoting(engine, length, static_cast<uint64_t>(length));
      const Outcome alone = outcome(engine, *context, {.most_tokens = 90, .looks_up = false}), ahead = outcome(engine, *context, {.most_tokens = 90});
      CHECK(alone == ahead && !alone.tokens.empty() && alone.guessed == 0);
      CHECK(ahead.passes + ahead.guessed == alone.passes);
      guessed += ahead.guessed;
      for (const uint64_t seed : {1, 2, 3}) {
        const Sampling sampling{.temperature = 0.3f, .top_p = 0.9f, .seed = seed};
        const Outcome drawn = outcome(engine, *context, {.sampling = sampling, .most_tokens = 60, .looks_up = false}), drawn_ahead = outcome(engine, *context, {.sampling = sampling, .most_tokens = 60});
        CHECK(drawn == drawn_ahead && drawn_ahead.passes + drawn_ahead.guessed == drawn.passes);
        guessed += drawn_ahead.guessed;
      }
    }
  }
  std::printf("  %lld tokens were guessed\n", static_cast<long long>(guessed));
  CHECK(guessed > 500);
}

TEST("stop sequences and limits end an answer in the middle of guesses as they do elsewhere") {
  Engine engine(files::fixture("qwen3-tied"), exact(""));
  const auto context = quoting(engine, 100, 5);
  const Outcome whole = outcome(engine, *context, {.most_tokens = 50});
  CHECK(whole.guessed > 10);
  for (int64_t limit = 0; limit <= 50; ++limit) {
    const Outcome ahead = outcome(engine, *context, {.most_tokens = limit});
    CHECK(ahead == outcome(engine, *context, {.most_tokens = limit, .looks_up = false}) && static_cast<int64_t>(ahead.tokens.size()) == limit);
  }
  for (size_t length : {1, 2, 3})
    for (size_t at = 0; at + length <= whole.tokens.size(); ++at) {
      const auto begin = whole.tokens.begin() + static_cast<std::ptrdiff_t>(at);
      const std::vector<std::vector<int32_t>> stops = {{begin, begin + static_cast<std::ptrdiff_t>(length)}};
      const Outcome ahead = outcome(engine, *context, {.stops = stops, .most_tokens = 50}), alone = outcome(engine, *context, {.stops = stops, .most_tokens = 50, .looks_up = false});
      CHECK(ahead == alone && ahead.finish == Generation::Finish::kStop);
      CHECK(ahead.context.size() == static_cast<size_t>(context->length()) + ahead.tokens.size());
    }
}

TEST("an answer to the end of the window and of memory takes no more room than one by one") {
  EngineOptions options = exact("");
  const std::string model = files::fixture("qwen3-tied");
  options.kv_budget_bytes = Engine(model, options).pool().page_bytes() * 8;
  Engine engine(model, options);
  const auto context = quoting(engine, engine.window() - kPageTokens, 9);
  const Outcome alone = outcome(engine, *context, {.most_tokens = 200, .looks_up = false}), ahead = outcome(engine, *context, {.most_tokens = 200});
  CHECK(alone == ahead && alone.finish == Generation::Finish::kWindow && ahead.guessed > 0);
}

TEST("guesses that are all wrong leave nothing behind: not a page, not a token, not another choice") {
  Engine engine(files::fixture("qwen3-tied"), exact(""));
  const auto one = engine.create_context(), other = engine.create_context();
  other->keep_own();
  std::vector<int32_t> tokens(120, 3);
  for (Context* each : {one.get(), other.get()}) engine.prefill(*each, tokens, CancelToken());
  Sampler greedy({});
  for (int32_t token = 1; token < 20; ++token) {
    const int64_t used = engine.pool().used();
    engine.decode(*one, token, CancelToken(), Next::kChoice);
    const int64_t taken = engine.pool().used() - used;
    const int32_t wrong = *one->choice() == 11 ? 12 : 11;
    const int64_t guesses = engine.guesses_at(*other);
    CHECK(guesses == std::min<int64_t>(7, (kPageTokens - (other->length() + 1) % kPageTokens) % kPageTokens));
    const Engine::Decoded decoded = engine.decode(*other, token, std::vector<int32_t>(static_cast<size_t>(guesses), wrong), greedy, CancelToken());
    CHECK(decoded.right == 0 && decoded.next == *one->choice() && other->choice() == one->choice() && other->length() == one->length());
    CHECK(engine.pool().used() - used == 2 * taken);
  }
  CHECK_THROWS(engine.decode(*one, 1, std::vector<int32_t>{1 << 30}, greedy, CancelToken()), kInvalidArgument);
  CHECK_THROWS(engine.decode(*one, 1, std::vector<int32_t>(8, 1), greedy, CancelToken()), kInvalidArgument);
}

TEST("what was guessed is kept in every format as what was read") {
  for (const KvFormat format : {KvFormat::kBFloat16, KvFormat::kQ8, KvFormat::kQ4}) {
    EngineOptions options;
    options.kv_format = format;
    Engine engine(files::fixture("qwen3-tied"), options);
    const auto context = quoting(engine, 100, 3);
    const Outcome ahead = outcome(engine, *context, {.most_tokens = 60});
    CHECK(ahead.guessed > 10);
    int64_t others = 0;  // where logits are as good as equal
    const auto again = context->fork();
    for (const int32_t token : ahead.tokens) {
      others += *again->choice() != token;
      engine.decode(*again, token, CancelToken(), Next::kChoice);
    }
    CHECK(others <= 1);
  }
}

TEST("recurrent layers, which cannot unsee a token, and experts, which each token has for itself, are given no guesses") {
  for (const char* model : {"qwen35", "qwen3moe"}) {
    Engine engine(files::fixture(model), exact(""));
    const auto context = quoting(engine, 100, 2);
    const Outcome ahead = outcome(engine, *context, {.most_tokens = 60});
    CHECK(ahead.guessed == 0 && ahead == outcome(engine, *context, {.most_tokens = 60, .looks_up = false}));
  }
}

TEST("guesses never make an input one of LongRoPE's long ones") {
  Engine engine(files::fixture("phi3"), exact(""));
  const int64_t short_window = engine.model().config.rope.short_window;
  CHECK(short_window > 0);
  const auto context = quoting(engine, short_window - 20, 4);
  CHECK(context->length() < short_window);
  const Outcome ahead = outcome(engine, *context, {.most_tokens = 60}), alone = outcome(engine, *context, {.most_tokens = 60, .looks_up = false});
  CHECK(ahead == alone && context->length() + 60 > short_window);
}

TEST("a cancelled step keeps what earlier ones have said; nothing is said behind nothing") {
  Engine engine(files::fixture("qwen3-tied"), exact(""));
  const auto context = quoting(engine, 100, 5);
  const Outcome whole = outcome(engine, *context, {.most_tokens = 30, .looks_up = false});
  const auto stopped = context->fork();
  Generation generation({.most_tokens = 30});
  std::vector<int32_t> said;
  for (int step = 0; step < 4; ++step) generation.step(engine, *stopped, CancelToken(), [&](int32_t token, int64_t) { said.push_back(token); });
  CancelToken cancel;
  cancel.cancel();
  CHECK_THROWS(generation.step(engine, *stopped, cancel, [](int32_t, int64_t) {}), kCancelled);
  CHECK(said.size() >= 4 && stopped->length() == context->length() + static_cast<int64_t>(said.size()));
  CHECK(std::equal(said.begin(), said.end(), whole.tokens.begin()));
  const auto empty = engine.create_context();
  Generation none({});
  CHECK_THROWS(none.step(engine, *empty, CancelToken(), [](int32_t, int64_t) {}), kInvalidArgument);
}

TEST_MAIN()
