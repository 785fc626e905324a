#include "model/weights.h"

#include "base/error.h"
#include "check.h"
#include "model/model_file.h"
#include "model/opened.h"

using namespace longview;
using builders::message;
using builders::open;
using builders::scratch;

namespace {

struct Expected {
  const char* path;
  const char* architecture;
  int64_t layers, hidden, ffn, heads, kv_heads, head_dim, vocabulary, window;
  bool qkv_bias, qk_norm, tied;
  int64_t rope_dims = 0;  // 0: head_dim
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
  const int64_t dims = e.rope_dims > 0 ? e.rope_dims : e.head_dim;
  CHECK(c.rope.dims == dims);
  CHECK(c.rope.inverse_frequencies.size() == static_cast<size_t>(dims / 2));
  const bool gguf = model.file->format() == ModelFile::Format::kGguf;
  CHECK(c.rope.pairing ==
        ((gguf && c.architecture == "llama") || c.architecture == "glm" ? RopePairing::kAdjacent : RopePairing::kHalfSplit));
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
    {"glm", "glm", 2, 128, 256, 4, 2, 64, 320, 4096, true, false, false, 32},
    {"qwen3.5-hybrid", "qwen3_5_text", 4, 128, 256, 4, 2, 64, 320, 4096, false, true, false, 16},
    {"phi3-longrope", "phi3", 2, 384, 256, 4, 4, 96, 320, 4096, false, false, false},
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

TEST("SmolLM2 opens") {
  check_model(files::test_model("SmolLM2-135M-Instruct.Q4_1.gguf"),
              {"", "llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, false, false, true});
}

TEST("a missing matrix is named") {
  using namespace builders;
  for (const char* name : {"output_norm.weight", "blk.0.attn_v.weight", "blk.0.ffn_down.weight"}) {
    CHECK_THROWS(open(tiny_gguf().drop(name)), kFileCorrupt);
    CHECK(message(tiny_gguf().drop(name)).find(name) != std::string::npos);
  }
  CHECK_THROWS(open(tiny_gguf().drop("token_embd.weight")), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf("qwen2")), kFileCorrupt);  // has biases
  CHECK_THROWS(open(tiny_gguf("qwen3")), kFileCorrupt);  // has norms of Q and K
  CHECK(message(tiny_gguf("qwen3")).find("attn_q_norm") != std::string::npos);
  HubConfig untied = tiny_config();
  untied["tie_word_embeddings"] = "false";
  CHECK(message(untied, tiny_safetensors()).find("lm_head.weight") != std::string::npos);
  CHECK(!open(untied, tiny_safetensors().add("lm_head.weight", {8, 32})).config.tied_embeddings);
  untied.erase("tie_word_embeddings");
  CHECK(open(untied, tiny_safetensors()).config.tied_embeddings);
}

TEST("a wrong shape is named with both shapes") {
  builders::Gguf gguf = builders::tiny_gguf();
  gguf.tensor("blk.0.attn_k.weight").dims = {16, 32};
  CHECK_THROWS(open(gguf), kFileCorrupt);
  CHECK(message(gguf).find("32 x 16 instead of 16 x 32") != std::string::npos);
}

TEST("a type that the engine does not read is named with those it reads") {
  builders::Gguf gguf = builders::tiny_gguf();
  gguf.tensor("blk.0.ffn_up.weight").type = 18;
  CHECK_THROWS(open(gguf), kUnsupportedQuantization);
  CHECK(message(gguf).find("blk.0.ffn_up.weight as IQ3_XXS") != std::string::npos);
  CHECK(message(gguf).find("Q6_K, IQ4_NL, IQ4_XS and MXFP4") != std::string::npos);
  builders::Safetensors s = builders::tiny_safetensors();
  s.tensors[4].type = "I16";
  CHECK(message(builders::tiny_config(), s).find("as I16") != std::string::npos);
  gguf = builders::tiny_gguf();
  gguf.tensor("output_norm.weight").type = 8;
  CHECK_THROWS(open(gguf), kFileCorrupt);  // a quantised norm
}

TEST("what a layer has beyond the graph is refused, what stands elsewhere is not") {
  CHECK_THROWS(open(builders::tiny_gguf().add("blk.0.attn_output.bias", {32})), kUnsupportedArchitecture);
  CHECK_THROWS(open(builders::tiny_gguf().add("blk.0.ffn_gate_inp.weight", {32, 4})),
               kUnsupportedArchitecture);
  CHECK_THROWS(open(builders::tiny_gguf().add("blk.1.attn_norm.weight", {32})), kUnsupportedArchitecture);
  CHECK(open(builders::tiny_gguf().add("vision.weight", {32})).config.layers == 1);
  builders::Safetensors s = builders::tiny_safetensors();
  s.add("model.layers.0.self_attn.rotary_emb.inv_freq", {8}, "F32");
  CHECK(open(builders::tiny_config(), s).config.layers == 1);
}

TEST("a llama with biases uses them") {
  builders::Gguf gguf = builders::tiny_gguf();
  gguf.add("blk.0.attn_q.bias", {32}).add("blk.0.attn_k.bias", {16}).add("blk.0.attn_v.bias", {16});
  CHECK(open(gguf).config.qkv_bias);
  CHECK(open(gguf).weights.layers[0].k_bias.cols == 16);
}

TEST("a fused bias is taken apart where Q, K and V meet") {
  builders::Gguf gguf = builders::tiny_fused_gguf("glm");
  gguf.add("blk.0.attn_qkv.bias", {64});
  std::string& bytes = gguf.tensor("blk.0.attn_qkv.bias").bytes;
  for (size_t i = 0; i < 64; ++i) {
    const auto value = static_cast<float>(i);
    std::memcpy(bytes.data() + sizeof(float) * i, &value, sizeof(float));
  }
  const Model model = open(gguf);
  const LayerWeights& layer = model.weights.layers[0];
  struct Part {
    const TensorView& view;
    int64_t count;
    float first;
  };
  for (const auto& [view, count, first] : {Part{layer.q_bias, 32, 0}, Part{layer.k_bias, 16, 32}, Part{layer.v_bias, 16, 48}})
    CHECK(view.cols == count && view.bytes == count * 4 && load<float>(view.data) == first);
}

TEST("parameters and bytes count the graph's matrices once") {
  const Model model = open(builders::tiny_gguf().add("vision.weight", {32}));
  const int64_t layer = 2 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 32, all = layer + 8 * 32 + 32;
  CHECK(model.parameters == all);
  CHECK(model.weight_bytes == all * 4);
}

TEST("the fingerprint follows the content and nothing else") {
  builders::Gguf gguf = builders::tiny_gguf();
  const std::string first = open(gguf).fingerprint;
  CHECK(open_model(scratch().put("renamed.gguf", gguf.build())).fingerprint == first);
  gguf.set_f32("llama.rope.freq_base", 20000);
  CHECK(open(gguf).fingerprint != first);
  gguf.set_f32("llama.rope.freq_base", 10000);
  gguf.tensor("blk.0.ffn_up.weight").bytes[77] = 1;
  CHECK(open(gguf).fingerprint != first);

  builders::HubConfig config = builders::tiny_config();
  const std::string hub = open(config, builders::tiny_safetensors()).fingerprint;
  CHECK(hub != first);
  CHECK(open(config, builders::tiny_safetensors()).fingerprint == hub);
  config["rope_theta"] = "20000.0";  // config.json is a part of the model
  CHECK(open(config, builders::tiny_safetensors()).fingerprint != hub);
}

TEST("the fingerprint of a large file samples it from its first to its last byte") {
  builders::Gguf gguf = builders::tiny_gguf();
  gguf.add("vision.weight", {1 << 20});
  std::string bytes = gguf.build();
  const auto print = [&] { return open_model(scratch().put("large.gguf", bytes)).fingerprint; };
  const std::string first = print();
  const auto header =
      static_cast<size_t>(open_model(scratch().path("large.gguf")).file->parts()[0].header_bytes);
  for (const size_t at : {header, bytes.size() - 1}) {
    bytes[at] ^= 1;
    CHECK(print() != first);
    bytes[at] ^= 1;
  }
  CHECK(print() == first);
  bytes.resize(bytes.size() + 1, '\0');
  CHECK(print() != first);
}

TEST_MAIN()
