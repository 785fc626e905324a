// Windows beyond the trained one: the frequencies that the same model has whose file asks for YaRN, for families whose makers recommend it.
#include "model/stretch.h"

#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "model/hybrid_builders.h"
#include "model/opened.h"

using namespace longview;
using builders::Gguf;
using builders::open;

namespace {

Gguf attending(const std::string& family, uint32_t window) {
  Gguf gguf = builders::tiny_gguf(family);
  for (const char* norm : {"attn_q_norm", "attn_k_norm"}) gguf.add(std::string("blk.0.") + norm + ".weight", {16});
  return gguf.set_u32(family + ".context_length", window);
}

Gguf with_yarn(Gguf gguf, const std::string& family, uint32_t trained, float factor) {
  return gguf.set_string(family + ".rope.scaling.type", "yarn").set_f32(family + ".rope.scaling.factor", factor).set_u32(family + ".rope.scaling.original_context_length", trained);
}

ModelConfig stretched(const Gguf& gguf, int64_t factor) {
  ModelConfig config = open(gguf).config;
  stretch_window(config, factor);
  return config;
}

void same_as_by_file(const Gguf& gguf, const std::string& family, uint32_t trained) {
  const ModelConfig plain = open(gguf).config;
  CHECK(stretches(plain));
  for (const int64_t factor : {2, 4}) {
    const ModelConfig ours = stretched(gguf, factor), by_file = open(with_yarn(gguf, family, trained, static_cast<float>(factor))).config;
    CHECK(ours.window == factor * trained && ours.stretch == factor && ours.note.empty());
    CHECK(ours.rope.inverse_frequencies == by_file.rope.inverse_frequencies && ours.rope.attention_scale == by_file.rope.attention_scale);
    CHECK(ours.rope.inverse_frequencies.back() < plain.rope.inverse_frequencies.back() && ours.rope.attention_scale > 1);
    CHECK(stretches(ours) && !stretches(by_file));
  }
}

}  // namespace

TEST("a stretched window is YaRN's, as if the file asked for it") {
  same_as_by_file(attending("qwen3", 32768).set_f32("qwen3.rope.freq_base", 1e6f), "qwen3", 32768);
  same_as_by_file(attending("qwen3", 40960).set_f32("qwen3.rope.freq_base", 1e6f), "qwen3", 32768);
  // Of recurrent models a quarter of a head's dimensions turn.
  same_as_by_file(builders::tiny_hybrid_gguf().set_u32("qwen35.context_length", 262144).set_f32("qwen35.rope.freq_base", 1e7f), "qwen35", 262144);
  const ModelConfig whole = stretched(attending("qwen3", 40960), 1);
  CHECK(whole.window == 40960 && whole.stretch == 1 && whole.note.empty() && whole.rope.attention_scale == 1);
}

TEST("a model whose makers do not recommend it keeps its window, and says so") {
  const Gguf scaled = with_yarn(attending("qwen3", 32768), "qwen3", 32768, 4);
  for (const Gguf& gguf : {builders::tiny_gguf().set_u32("llama.context_length", 32768), attending("qwen3", 131072), scaled}) {
    const ModelConfig config = stretched(gguf, 4), as_it_was = open(gguf).config;
    CHECK(!stretches(config));
    CHECK(config.window == as_it_was.window && config.stretch == 1 && config.rope.inverse_frequencies == as_it_was.rope.inverse_frequencies);
    CHECK(config.note.find("not stretched") != std::string::npos);
  }
  for (const int64_t factor : {0, 3, 8, -4}) CHECK_THROWS(stretched(attending("qwen3", 32768), factor), kInvalidArgument);
}

TEST("Qwen2.5-1M, whose GGUF files do not say that it attends in chunks, ends with the first") {
  Gguf gguf = builders::tiny_gguf("qwen2").set_u32("qwen2.context_length", 1010000);
  for (const auto& [name, rows] : {std::pair("attn_q", 32), std::pair("attn_k", 16), std::pair("attn_v", 16)}) gguf.add(std::string("blk.0.") + name + ".bias", {static_cast<uint64_t>(rows)});
  const ModelConfig config = open(gguf).config;
  CHECK(config.window == 253952 && !stretches(config));
  CHECK(config.note.find("253952 tokens instead of 1010000") != std::string::npos);
}

TEST("an engine holds as many tokens, and knows its pages from those of the window as it was trained") {
  const Model model = open(attending("qwen3", 32768));
  EngineOptions options;
  options.cpu.threads = 1;
  Engine plain(model, options);
  options.stretch = 2;
  Engine wide(model, options);
  CHECK(plain.window() == 32768 && wide.window() == 65536);
  CHECK(wide.cache_identity(*wide.create_context()).root != plain.cache_identity(*plain.create_context()).root);
  const std::vector<int32_t> tokens(33000, 3);
  const auto context = wide.create_context();
  wide.prefill(*context, tokens, CancelToken());
  CHECK(context->length() == 33000);
  CHECK_THROWS(plain.prefill(*plain.create_context(), tokens, CancelToken()), kWindowExceeded);
}

TEST_MAIN()
