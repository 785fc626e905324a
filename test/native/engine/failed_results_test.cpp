// Every allocation behind a token fails in its turn, as whatever a device does may: no context is left with logits that are not its
// own, and what is asked for again comes as if nothing had failed.
#include <numeric>

#include "check.h"
#include "engine/engine.h"
#include "failing_allocations.h"
#include "model/files.h"

using namespace longview;

namespace {

Engine& engine() {
  static Engine engine(files::fixture("qwen3-tied"), [] {
    EngineOptions options;
    options.cpu = {1, Precision::kFloat32, ""};
    return options;
  }());
  return engine;
}

std::unique_ptr<Context> read(int64_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 1);
  auto context = engine().create_context();
  engine().prefill(*context, tokens, CancelToken());
  return context;
}

std::vector<float> logits_of(const Context& context) { return {context.logits().begin(), context.logits().end()}; }

constexpr int32_t kToken = 5;
// Behind which a token is the first of its page, one within it, and the one that fills it.
constexpr int64_t kLengths[] = {kPageTokens, kPageTokens + 9, 2 * kPageTokens - 1};

}  // namespace

TEST("a token whose logits did not come leaves none") {
  for (const int64_t length : kLengths) {
    const auto before = read(length), whole = before->fork();
    engine().decode(*whole, kToken, CancelToken());
    const std::vector<float> wanted = logits_of(*whole);
    bool done = false, read_without_logits = false;
    for (int64_t n = 0; !done; ++n) {
      const auto context = before->fork();
      done = done_before(n, [&] { engine().decode(*context, kToken, CancelToken()); });
      CHECK(context->length() == length || context->length() == length + 1);
      if (context->length() == length && !context->logits().empty()) CHECK(logits_of(*context) == logits_of(*before));
      if (context->length() == length + 1 && !context->logits().empty()) CHECK(logits_of(*context) == wanted);
      CHECK(context->choice().has_value() == !context->logits().empty());
      read_without_logits |= context->length() == length + 1 && context->logits().empty();
      if (context->length() > length) context->truncate(length);
      engine().decode(*context, kToken, CancelToken());
      CHECK(logits_of(*context) == wanted);
    }
    CHECK(read_without_logits);
  }
}

TEST("logits that cannot be completed leave the context as it was") {
  for (const int64_t length : kLengths) {
    const auto before = read(length), whole = before->fork();
    engine().decode(*whole, kToken, CancelToken());
    const std::vector<float> wanted = logits_of(*whole);
    const int64_t used = engine().pool().used();
    bool done = false;
    int64_t failures = 0;
    for (int64_t n = 0; !done; ++n) {
      const auto context = before->fork();
      engine().decode(*context, kToken, CancelToken(), Next::kChoice);
      const auto choice = context->choice();
      done = done_before(n, [&] { engine().complete_logits(*context); });
      failures += !done;
      CHECK(context->length() == length + 1 && context->tokens().back() == kToken && context->choice() == choice);
      CHECK(context->logits().empty() == !done);
      engine().complete_logits(*context);
      CHECK(logits_of(*context) == wanted);
      engine().decode(*context, kToken, CancelToken());
      CHECK(context->length() == length + 2);
    }
    CHECK(failures > 0);
    engine().forget();
    CHECK(engine().pool().used() <= used);
  }
}

TEST_MAIN()
