// Gemma 3: layers that slide by frequencies of their own, GELU, scaled embeddings, norms around everything.
#include "base/error.h"
#include "check.h"
#include "model/opened.h"
#include "model/rope.h"

using namespace longview;
using builders::Gguf;
using builders::HubConfig;
using builders::message;
using builders::open;
using builders::tiny_gemma3_gguf;

namespace {

// As the largest model's publisher writes it, but for its size.
HubConfig config_of(const HubConfig& changes = {}) {
  HubConfig config = builders::tiny_config("gemma3_text");
  config.erase("hidden_act"), config.erase("rope_theta");
  config["num_hidden_layers"] = "3", config["head_dim"] = "16", config["query_pre_attn_scalar"] = "4", config["sliding_window"] = "64", config["sliding_window_pattern"] = "3";
  config["rope_scaling"] = R"({"factor": 8.0, "rope_type": "linear"})";
  for (const auto& [key, value] : changes) config[key] = value;
  return config;
}

builders::Safetensors tensors() {
  builders::Safetensors t;
  t.add("model.embed_tokens.weight", {8, 32}).add("model.norm.weight", {32});
  for (const std::string prefix : {"model.layers.0.", "model.layers.1.", "model.layers.2."}) {
    for (const char* norm : {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"}) t.add(prefix + norm + ".weight", {32});
    for (const char* norm : {"q_norm", "k_norm"}) t.add(prefix + "self_attn." + norm + ".weight", {16});
    for (const char* matrix : {"self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) t.add(prefix + matrix + ".weight", {32, 32});
    for (const char* matrix : {"self_attn.k_proj", "self_attn.v_proj"}) t.add(prefix + matrix + ".weight", {16, 32});
  }
  return t;
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST("what its GGUF file says, and what only its architecture does") {
  const Model model = open(tiny_gemma3_gguf());
  const ModelConfig& c = model.config;
  CHECK(c.sliding.span == 64 && c.sliding.interval == 3 && c.window == 256 && c.note.empty());
  CHECK(c.span(0) == 64 && c.span(1) == 64 && c.span(2) == 0);
  CHECK(c.qk_norm && c.post_norms && c.tied_embeddings && c.gate_curve.cubic > 0.07f && c.query_scale == 1);
  CHECK(c.embedding_scale == std::sqrt(32.0) && c.rope.pairing == RopePairing::kHalfSplit);
  CHECK(c.rope.sliding_inverse_frequencies == plain_frequencies(10000, 16));
  CHECK(c.rope.inverse_frequencies[1] == plain_frequencies(1e6, 16)[1] / 8);
  CHECK(open(tiny_gemma3_gguf().set_f32("gemma3.rope.freq_base_swa", 500)).config.rope.sliding_inverse_frequencies == plain_frequencies(500, 16));
  const LayerWeights& layer = model.weights.layers[2];
  CHECK(layer.attention_post_norm.cols == 32 && layer.ffn_post_norm.cols == 32 && layer.ffn_norm.cols == 32 && layer.q_norm.cols == 16);
}

TEST("a span as long as the window, or longer, keeps its layers' own frequencies") {
  const Model model = open(tiny_gemma3_gguf().set_u32("gemma3.attention.sliding_window", 1024));
  CHECK(model.config.sliding.span == 1024 && model.config.span(0) == 1024);
}

TEST("the scores of the largest model are divided by another root") {
  Gguf large = tiny_gemma3_gguf();
  const std::vector<builders::GgufTensor> layer(large.tensors.begin() + 2, large.tensors.end());
  for (int i = 3; i < 62; ++i)
    for (const builders::GgufTensor& tensor : layer)
      if (tensor.name.starts_with("blk.0.")) {
        large.tensors.push_back(tensor);
        large.tensors.back().name = "blk." + std::to_string(i) + tensor.name.substr(5);
      }
  large.set_u32("gemma3.block_count", 62).set_u32("gemma3.attention.head_count", 4).set_u32("gemma3.attention.head_count_kv", 2);
  for (builders::GgufTensor& tensor : large.tensors) {
    if (tensor.name.ends_with("attn_q.weight") || tensor.name.ends_with("attn_output.weight")) tensor.dims = {tensor.name.ends_with("attn_q.weight") ? 32u : 64u, tensor.name.ends_with("attn_q.weight") ? 64u : 32u}, tensor.bytes += tensor.bytes;
    if (tensor.name.ends_with("attn_k.weight") || tensor.name.ends_with("attn_v.weight")) tensor.dims = {32, 32}, tensor.bytes += tensor.bytes;
  }
  const Model model = open(large);
  CHECK(std::fabs(model.config.query_scale - std::sqrt(2.0)) < 1e-12);  // heads of 16, 32 / 4 = 8
}

TEST("as transformers writes it, norms are kept less 1 and the queries' has the scores' scale in it") {
  const Model model = open(config_of(), tensors());
  const ModelConfig& c = model.config;
  CHECK(c.sliding.span == 64 && c.sliding.interval == 3 && c.query_scale == 2 && c.embedding_scale == std::sqrt(32.0));
  CHECK(c.rope.inverse_frequencies[1] == plain_frequencies(1e6, 16)[1] / 8 && c.rope.sliding_inverse_frequencies == plain_frequencies(10000, 16));
  const auto first = [](const TensorView& view) { return load<float>(view.data); };
  const LayerWeights& layer = model.weights.layers[0];
  CHECK(first(layer.attention_norm) == 1 && first(layer.attention_post_norm) == 1 && first(layer.ffn_norm) == 1 && first(layer.ffn_post_norm) == 1);
  CHECK(first(layer.q_norm) == 2 && first(layer.k_norm) == 1 && first(model.weights.output_norm) == 1);
}

TEST("its newer spelling, with an object for each kind of layer, says the same") {
  HubConfig newer = config_of({{"layer_types", R"(["sliding_attention", "sliding_attention", "full_attention"])"},
                               {"rope_parameters", R"({"full_attention": {"factor": 4.0, "rope_theta": 2000000.0, "rope_type": "linear"}, "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"}})"}});
  newer.erase("rope_scaling"), newer.erase("sliding_window_pattern");
  const ModelConfig c = open(newer, tensors()).config;
  CHECK(c.sliding.interval == 3 && c.rope.sliding_inverse_frequencies == plain_frequencies(500, 16) && c.rope.inverse_frequencies[1] == plain_frequencies(2e6, 16)[1] / 4);
}

TEST("what it leaves out is what transformers has for it") {
  HubConfig bare = config_of();
  for (const char* key : {"sliding_window_pattern", "rope_scaling", "hidden_activation"}) bare.erase(key);
  const ModelConfig c = open(bare, tensors()).config;
  CHECK(c.sliding.interval == 0 && c.span(2) == 64);  // of every six layers the last sees all: of three none
  CHECK(c.rope.inverse_frequencies == plain_frequencies(1e6, 16));
}

TEST("what is missing, out of range or another model is named") {
  for (const char* part : {"post_attention_norm", "post_ffw_norm", "attn_q_norm", "ffn_norm"}) CHECK_THROWS(open(tiny_gemma3_gguf().drop(std::string("blk.1.") + part + ".weight")), kFileCorrupt);
  CHECK_THROWS(open(tiny_gemma3_gguf().set_u32("gemma3.attention.sliding_window", 0)), kFileCorrupt);
  CHECK_THROWS(open(tiny_gemma3_gguf().set_u32("gemma3.attention.sliding_window_pattern", 0)), kFileCorrupt);
  CHECK_THROWS(open(tiny_gemma3_gguf().set_f32("gemma3.rope.freq_base_swa", 0.5f)), kFileCorrupt);
  CHECK_THROWS(open(tiny_gemma3_gguf().set_f32("gemma3.final_logit_softcapping", 30)), kUnsupportedArchitecture);
  CHECK(says(message(config_of({{"hidden_activation", "\"gelu\""}}), tensors()), "\"gelu\""));
  CHECK(says(message(config_of({{"use_bidirectional_attention", "true"}}), tensors()), "use_bidirectional_attention"));
  CHECK(says(message(config_of({{"attn_logit_softcapping", "50.0"}}), tensors()), "attn_logit_softcapping"));
  CHECK(says(message(config_of({{"query_pre_attn_scalar", "0"}}), tensors()), "out of range"));
  CHECK(says(message(config_of({{"layer_types", R"(["full_attention", "sliding_attention", "full_attention"])"}}), tensors()), "no pattern"));
  CHECK(says(message(config_of({{"sliding_window", "null"}}), tensors()), "how many tokens"));
  CHECK(says(message(HubConfig{{"model_type", "\"gemma3\""}}, tensors()), "text_config"));
}

TEST_MAIN()
