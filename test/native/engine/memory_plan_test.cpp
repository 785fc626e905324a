// The budget that is reckoned before anything is allocated.
#include "engine/memory_plan.h"

#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "engine/forward.h"
#include "model/builders.h"
#include "model/files.h"

using namespace longview;

namespace {

const files::Scratch scratch;
const std::unique_ptr<Backend> backend = make_cpu_backend({});

KvShape shape_of(const ModelConfig& c) { return {c.layers, c.kv_heads, c.head_dim, KvFormat::kBFloat16}; }

}  // namespace

TEST("weights, pages and the workspace are what they will take") {
  const Model model = open_model(files::fixture("qwen3-tied"));
  const MemoryPlan plan = plan_memory(*backend, model, shape_of(model.config), {0, 1024});
  CHECK(plan.weight_bytes == model.weight_bytes);  // tied matrices once
  CHECK(plan.page_bytes == backend->allocate_kv(shape_of(model.config), 1)->page_bytes());
  CHECK(plan.pages == 4096 / kPageTokens * 3 / 2 + 16);
  CHECK(plan.chunk_tokens == 1024);
  CHECK(plan.workspace_bytes == Forward::workspace_bytes(*backend, model.config, 1024));
  const MemoryPlan small = plan_memory(*backend, model, shape_of(model.config), {plan.page_bytes * 10, 1024});
  CHECK(small.pages == 10);
}

TEST("room for 1,024 tokens is enough, or for the window where that is smaller") {
  const auto pages = [](const Model& model, int64_t count) {
    const KvShape shape = shape_of(model.config);
    return plan_memory(*backend, model, shape, {backend->kv_page_bytes(shape) * count, 1024}).pages;
  };
  const Model model = open_model(files::fixture("qwen3-tied"));
  CHECK(pages(model, 8) == 8);
  CHECK_THROWS(pages(model, 7), kOutOfMemory);
  const Model small = open_model(scratch.put("small.gguf", builders::tiny_gguf().set_u32("llama.context_length", 256).build()));
  CHECK(pages(small, 2) == 2);
  CHECK_THROWS(pages(small, 1), kOutOfMemory);
}

TEST("what does not fit is refused with the numbers") {
  const Model model = open_model(files::fixture("qwen3-tied"));
  try {
    plan_memory(*backend, model, shape_of(model.config), {1, 1024});
    CHECK(!"refused");
  } catch (const Error& error) {
    CHECK(error.code == ErrorCode::kOutOfMemory);
    for (const char* part : {"weights need", "the workspace", "each 1,000 tokens", "are free", "KV budget"}) CHECK(std::string(error.what()).find(part) != std::string::npos);
  }
}

TEST("a window beyond the memory shrinks the chunk before the window") {
  // 64 GB of KV state for 2^31 tokens at the least: no machine of these tests holds all of it.
  const Model model = open_model(scratch.put("model.gguf", builders::tiny_gguf().set_u32("llama.context_length", 1u << 31).build()));
  const KvShape wide{64, 64, 128, KvFormat::kBFloat16};
  const MemoryPlan plan = plan_memory(*backend, model, wide, {0, 1024});
  CHECK(plan.pages * kPageTokens < model.config.window);
  CHECK(plan.chunk_tokens <= 1024 && plan.chunk_tokens >= 256);
  CHECK(plan.weight_bytes + plan.workspace_bytes + plan.pages * plan.page_bytes <= backend->info().memory_bytes);
  // Of chunks without an end those that leave the window its room.
  const MemoryPlan shrunk = plan_memory(*backend, model, wide, {0, int64_t{1} << 30});
  CHECK(shrunk.chunk_tokens < 1 << 30 && shrunk.workspace_bytes <= shrunk.pages * shrunk.page_bytes / 8);
}

TEST("without a wish the state is in bf16 where the window fits, else in 8 bits, and one line says so") {
  const Model model = open_model(files::fixture("qwen3-tied"));
  const KvShape kv = shape_of(model.config);
  KvShape narrow = kv;
  narrow.format = KvFormat::kQ8;
  const int64_t wide_bytes = backend->kv_page_bytes(kv), window_pages = model.config.window / kPageTokens;
  CHECK(backend->kv_page_bytes(narrow) == backend->allocate_kv(narrow, 1)->page_bytes());
  const KvChoice fits = choose_kv_format(*backend, model, kv, std::nullopt, {wide_bytes * window_pages, 1024});
  CHECK(fits.format == KvFormat::kBFloat16 && fits.note.empty() && fits.plan.page_bytes == wide_bytes);
  const KvChoice tight = choose_kv_format(*backend, model, kv, std::nullopt, {wide_bytes * (window_pages - 1), 1024});
  CHECK(tight.format == KvFormat::kQ8 && tight.note.find("8 bits") != std::string::npos && tight.note.find("so for 4096") != std::string::npos);
  CHECK(tight.plan.page_bytes == backend->kv_page_bytes(narrow) && tight.plan.pages > window_pages);
  const KvChoice wished = choose_kv_format(*backend, model, kv, KvFormat::kBFloat16, {wide_bytes * (window_pages - 1), 1024});
  CHECK(wished.format == KvFormat::kBFloat16 && wished.note.empty());
  const KvChoice floats = choose_kv_format(*backend, model, kv, KvFormat::kE4M3, {0, 1024});
  CHECK(floats.format == KvFormat::kQ8 && floats.note.find("it is kept in q8") != std::string::npos && floats.plan.page_bytes == backend->kv_page_bytes(narrow));
  CHECK_THROWS(choose_kv_format(*backend, model, kv, std::nullopt, {1, 1024}), kOutOfMemory);
}

TEST("where memory ends the window of a state in 8 bits, what 4 bits would have room for is known") {
  const Model model = open_model(files::fixture("qwen3-tied"));
  KvShape kv = shape_of(model.config);
  const auto bytes = [&](KvFormat format) {
    kv.format = format;
    return backend->kv_page_bytes(kv);
  };
  const int64_t eight = bytes(KvFormat::kQ8), four = bytes(KvFormat::kQ4), window_pages = model.config.window / kPageTokens;
  CHECK(four < eight * 6 / 10);
  CHECK(four == backend->allocate_kv(kv, 1)->page_bytes());
  const auto choice = [&](std::optional<KvFormat> wanted, int64_t budget) { return choose_kv_format(*backend, model, kv, wanted, {budget, 1024}); };
  const int64_t tight = eight * (window_pages / 2);
  for (const std::optional<KvFormat> wanted : {std::optional<KvFormat>(), std::optional(KvFormat::kQ8), std::optional(KvFormat::kE4M3)}) {
    CHECK(choice(wanted, tight).format == KvFormat::kQ8);
    CHECK(choice(wanted, tight).window_in_4_bits == std::min(tight / four * kPageTokens, model.config.window));
    CHECK(choice(wanted, eight * window_pages).window_in_4_bits == 0);
  }
  CHECK(choice(KvFormat::kQ4, tight).format == KvFormat::kQ4 && choice(KvFormat::kQ4, tight).window_in_4_bits == 0 && choice(KvFormat::kQ4, tight).note.empty());
  CHECK(choice(KvFormat::kBFloat16, tight).window_in_4_bits == 0);
}

TEST("loading weights reports progress up to all of them") {
  int64_t last = 0, total = 0;
  EngineOptions options;
  options.on_load = [&](int64_t done, int64_t all) {
    CHECK(done >= last && done <= all);
    last = done;
    total = all;
  };
  const Engine engine(files::fixture("qwen3-tied"), options);
  CHECK(total == engine.model().weight_bytes && last == total);
}

TEST_MAIN()
