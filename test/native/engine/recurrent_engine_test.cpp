// A model with recurrent layers: its state follows the context through chunks, forks, cuts, cancelling, the disk and other contexts, to the
// same logits as in one go, at the cost of what has to be seen again.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cache/save_pages.h"
#include "check.h"
#include "engine/engine.h"
#include "engine/memory_plan.h"
#include "engine/reference.h"
#include "model/files.h"

using namespace longview;

namespace {

const std::string kModel = files::fixture("qwen35.Q8_0.gguf");

EngineOptions options(int64_t chunk = 0) {
  EngineOptions out;
  out.cpu.threads = 2;
  out.chunk_tokens = chunk;
  out.kv_budget_bytes = int64_t{1} << 28;
  return out;
}

std::vector<int32_t> prompt(int64_t count, int64_t seed = 0) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int32_t>((i * 31 + i / 7 + static_cast<size_t>(seed)) % 96);
  return out;
}

std::vector<float> logits_after(std::span<const int32_t> tokens) {
  Engine engine(kModel, options());
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  return {context->logits().begin(), context->logits().end()};
}

// In chunks of other sizes products round otherwise.
double difference(std::span<const float> got, std::span<const float> expected) {
  double worst = 0, largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst, static_cast<double>(std::fabs(got[i] - expected[i])));
    largest = std::max(largest, static_cast<double>(std::fabs(expected[i])));
  }
  return got.size() == expected.size() ? worst / largest : 1;
}
constexpr double kRounding = 0.05;

SaveResult save(Engine& engine, Context& context, const std::string& folder) {
  const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
    engine.read_page(context, number, out);
    done(true);
  };
  SaveOptions with;
  with.checkpoints = engine.checkpoints(context);
  return save_pages(folder, engine.cache_identity(context), context.tokens(), with, fetch, CancelToken(), [](int64_t, int64_t) {});
}

int64_t load(Engine& engine, Context& context, std::span<const int32_t> tokens, const std::string& folder) {
  const int64_t before = context.length();
  const auto stream = engine.open_stream(context, tokens, folder);
  while (engine.load_page(context, *stream)) {
  }
  engine.load_checkpoints(context, folder, before);
  return context.length();
}

int64_t prefilled(Engine& engine) { return engine.counters().prefilled_tokens; }

}  // namespace

TEST("chunks of any size and tokens one by one give what one chunk gives") {
  const auto tokens = prompt(300);
  const std::vector<float> whole = logits_after(tokens);
  for (const int64_t chunk : {256, 96, 17, 1}) {
    Engine engine(kModel, options(chunk));
    const auto context = engine.create_context();
    engine.prefill(*context, tokens, CancelToken());
    CHECK(difference(context->logits(), whole) < kRounding);
  }
  EngineOptions exactly = exact("scalar");
  exactly.chunk_tokens = 61;
  Engine one(kModel, exact("scalar")), other(kModel, exactly);
  const auto a = one.create_context(), b = other.create_context();
  one.prefill(*a, tokens, CancelToken());
  other.prefill(*b, tokens, CancelToken());
  CHECK(difference(b->logits(), a->logits()) < 1e-5);
}

TEST("a fork goes its own way, and what it came from is as before") {
  const auto tokens = prompt(200), left = prompt(40, 5), right = prompt(40, 9);
  Engine engine(kModel, options());
  const auto base = engine.create_context();
  engine.prefill(*base, tokens, CancelToken());
  const std::vector<float> before(base->logits().begin(), base->logits().end());
  const auto fork = base->fork();
  engine.prefill(*fork, left, CancelToken());
  next_choices(engine, *fork, 5);
  CHECK(std::ranges::equal(base->logits(), before));
  engine.prefill(*base, right, CancelToken());
  auto all = tokens;
  all.insert(all.end(), right.begin(), right.end());
  CHECK(difference(base->logits(), logits_after(all)) < kRounding);
}

TEST("a context that is cut goes on as one that was never longer, and sees again what lies behind the end of the last reading") {
  const auto tokens = prompt(500);
  Engine engine(kModel, options());
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  next_choices(engine, *context, 30);
  context->truncate(520);  // in the answer
  CHECK(context->length() == 520);
  const int64_t before = prefilled(engine);
  engine.prefill(*context, prompt(10, 3), CancelToken());
  CHECK(prefilled(engine) - before == 30);  // 20 of the answer, and its own
  CHECK(context->length() == 530);

  context->truncate(450);  // before the end of the reading: from the beginning
  const int64_t then = prefilled(engine);
  engine.prefill(*context, std::span(tokens).subspan(450), CancelToken());
  CHECK(prefilled(engine) - then == 500);
  CHECK(difference(context->logits(), logits_after(tokens)) < kRounding);
  // Cut twice before anything is read.
  context->truncate(499);
  context->truncate(200);
  engine.prefill(*context, std::span(tokens).subspan(200), CancelToken());
  CHECK(difference(context->logits(), logits_after(tokens)) < kRounding);
}

TEST("long readings leave checkpoints on the way, and a cut costs no more than the way from there") {
  const auto tokens = prompt(20000);
  Engine engine(kModel, options());
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  const std::vector<float> whole(context->logits().begin(), context->logits().end());
  context->truncate(19000);
  const int64_t before = prefilled(engine);
  engine.prefill(*context, std::span(tokens).subspan(19000), CancelToken());
  CHECK(prefilled(engine) - before == 20000 - 2 * Recurrence::kSpacing);
  CHECK(difference(context->logits(), whole) < kRounding);
  // Another context that begins alike goes on from there, and so does one that comes when the first is gone.
  for (int round = 0; round < 2; ++round) {
    const auto other = engine.create_context();
    auto changed = tokens;
    changed[18000] = (changed[18000] + 1) % 96;
    CHECK(engine.adopt(*other, changed) == 2 * Recurrence::kSpacing);
    CHECK(other->length() == 2 * Recurrence::kSpacing);
    if (round == 0) context->truncate(0);
  }
  engine.forget();
  CHECK(engine.adopt(*engine.create_context(), tokens) == 0);
}

TEST("a chunk that is stopped leaves the context as it was") {
  const auto tokens = prompt(400);
  Engine engine(kModel, options(128));
  const auto context = engine.create_context();
  engine.prefill(*context, std::span(tokens).first(200), CancelToken());
  CancelToken stopped;
  stopped.cancel();
  CHECK_THROWS(engine.prefill_chunk(*context, std::span(tokens).subspan(200), stopped), kCancelled);
  CHECK(context->length() == 200);
  context->truncate(150);
  CHECK_THROWS(engine.prefill_chunk(*context, std::span(tokens).subspan(150), stopped), kCancelled);
  CHECK(context->length() == 150);
  engine.prefill(*context, std::span(tokens).subspan(150), CancelToken());
  CHECK(difference(context->logits(), logits_after(tokens)) < kRounding);
}

TEST("logits that were not asked for are had from the last token again, and the state stands still meanwhile") {
  const auto tokens = prompt(100);
  Engine engine(kModel, options());
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  const std::vector<int32_t> answer = next_choices(engine, *context, 5);
  const auto fork = context->fork();
  engine.complete_logits(*context);
  CHECK(argmax(context->logits()) == *fork->choice());
  CHECK(next_choices(engine, *context, 5) == next_choices(engine, *fork, 5));
}

TEST("a loaded context answers as the saved one, to the last bit of its logits, also behind a cut") {
  const files::Scratch scratch;
  const auto tokens = prompt(9000);
  std::vector<float> logits, early;
  {
    Engine engine(kModel, options());
    const auto context = engine.create_context();
    engine.prefill(*context, std::span(tokens).first(8990), CancelToken());
    CHECK(save(engine, *context, scratch.path()).tokens == 8990);
    engine.prefill(*context, std::span(tokens).subspan(8990), CancelToken());
    logits.assign(context->logits().begin(), context->logits().end());
  }
  {
    Engine engine(kModel, options());
    const auto context = engine.create_context();
    CHECK(load(engine, *context, tokens, scratch.path()) == 8990);
    engine.prefill(*context, std::span(tokens).subspan(8990), CancelToken());
    CHECK(prefilled(engine) == 10);
    CHECK(std::ranges::equal(context->logits(), logits));
  }
  // What was read differs from there on: the checkpoint before it serves.
  Engine engine(kModel, options());
  auto changed = tokens;
  changed[8500] = (changed[8500] + 1) % 96;
  const auto context = engine.create_context();
  CHECK(load(engine, *context, changed, scratch.path()) == Recurrence::kSpacing);
  engine.prefill(*context, std::span(changed).subspan(Recurrence::kSpacing), CancelToken());
  CHECK(difference(context->logits(), logits_after(changed)) < kRounding);
}

TEST("pages without a checkpoint are of no use, and do no harm") {
  const files::Scratch scratch;
  const auto tokens = prompt(600);
  Engine engine(kModel, options());
  const auto context = engine.create_context();
  engine.prefill(*context, std::span(tokens).first(500), CancelToken());
  save(engine, *context, scratch.path());
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path()))
    if (entry.path().filename().string().starts_with("state-")) std::filesystem::remove(entry.path());
  Engine other(kModel, options());
  const auto loaded = other.create_context();
  CHECK(load(other, *loaded, tokens, scratch.path()) == 0);
  // What the context had before is kept, its state too.
  other.prefill(*loaded, std::span(tokens).first(200), CancelToken());
  CHECK(load(other, *loaded, std::span(tokens).subspan(200), scratch.path()) == 200);
  const int64_t before = prefilled(other);
  other.prefill(*loaded, std::span(tokens).subspan(200), CancelToken());
  CHECK(prefilled(other) - before == 400);
  CHECK(difference(loaded->logits(), logits_after(tokens)) < kRounding);
}

TEST("what the state takes is part of the plan") {
  const Model model = open_model(kModel);
  const auto backend = make_cpu_backend({});
  const RecurrentShape shape = Forward::recurrent_shape(model.config);
  CHECK(shape.layers == 3);
  const KvShape kv{model.config.attention_layers(), model.config.kv_heads, model.config.head_dim};
  Model without = open_model(kModel);
  without.config.recurrent = {};
  const int64_t states = 2 * (Recurrence::kMostStates + Recurrence::kMostCheckpoints) * backend->recurrent_bytes(shape);
  CHECK(backend->recurrent_bytes(shape) == 4 * 3 * (3 * 320 + 6 * 32 * 32));
  const int64_t beside = plan_memory(*backend, model, kv, {1 << 24, 256}).workspace_bytes - plan_memory(*backend, without, kv, {1 << 24, 256}).workspace_bytes;
  CHECK(beside >= states);
  CHECK(beside < states + (int64_t{1} << 20));
}

TEST("sparse reading counts the layers that attend") {
  EngineOptions sparse = options();
  sparse.prefill.mode = PrefillMode::kAdaptive;
  Engine engine(kModel, sparse);
  const auto tokens = prompt(10000);
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken(), true);
  CHECK(engine.counters().layers.empty());  // of one layer that attends, the last attends for results alone
  CHECK(engine.kv_shape().layers == 1);
}

TEST_MAIN()
