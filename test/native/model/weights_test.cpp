#include "model/weights.h"

#include "base/error.h"
#include "check.h"
#include "model/files.h"
#include "model/model_file.h"

using namespace longview;

namespace {

struct Expected {
  const char* path;
  const char* architecture;
  int64_t layers, hidden, ffn, heads, kv_heads, head_dim, vocabulary, window;
  bool qkv_bias, qk_norm, tied;
};

void check_model(const std::string& path, const Expected& e) {
  const Model model = open_model(path);
  const ModelConfig& c = model.config;
  CHECK(c.architecture == e.architecture);
  CHECK(c.layers == e.layers);
  CHECK(c.hidden == e.hidden);
  CHECK(c.ffn == e.ffn);
  CHECK(c.heads == e.heads);
  CHECK(c.kv_heads == e.kv_heads);
  CHECK(c.head_dim == e.head_dim);
  CHECK(c.vocabulary == e.vocabulary);
  CHECK(c.window == e.window);
  CHECK(c.qkv_bias == e.qkv_bias);
  CHECK(c.qk_norm == e.qk_norm);
  CHECK(c.tied_embeddings == e.tied);
  CHECK(c.note.empty());
  CHECK(c.rope.dims == e.head_dim);
  CHECK(c.rope.inverse_frequencies.size() == static_cast<size_t>(e.head_dim / 2));
  const bool gguf = model.file->format() == ModelFile::Format::kGguf;
  CHECK(c.rope.pairing == (gguf && c.architecture == "llama" ? RopePairing::kAdjacent : RopePairing::kHalfSplit));
  CHECK(static_cast<int64_t>(model.weights.layers.size()) == e.layers);
  CHECK(model.weights.layers.back().q_bias.empty() == !e.qkv_bias);
  CHECK(model.weights.layers.back().k_norm.empty() == !e.qk_norm);
  CHECK((model.weights.output.data == model.weights.embedding.data) == e.tied);
  CHECK(model.fingerprint.size() == 32);
}

constexpr Expected kTiny[] = {
    {"llama", "llama", 2, 128, 256, 4, 2, 64, 320, 4096, false, false, false},
    {"llama-d128-gqa4-tied", "llama", 2, 256, 256, 4, 1, 128, 320, 4096, false, false, true},
    {"llama-rope-1048k", "llama", 2, 128, 256, 4, 2, 64, 320, 4096, false, false, false},
    {"llama-rope-linear", "llama", 2, 128, 256, 4, 2, 64, 320, 4096, false, false, false},
    {"llama-rope-llama3", "llama", 2, 128, 256, 4, 2, 64, 320, 4096, false, false, false},
    {"llama-rope-yarn", "llama", 2, 128, 256, 4, 2, 64, 320, 512, false, false, false},
    {"mistral", "mistral", 2, 128, 256, 4, 2, 64, 320, 4096, false, false, false},
    {"qwen2", "qwen2", 2, 256, 256, 4, 2, 64, 320, 4096, true, false, false},
    {"qwen3-tied", "qwen3", 2, 128, 256, 4, 2, 64, 320, 4096, false, true, true},
    {"llama.F32.gguf", "llama", 2, 128, 256, 4, 2, 64, 320, 4096, false, false, false},
    {"llama.Q8_0.gguf", "llama", 2, 128, 256, 4, 2, 64, 320, 4096, false, false, false},
    {"qwen2.Q4_0.gguf", "qwen2", 2, 256, 256, 4, 2, 64, 320, 4096, true, false, false},
    {"qwen3-tied.Q5_1.gguf", "qwen3", 2, 128, 256, 4, 2, 64, 320, 4096, false, true, true},
};

}  // namespace

TEST("fixtures open") {
  for (const Expected& e : kTiny)
    if (const std::string path = files::fixture(e.path); std::filesystem::exists(path)) check_model(path, e);
}

TEST("all tiny golden models open") {
  const std::string folder = files::shared("golden/tiny");
  for (const Expected& e : kTiny) check_model(folder + "/" + e.path, e);
}

TEST("architectures that the graph lacks are refused by name") {
  const std::string folder = files::shared("golden/tiny");
  for (const char* name : {"glm", "phi3-longrope", "qwen3-moe", "qwen3.5-hybrid"})
    CHECK_THROWS(open_model(folder + "/" + name), kUnsupportedArchitecture);
}

TEST("the built-in model opens") {
  const std::string path = files::root() + "/media/model/longview-135m-64k.Q5_0.gguf";
  check_model(path, {"", "llama", 30, 576, 1536, 9, 3, 64, 49152, 65536, false, false, true});
  const Model model = open_model(path);
  CHECK(model.parameters == 134'515'008);
  CHECK(model.weights.layers[0].q.type == DType::kQ5_0);
  CHECK_NEAR(model.config.rope.inverse_frequencies[1], std::pow(2e6, -1.0 / 32), 1e-12);
  // What the tokenizer and the chat template need is handed on whole.
  const auto& tokens = std::get<std::vector<std::string>>(model.file->metadata().at("tokenizer.ggml.tokens"));
  CHECK(tokens.size() == 49152 && tokens[1] == "<|im_start|>");
  CHECK(!model.file->string_or("tokenizer.chat_template", "").empty());
}

TEST_MAIN()
