// The engine's own pages: saved, loaded by another engine, and going on as if nothing had happened.
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "base/error.h"
#include "cache/save_pages.h"
#include "check.h"
#include "engine/engine.h"
#include "model/files.h"
#include "no_threads.h"

using namespace longview;

namespace {

const std::string kModel = files::fixture("llama.Q8_0.gguf");

EngineOptions options(int64_t budget = 0) {
  EngineOptions out;
  out.cpu.threads = 2;
  out.kv_budget_bytes = budget;
  return out;
}

std::vector<int32_t> prompt(const Engine& engine, int64_t count, int64_t seed = 0) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int32_t>((i * 31 + i / 7 + static_cast<size_t>(seed)) % static_cast<size_t>(engine.model().config.vocabulary));
  return out;
}

std::vector<int32_t> greedy(Engine& engine, Context& context, int count) {
  std::vector<int32_t> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(argmax(context.logits()));
    engine.decode(context, out.back(), CancelToken());
  }
  return out;
}

SaveResult save(Engine& engine, const Context& context, const std::string& folder) {
  const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
    engine.read_page(context, number, out);
    done(true);
  };
  return save_pages(folder, engine.cache_identity(context), context.tokens(), {}, fetch, CancelToken(), [](int64_t, int64_t) {});
}

int64_t load(Engine& engine, Context& context, std::span<const int32_t> tokens, const std::string& folder) {
  const auto stream = engine.open_stream(context, tokens, folder);
  while (engine.load_page(context, *stream)) {
  }
  return context.length();
}

// Bytes of this process that lie in memory.
int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// At most so many of the bytes that bf16 takes.
void check_codes(KvFormat format, double share) {
  const files::Scratch scratch;
  EngineOptions narrow = options();
  narrow.kv_format = format;
  std::vector<float> logits;
  {
    Engine engine(kModel, narrow);
    const auto context = engine.create_context();
    const auto tokens = prompt(engine, 300);
    engine.prefill(*context, std::span(tokens).first(290), CancelToken());
    CHECK(save(engine, *context, scratch.path()).tokens == 290);
    engine.prefill(*context, std::span(tokens).subspan(290), CancelToken());
    logits.assign(context->logits().begin(), context->logits().end());
  }
  Engine engine(kModel, narrow), wide(kModel, options());
  const auto tokens = prompt(engine, 300);
  CHECK(engine.cache_layout() != wide.cache_layout());
  CHECK(static_cast<double>(engine.pool().page_bytes()) <= static_cast<double>(wide.pool().page_bytes()) * share);
  const auto other = wide.create_context();
  CHECK(load(wide, *other, tokens, scratch.path()) == 0);
  const auto context = engine.create_context();
  CHECK(load(engine, *context, tokens, scratch.path()) == 290);
  engine.prefill(*context, std::span(tokens).subspan(290), CancelToken());
  CHECK(std::ranges::equal(context->logits(), logits));
}

}  // namespace

TEST("a loaded context answers as the saved one, to the last bit of its logits") {
  const files::Scratch scratch;
  std::vector<int32_t> expected;
  std::vector<float> logits;
  {
    Engine engine(kModel, options());
    const auto context = engine.create_context();
    const auto tokens = prompt(engine, 300);
    engine.prefill(*context, std::span(tokens).first(290), CancelToken());
    CHECK(save(engine, *context, scratch.path()).tokens == 290);
    engine.prefill(*context, std::span(tokens).subspan(290), CancelToken());
    logits.assign(context->logits().begin(), context->logits().end());
    expected = greedy(engine, *context, 20);
  }
  Engine engine(kModel, options());
  const auto context = engine.create_context();
  const auto tokens = prompt(engine, 300);
  CHECK(load(engine, *context, tokens, scratch.path()) == 290);
  engine.prefill(*context, std::span(tokens).subspan(290), CancelToken());
  CHECK(engine.counters().prefilled_tokens == 10);
  CHECK(std::equal(logits.begin(), logits.end(), context->logits().begin()));
  CHECK(greedy(engine, *context, 20) == expected);
}

TEST("state in codes is saved and loaded to the last bit, at its share of the size, and formats are never mixed") {
  check_codes(KvFormat::kQ8, 0.6);
  check_codes(KvFormat::kQ4, 0.36);
}

TEST("a second context goes on with the first one's pages, also when that one is gone") {
  Engine engine(kModel, options());
  const auto tokens = prompt(engine, 300);
  std::vector<int32_t> expected;
  {
    const auto context = engine.create_context();
    engine.prefill(*context, tokens, CancelToken());
    expected = greedy(engine, *context, 10);
  }
  const int64_t before = engine.counters().prefilled_tokens;
  const auto context = engine.create_context();
  const int64_t adopted = engine.adopt(*context, tokens);
  CHECK(adopted == 256);
  engine.prefill(*context, std::span(tokens).subspan(static_cast<size_t>(adopted)), CancelToken());
  CHECK(engine.counters().prefilled_tokens - before == 44);
  CHECK(greedy(engine, *context, 10) == expected);
}

TEST("a damaged page cuts the load there, and the rest is computed to the same answer") {
  const files::Scratch scratch;
  Engine first(kModel, options());
  const auto tokens = prompt(first, 400);
  const auto saved = first.create_context();
  first.prefill(*saved, tokens, CancelToken());
  save(first, *saved, scratch.path());
  const std::vector<int32_t> expected = greedy(first, *saved, 10);
  std::string bytes = files::read(scratch.path("pages-00000.bin"));
  bytes[static_cast<size_t>(first.pool().page_bytes()) * 2 + 5] ^= 4;
  files::write(scratch.path("pages-00000.bin"), bytes);

  Engine engine(kModel, options());
  const auto context = engine.create_context();
  const auto stream = engine.open_stream(*context, tokens, scratch.path());
  while (engine.load_page(*context, *stream)) {
  }
  CHECK(context->length() == 256);
  CHECK(stream->damaged() && !stream->note().empty());
  engine.prefill(*context, std::span(tokens).subspan(256), CancelToken());
  CHECK(greedy(engine, *context, 10) == expected);
}

TEST("a load goes on from what the context holds, and takes the longest of what is saved") {
  const files::Scratch scratch;
  Engine first(kModel, options());
  const auto tokens = prompt(first, 450);
  const auto context = first.create_context();
  first.prefill(*context, std::span(tokens).first(200), CancelToken());
  save(first, *context, scratch.path());
  first.prefill(*context, std::span(tokens).subspan(200), CancelToken());
  save(first, *context, scratch.path());

  Engine engine(kModel, options());
  const auto ragged = engine.create_context();
  engine.prefill(*ragged, std::span(tokens).first(150), CancelToken());
  CHECK(load(engine, *ragged, std::span(tokens).subspan(150), scratch.path()) == 450);
  const auto shorter = engine.create_context();
  CHECK(load(engine, *shorter, std::span(tokens).first(200), scratch.path()) == 200);
}

TEST("a load ends where the context was cut or went on otherwise meanwhile: pages follow only what they were computed behind") {
  const files::Scratch scratch;
  Engine writer(kModel, options());
  const auto tokens = prompt(writer, 900), other = prompt(writer, 900, 5);
  const auto saved = writer.create_context();
  writer.prefill(*saved, tokens, CancelToken());
  save(writer, *saved, scratch.path());
  const std::vector<std::function<void(Engine&, Context&)>> changes = {
      [](Engine&, Context& context) { context.truncate(0); },
      [](Engine&, Context& context) { context.truncate(context.length() - 1); },
      [](Engine&, Context& context) { context.truncate(kPageTokens); },
      [&](Engine& engine, Context& context) {
        const int64_t length = context.length();
        context.truncate(0);
        engine.prefill(context, std::span(other).first(static_cast<size_t>(length)), CancelToken());
      },
      [&](Engine& engine, Context& context) { engine.prefill(context, std::span(other).first(3), CancelToken()); }};
  for (const auto& change : changes) {
    Engine engine(kModel, options());
    const auto context = engine.create_context();
    const auto stream = engine.open_stream(*context, tokens, scratch.path());
    while (context->length() < 3 * kPageTokens) CHECK(engine.load_page(*context, *stream));
    change(engine, *context);
    const std::vector<int32_t> held(context->tokens().begin(), context->tokens().end());
    while (engine.load_page(*context, *stream)) {
    }
    CHECK(std::equal(held.begin(), held.end(), context->tokens().begin(), context->tokens().end()));
  }
}

TEST("a load says when no thread can be had for it") {
  const files::Scratch scratch;
  Engine engine(kModel, options());
  const auto tokens = prompt(engine, 300);
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  save(engine, *context, scratch.path());
  bool said = false;
  try {
    const NoThreads none;
    PageStream(scratch.path(), engine.cache_identity(*context), tokens, 0);
  } catch (const std::system_error&) {
    said = true;
  }
  CHECK(said);
}

TEST("what the pool has no room for is refused before any work, with the numbers") {
  const int64_t page_bytes = Engine(kModel, options()).pool().page_bytes();
  Engine engine(kModel, options(page_bytes * 10));
  CHECK(engine.pool().capacity() == 10);
  const auto first = engine.create_context(), second = engine.create_context();
  const auto tokens = prompt(engine, 512), other = prompt(engine, std::min<int64_t>(engine.window(), 1024), 5);
  engine.prefill(*first, tokens, CancelToken());
  CHECK_THROWS(engine.check_room(*second, other), kOutOfMemory);
  engine.check_room(*second, std::span(other).first(768));
  CHECK_THROWS(engine.check_room(*second, std::span(other).first(769)), kOutOfMemory);
  first->truncate(0);
  engine.check_room(*second, other);  // the index gives its pages back
  engine.prefill(*second, other, CancelToken());
  CHECK(engine.pool().used() <= 10);
}

TEST("200 questions with forks and cancels stay within a pool that is too small for them, in memory that does not grow") {
  const int64_t page_bytes = Engine(kModel, options()).pool().page_bytes();
  Engine engine(kModel, options(page_bytes * 12));
  const auto base = engine.create_context();
  engine.prefill(*base, prompt(engine, 300), CancelToken());
  const auto answer = [&] {
    const auto context = base->fork();
    engine.prefill(*context, prompt(engine, 40, 3), CancelToken());
    return greedy(engine, *context, 10);
  };
  const std::vector<int32_t> expected = answer();
  std::vector<std::unique_ptr<Context>> chats;
  std::mt19937_64 random(5);
  int cancelled = 0, full = 0;
  int64_t before = 0;
  for (int i = 1; i <= 200; ++i) {
    // A new chat, or a chat that goes on, or another that begins like it.
    auto context = chats.empty() || random() % 3 == 0 ? base->fork() : chats[random() % chats.size()]->fork();
    CancelToken cancel;
    std::thread stop;
    if (i % 12 == 0) cancel.cancel();  // before it begins
    else if (i % 3 == 0) stop = std::thread([&cancel, wait = random() % 2000] {
      std::this_thread::sleep_for(std::chrono::microseconds(wait));
      cancel.cancel();
    });
    try {
      engine.prefill(*context, prompt(engine, 20 + static_cast<int64_t>(random() % 200), i), cancel);
      for (int token = 0; token < 8; ++token) engine.decode(*context, argmax(context->logits()), cancel);
    } catch (const Error& error) {
      CHECK(error.code == ErrorCode::kCancelled || error.code == ErrorCode::kOutOfMemory);
      (error.code == ErrorCode::kCancelled ? cancelled : full) += 1;
      if (error.code == ErrorCode::kOutOfMemory && !chats.empty()) chats.erase(chats.begin());  // the oldest makes room
    }
    if (stop.joinable()) stop.join();
    chats.push_back(std::move(context));
    if (chats.size() > 4) chats.erase(chats.begin());
    CHECK(engine.pool().used() <= 12);
    if (i == 50) before = resident_bytes();
  }
  const int64_t after = resident_bytes();
  std::printf("  %d were stopped, %d found no room; %.1f MB resident after 50 questions, %.1f MB after 200\n", cancelled, full, static_cast<double>(before) / 1e6,
              static_cast<double>(after) / 1e6);
  CHECK(cancelled > 0 && full > 0);
#ifndef __SANITIZE_ADDRESS__  // which keeps what was freed for a while
  CHECK(after <= before + before / 20);
#endif
  chats.clear();
  CHECK(engine.pool().used() == engine.index().size() + 1);  // the ragged tail of the base
  CHECK(answer() == expected);
}

TEST_MAIN()
