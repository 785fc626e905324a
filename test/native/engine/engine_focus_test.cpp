// Where tokens look, by the engine: in chunks of any size, on every device.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;

namespace {

struct Read {
  std::vector<int32_t> tokens;
  std::unique_ptr<Context> context;
};

// A context of 400 tokens.
Read read(Engine& engine) {
  Read out;
  for (int32_t i = 0; i < 400; ++i) out.tokens.push_back((i * i + 7 * i) % static_cast<int32_t>(engine.model().config.vocabulary));
  out.context = engine.create_context();
  engine.prefill(*out.context, out.tokens, CancelToken());
  return out;
}

// What the tokens from `from` on look at.
std::vector<float> focus(Engine& engine, const Context& context, int64_t from) {
  std::vector<int32_t> left(context.tokens().begin() + from, context.tokens().end());
  std::vector<float> out(static_cast<size_t>(from));
  const auto copy = context.fork();
  copy->truncate(from);
  while (!left.empty()) {
    const int64_t count = engine.focus_chunk(*copy, left, out, CancelToken());
    CHECK(count > 0);
    if (count == 0) break;
    left.erase(left.begin(), left.begin() + count);
  }
  return out;
}

EngineOptions exact(int64_t chunk) {
  EngineOptions options;
  options.cpu.precision = Precision::kFloat32;
  options.kv_format = KvFormat::kFloat32;
  options.chunk_tokens = chunk;
  return options;
}

double off(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    sum += static_cast<double>(b[i]);
  }
  return difference / sum;
}

}  // namespace

TEST("chunks of any size see the same, and leave context and counters as they were") {
  for (const char* name : {"llama", "qwen3-tied", "glm"}) {
    const std::string folder = files::shared(std::string("golden/tiny/") + name);
    std::vector<float> whole;
    for (const int64_t chunk : {0, 1, 50}) {
      Engine engine(folder, exact(chunk));
      const Read before = read(engine);
      const std::vector<float> logits(before.context->logits().begin(), before.context->logits().end());
      const int64_t read_tokens = engine.counters().prefilled_tokens;
      const std::vector<float> got = focus(engine, *before.context, 200);
      CHECK(std::all_of(got.begin(), got.end(), [](float x) { return x >= 0 && std::isfinite(x); }));
      // At most 1 for each row, head and layer that counts.
      const ModelConfig& c = engine.model().config;
      const double sum = std::accumulate(got.begin(), got.end(), 0.0);
      CHECK(sum > 0 && sum <= static_cast<double>(200 * c.heads * (c.layers - c.layers / 2)));
      if (whole.empty()) whole = got;
      CHECK(off(got, whole) < 1e-3);
      CHECK(before.context->length() == 400 && std::equal(logits.begin(), logits.end(), before.context->logits().begin()));
      CHECK(engine.counters().prefilled_tokens == read_tokens);
    }
  }
}

TEST("the later half of the layers counts, and no chunk has more than 128 tokens") {
  Engine engine(files::shared("golden/tiny/llama"), exact(0));
  const Read before = read(engine);
  const auto copy = before.context->fork(), other = before.context->fork();
  copy->truncate(200);
  other->truncate(200);
  const std::span<const int32_t> answer = std::span(before.tokens).subspan(200);
  std::vector<float> got(200), expected(200);
  CHECK(engine.focus_chunk(*copy, answer, got, CancelToken()) == 128);
  const ModelConfig& c = engine.model().config;
  CHECK(c.layers > 1);
  engine.observe_attention([&](const Forward::Attention& a) {
    if (a.layer.index >= c.layers / 2) engine.backend().add_focus(a.q, engine.kv_shape(), c.heads, a.layer, a.pages, a.first_position, 200);
  });
  CHECK(engine.prefill_chunk(*other, answer.first(128), CancelToken()) == 128);
  engine.observe_attention({});
  engine.backend().take_focus(expected);
  CHECK(off(got, expected) < 1e-3);
}

TEST("a cancelled chunk leaves everything as it was, and what it saw is not the next one's") {
  Engine engine(files::shared("golden/tiny/llama"), exact(0));
  const Read before = read(engine);
  const std::vector<float> expected = focus(engine, *before.context, 300);
  const auto copy = before.context->fork();
  copy->truncate(300);
  const std::span<const int32_t> answer = std::span(before.tokens).subspan(300);
  CancelToken cancelled;
  cancelled.cancel();
  std::vector<float> none(300);
  bool threw = false;
  try {
    engine.focus_chunk(*copy, answer, none, cancelled);
  } catch (const Error& error) {
    threw = error.code == ErrorCode::kCancelled;
  }
  CHECK(threw && copy->length() == 300);
  CHECK(std::all_of(none.begin(), none.end(), [](float x) { return x == 0; }));
  CHECK(off(focus(engine, *before.context, 300), expected) < 1e-5);
}

TEST("keys behind the context and no tokens are refused") {
  Engine engine(files::shared("golden/tiny/llama"), exact(0));
  const Read before = read(engine);
  std::vector<float> many(401);
  const std::vector<int32_t> token = {1}, none;
  for (const auto& [tokens, keys] : {std::pair{token, 401}, std::pair{none, 10}}) {
    bool threw = false;
    try {
      engine.focus_chunk(*before.context, tokens, std::span(many).first(static_cast<size_t>(keys)), CancelToken());
    } catch (const Error& error) {
      threw = error.code == ErrorCode::kInvalidArgument;
    }
    CHECK(threw);
  }
}

TEST_MAIN()
