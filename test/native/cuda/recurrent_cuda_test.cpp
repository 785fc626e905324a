// A model with recurrent layers on the GPU: its state goes back, forks, and comes from the disk as it was.
#include "beside.h"
#include "cache/save_pages.h"
#include "check.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;

namespace {

Engine on_gpu(int64_t chunk = 0) {
  Model model = open_model(files::fixture("qwen35.Q8_0.gguf"));
  if (const std::string why = why_not_cuda(model.config); !why.empty()) SKIP("no CUDA device: " + why);
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  options.chunk_tokens = chunk;
  options.kv_budget_bytes = int64_t{1} << 28;
  return Engine(std::move(model), options);
}

std::vector<float> read(Engine& engine, Context& context, std::span<const int32_t> tokens) {
  engine.prefill(context, tokens, CancelToken());
  return {context.logits().begin(), context.logits().end()};
}

}  // namespace

TEST("a fork and what it came from give the same answer, one after the other and in turns") {
  Engine engine = on_gpu();
  const auto base = engine.create_context();
  read(engine, *base, beside::some_tokens(engine, 500));
  const auto left = base->fork(), right = base->fork();
  const std::vector<int32_t> expected = next_choices(engine, *base, 24);
  std::vector<int32_t> turns[2];
  for (int i = 0; i < 24; ++i) {
    turns[0].push_back(next_choices(engine, *left, 1)[0]);
    turns[1].push_back(next_choices(engine, *right, 1)[0]);
  }
  CHECK(turns[0] == expected);
  CHECK(turns[1] == expected);
}

TEST("a context that was cut in its answer, and before it, is read on from the checkpoint before") {
  Engine engine = on_gpu(256);
  const auto tokens = beside::some_tokens(engine, 700);
  const auto context = engine.create_context();
  const std::vector<float> logits = read(engine, *context, tokens);
  next_choices(engine, *context, 20);
  context->truncate(700);
  const auto more = beside::some_tokens(engine, 5);
  const std::vector<float> behind = read(engine, *context, more);
  const int64_t before = engine.counters().prefilled_tokens;
  context->truncate(650);
  CHECK(beside::difference(read(engine, *context, std::span(tokens).subspan(650)), logits) < 0.02);
  CHECK(engine.counters().prefilled_tokens - before == 700);
  CHECK(beside::difference(read(engine, *context, more), behind) < 0.02);
}

TEST("what is loaded from the disk goes on as what was saved, to the last bit") {
  const files::Scratch scratch;
  std::vector<float> expected;
  std::vector<int32_t> tokens;
  {
    Engine engine = on_gpu();
    tokens = beside::some_tokens(engine, 900);
    const auto context = engine.create_context();
    read(engine, *context, std::span(tokens).first(890));
    SaveOptions with;
    with.checkpoints = engine.checkpoints(*context);
    const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
      engine.read_page(*context, number, out);
      done(true);
    };
    CHECK(save_pages(scratch.path(), engine.cache_identity(*context), context->tokens(), with, fetch, CancelToken(), [](int64_t, int64_t) {}).tokens == 890);
    expected = read(engine, *context, std::span(tokens).subspan(890));
  }
  Engine engine = on_gpu();
  const auto context = engine.create_context();
  const auto stream = engine.open_stream(*context, tokens, scratch.path());
  while (engine.load_page(*context, *stream)) continue;
  engine.load_checkpoints(*context, scratch.path(), 0);
  CHECK(context->length() == 890);
  CHECK(read(engine, *context, std::span(tokens).subspan(890)) == expected);
}

TEST_MAIN()
