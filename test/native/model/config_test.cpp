#include "model/config.h"

#include <cmath>

#include "base/error.h"
#include "check.h"
#include "model/opened.h"
#include "model/rope.h"

using namespace longview;
using builders::Gguf;
using builders::HubConfig;
using builders::message;
using builders::open;
using builders::Safetensors;
using builders::tiny_config;
using builders::tiny_gguf;
using builders::tiny_safetensors;

namespace {

HubConfig with(HubConfig config, const HubConfig& changes) {
  for (const auto& [key, value] : changes) config[key] = value;
  return config;
}
HubConfig with(const HubConfig& changes) {
  return with(tiny_config(), changes);
}

double slowest(const Model& model) {
  return model.config.rope.inverse_frequencies.back();
}

}  // namespace

TEST("both formats give the same configuration") {
  const ModelConfig g = open(tiny_gguf()).config, h = open(tiny_config()).config;
  for (const ModelConfig* c : {&g, &h}) {
    CHECK(c->architecture == "llama");
    CHECK(c->layers == 1 && c->hidden == 32 && c->ffn == 32 && c->heads == 2 && c->kv_heads == 1 &&
          c->head_dim == 16);
    CHECK(c->q_dim() == 32 && c->kv_dim() == 16 && c->vocabulary == 8 && c->window == 256);
    CHECK(c->norm_epsilon == 1e-5f);
    CHECK(c->tied_embeddings && !c->qkv_bias && !c->qk_norm);
    CHECK(c->rope.dims == 16);
  }
  CHECK(g.rope.inverse_frequencies == h.rope.inverse_frequencies);
  CHECK(g.rope.pairing == RopePairing::kAdjacent && h.rope.pairing == RopePairing::kHalfSplit);
  CHECK(g.name == "Tiny");
}

TEST("Yi is a llama: its configuration as it is published, with keys that say nothing to us") {
  HubConfig yi = with({{"architectures", R"(["LlamaForCausalLM"])"}, {"attention_bias", "false"}, {"attention_dropout", "0.0"}, {"initializer_range", "0.02"}, {"pretraining_tp", "1"},
                       {"rope_scaling", "null"}, {"rope_theta", "10000000.0"}, {"use_cache", "true"}, {"hidden_act", "\"silu\""}, {"torch_dtype", "\"bfloat16\""}});
  yi.erase("head_dim");
  const Model model = open(yi);
  CHECK(model.config.architecture == "llama" && model.config.note.empty());
  const double d = static_cast<double>(model.config.head_dim);
  CHECK_NEAR(slowest(model) / std::pow(1e7, -(d - 2) / d), 1, 1e-6);
}

TEST("architectures that the graph lacks are named with those it has") {
  for (const char* arch : {"mamba2", "qwen4exp", "gemma4"}) {
    CHECK_THROWS(open(tiny_gguf(arch)), kUnsupportedArchitecture);
    CHECK(message(tiny_gguf(arch)).find('"' + std::string(arch) + '"') != std::string::npos);
    CHECK(message(tiny_gguf(arch)).find("mistral, mistral3, qwen2, qwen3, qwen3moe, qwen3next, qwen35, qwen35moe, glm, glm4, chatglm, phi3, gpt-oss, gemma3 and granite") != std::string::npos);
    CHECK_THROWS(open(tiny_config(arch)), kUnsupportedArchitecture);
  }
  CHECK_THROWS(open(tiny_gguf().remove("general.architecture")), kFileCorrupt);
  CHECK_THROWS(open(with({{"model_type", "null"}})), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf().set_u32("llama.expert_count", 8)), kUnsupportedArchitecture);
  CHECK_THROWS(open(with({{"hidden_act", "\"gelu\""}})), kUnsupportedArchitecture);
  CHECK_THROWS(open(with({{"quantization_config", R"({"quant_method":"gptq"})"}})), kUnsupportedQuantization);
  CHECK(message(with({{"quantization_config", R"({"quant_method":"gptq"})"}})).find("gptq") !=
        std::string::npos);
}

TEST("steps that the graph does not do are refused, by the key that asks for them, and where it says that there is none they are not") {
  const auto refuses = [](const auto& input, const std::string& key) {
    CHECK_THROWS(open(input), kUnsupportedArchitecture);
    CHECK(message(input).find('(' + key + ')') != std::string::npos);
  };
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping", "attention.clamp_kqv", "attention.max_alibi_bias", "attention.temperature_scale", "attention.scale", "embedding_scale", "residual_scale", "logit_scale"}) {
    const std::string name = std::string("llama.") + key;
    refuses(tiny_gguf().set_f32(name, 30), key);
    refuses(tiny_gguf().set_f32(name, NAN), key);
    CHECK(open(tiny_gguf().set_f32(name, 0)).config.layers == 1);
  }
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping", "clip_qkv", "attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale"}) {
    refuses(with({{key, "30.0"}}), key);
    CHECK(open(with({{key, "null"}})).config.layers == 1);
  }
  for (const char* key : {"embedding_scale", "residual_scale", "logit_scale"}) CHECK(open(tiny_gguf().set_f32(std::string("llama.") + key, 1)).config.layers == 1);
  CHECK(open(tiny_gguf().set_f32("llama.attention.scale", 0.25f)).config.head_dim == 16);  // as it is done anyway
  CHECK(open(with({{"attention_multiplier", "0.25"}})).config.head_dim == 16);
  const auto flag = [](const char* key, char value) { return tiny_gguf().set(std::string("llama.") + key, 7, std::string(1, value)); };
  refuses(flag("attention.causal", 0), "attention.causal");
  refuses(flag("use_parallel_residual", 1), "use_parallel_residual");
  CHECK(open(flag("attention.causal", 1)).config.layers == 1 && open(flag("use_parallel_residual", 0)).config.layers == 1);
  refuses(with({{"is_causal", "false"}}), "is_causal");
  refuses(with({{"alibi", "true"}}), "alibi");
  CHECK_THROWS(open(tiny_gguf().set_u32("llama.attention.causal", 0)), kFileCorrupt);
}

TEST("sizes out of range are refused") {
  for (const char* key :
       {"block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.key_length", "rope.dimension_count"}) {
    const std::string name = std::string("llama.") + key;
    for (const uint32_t value : {0u, 0xffffffffu})
      CHECK_THROWS(open(tiny_gguf().set_u32(name, value)), kFileCorrupt);
    CHECK_THROWS(open(tiny_gguf().set(name, 10, builders::bytes_of<uint64_t>(UINT64_MAX))), kFileCorrupt);
    CHECK_THROWS(open(tiny_gguf().set(name, 5, builders::bytes_of<int32_t>(-2))), kFileCorrupt);
  }
  for (const char* key : {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
                          "num_key_value_heads", "max_position_embeddings", "vocab_size", "head_dim"})
    for (const char* value : {"0", "-2", "1e15", "9007199254740992"})
      CHECK_THROWS(open(with({{key, value}})), kFileCorrupt);
  CHECK_THROWS(open(with({{"num_key_value_heads", "3"}, {"num_attention_heads", "4"}})), kFileCorrupt);
  CHECK_THROWS(open(with({{"head_dim", "512"}})), kUnsupportedArchitecture);
  CHECK_THROWS(open(with({{"head_dim", "15"}})), kUnsupportedArchitecture);
  for (const char* epsilon : {"0", "-1", "1", "1e300"})
    CHECK_THROWS(open(with({{"rms_norm_eps", epsilon}})), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf().set_f32("llama.attention.layer_norm_rms_epsilon", NAN)), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf().set_u32("llama.rope.dimension_count", 15)), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf().set_u32("llama.attention.value_length", 8)), kUnsupportedArchitecture);
  CHECK_THROWS(open(with({{"partial_rotary_factor", "0"}})), kFileCorrupt);
}

TEST("a value of the wrong kind is named, not guessed past") {
  for (const char* key : {"num_hidden_layers", "num_key_value_heads", "head_dim", "rms_norm_eps",
                          "rope_theta", "model_type", "tie_word_embeddings", "rope_scaling", "layer_types",
                          "quantization_config", "partial_rotary_factor"}) {
    const std::string wrong = std::string(key) == "layer_types" ? "{}" : "[1]";
    CHECK_THROWS(open(with({{key, wrong}})), kFileCorrupt);
    CHECK(message(with({{key, wrong}})).find(key) != std::string::npos);
  }
  CHECK_THROWS(open(with({{"num_hidden_layers", "1.5"}})), kFileCorrupt);
  CHECK(message(with({{"rope_theta", "\"big\""}})).find("rope_theta is no number") != std::string::npos);
  CHECK_THROWS(open(tiny_gguf().set_string("llama.rope.freq_base", "big")), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf().set_string("llama.attention.head_count_kv", "1")), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf().set_string("general.alignment", "32")), kFileCorrupt);
  // Null is absent.
  CHECK(open(with({{"head_dim", "null"}, {"rope_theta", "null"}})).config.head_dim == 16);
}

TEST("values given once a layer are taken when all layers agree") {
  CHECK(open(tiny_gguf().set_i32s("llama.attention.head_count_kv", {1, 1})).config.kv_heads == 1);
  CHECK_THROWS(open(tiny_gguf().set_i32s("llama.attention.head_count_kv", {1, 2})), kUnsupportedArchitecture);
  CHECK_THROWS(open(tiny_gguf().set_i32s("llama.attention.head_count_kv", {0, 0})), kFileCorrupt);
}

TEST("a tokenizer larger than the embedding is refused") {
  CHECK_THROWS(open(tiny_gguf().set_strings("tokenizer.ggml.tokens", std::vector<std::string>(9))),
               kFileCorrupt);
  CHECK(
      open(tiny_gguf().set_strings("tokenizer.ggml.tokens", std::vector<std::string>(7))).config.vocabulary ==
      8);
}

TEST("RoPE in both spellings of config.json") {
  const double plain = plain_frequencies(10000, 16).back();
  CHECK(slowest(open(tiny_config())) == plain);
  HubConfig none = tiny_config();
  none.erase("rope_theta");
  CHECK(slowest(open(none)) == plain);  // the default
  CHECK(slowest(open(with({{"rope_scaling", "null"}, {"rope_theta", "5e5"}}))) ==
        plain_frequencies(5e5, 16).back());
  CHECK(slowest(open(with(none, {{"rope_parameters", R"({"rope_type":"default","rope_theta":500000})"}}))) ==
        plain_frequencies(5e5, 16).back());
  for (const char* scaling : {R"({"type":"linear","factor":4})", R"({"rope_type":"linear","factor":4})"}) {
    CHECK(slowest(open(with({{"rope_scaling", scaling}}))) == plain / 4);
    CHECK(slowest(open(with({{"rope_parameters", scaling}}))) == plain / 4);
  }
  const HubConfig llama3 = {
      {"rope_scaling", R"({"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,
                             "original_max_position_embeddings":64})"}};
  CHECK(slowest(open(with(llama3))) == plain / 8);
  // What is slower than half the original window is stretched by all of it, what is faster than a third by nothing.
  const HubConfig narrow = {
      {"rope_scaling", R"({"rope_type":"llama3","factor":8,"low_freq_factor":2,"high_freq_factor":3,
                             "original_max_position_embeddings":64})"}};
  const std::vector<double> frequencies = plain_frequencies(10000, 16);
  const ModelConfig stretched = open(with(narrow)).config;
  CHECK(stretched.rope.inverse_frequencies[1] == frequencies[1]);
  CHECK(stretched.rope.inverse_frequencies[2] == frequencies[2] / 8);
  CHECK_THROWS(open(with({{"rope_scaling", R"({"type":"linear"})"}})), kFileCorrupt);
  CHECK(message(with({{"rope_scaling", R"({"type":"dynamic","factor":4})"}})).find("dynamic") !=
        std::string::npos);
}

TEST("YaRN stretches the window, and its factor may follow from it") {
  const char* stretched = R"({"rope_type":"yarn","factor":4,"original_max_position_embeddings":128})";
  const Model yarn = open(with({{"rope_scaling", stretched}}));
  CHECK(yarn.config.window == 512);
  CHECK_NEAR(yarn.config.rope.attention_scale, 0.1 * std::log(4.0) + 1, 1e-15);
  CHECK(slowest(yarn) == plain_frequencies(10000, 16).back() / 4);
  const char* implied = R"({"rope_type":"yarn","original_max_position_embeddings":64})";
  CHECK_NEAR(open(with({{"rope_scaling", implied}})).config.rope.attention_scale, 0.1 * std::log(4.0) + 1,
             1e-15);
  CHECK(open(with({{"rope_scaling", implied}})).config.window == 256);
  const char* endless = R"({"rope_type":"yarn","factor":1000,"original_max_position_embeddings":100000000})";
  CHECK_THROWS(open(with({{"rope_scaling", endless}})), kFileCorrupt);
}

TEST("RoPE in GGUF keys") {
  const double plain = plain_frequencies(10000, 16).back();
  CHECK(slowest(open(tiny_gguf().set_f32("llama.rope.freq_base", 5e5f))) ==
        plain_frequencies(5e5, 16).back());
  Gguf scaled =
      tiny_gguf().set_string("llama.rope.scaling.type", "linear").set_f32("llama.rope.scaling.factor", 4);
  CHECK(slowest(open(scaled)) == plain / 4);
  CHECK(slowest(open(tiny_gguf().set_f32("llama.rope.scale_linear", 2))) == plain / 2);
  scaled.set_string("llama.rope.scaling.type", "yarn")
      .set_u32("llama.rope.scaling.original_context_length", 128);
  CHECK(open(scaled).config.window == 512);
  CHECK_NEAR(open(scaled).config.rope.attention_scale, 0.1 * std::log(4.0) + 1, 1e-15);
  scaled.set_f32("llama.rope.scaling.attn_factor", 0.5f);
  CHECK_NEAR(open(scaled).config.rope.attention_scale, 0.5 * (0.1 * std::log(4.0) + 1), 1e-15);
  CHECK_THROWS(open(scaled.set_string("llama.rope.scaling.type", "dynamic")), kUnsupportedArchitecture);
}

TEST("GGUF's frequency factors divide") {
  Gguf gguf = tiny_gguf().add("rope_freqs.weight", {8});
  std::vector<float> factors{1, 1, 1, 2, 4, 8, 8, 8};
  std::string& bytes = gguf.tensor("rope_freqs.weight").bytes;
  const auto put = [&] { std::memcpy(bytes.data(), factors.data(), bytes.size()); };
  put();
  const std::vector<double> plain = plain_frequencies(10000, 16),
                            actual = open(gguf).config.rope.inverse_frequencies;
  for (size_t i = 0; i < 8; ++i) CHECK(actual[i] == plain[i] / static_cast<double>(factors[i]));
  for (const float bad : {0.0f, -1.0f, NAN, 1e-30f}) {
    factors[2] = bad;
    put();
    CHECK_THROWS(open(gguf), kFileCorrupt);
  }
  CHECK_THROWS(open(tiny_gguf().add("rope_freqs.weight", {7})), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf().add("rope_freqs.weight", {8}, 1, 16)), kFileCorrupt);
}

TEST("GLM rotates adjacent halves, has norms behind where its file is of that kind, and its own spelling of the configuration") {
  for (const char* arch : {"chatglm", "glm4"}) {
    const Model glm = open(builders::tiny_fused_gguf(arch).set_u32(std::string(arch) + ".rope.dimension_count", 8));
    CHECK(glm.config.rope.pairing == RopePairing::kAdjacent && glm.config.rope.dims == 8);
    CHECK(glm.config.post_norms == (std::string(arch) == "glm4"));
    CHECK(glm.weights.layers[0].attention_post_norm.empty() != glm.config.post_norms);
  }
  CHECK_THROWS(open(builders::tiny_fused_gguf("glm4").drop("blk.0.post_ffw_norm.weight")), kFileCorrupt);
  CHECK_THROWS(open(builders::tiny_fused_gguf("chatglm").add("blk.0.post_ffw_norm.weight", {32})), kUnsupportedArchitecture);
  const HubConfig own = {{"model_type", "\"chatglm\""}, {"num_layers", "1"}, {"hidden_size", "32"}, {"ffn_hidden_size", "32"}, {"num_attention_heads", "2"}, {"multi_query_attention", "true"},
                         {"multi_query_group_num", "1"}, {"kv_channels", "16"}, {"seq_length", "1048576"}, {"padded_vocab_size", "8"}, {"rope_ratio", "10000"}};
  Safetensors file;
  file.add("transformer.embedding.word_embeddings.weight", {8, 32}).add("transformer.encoder.final_layernorm.weight", {32}).add("transformer.output_layer.weight", {8, 32});
  const std::string layer = "transformer.encoder.layers.0.";
  file.add(layer + "input_layernorm.weight", {32}).add(layer + "post_attention_layernorm.weight", {32}).add(layer + "self_attention.query_key_value.weight", {64, 32});
  file.add(layer + "self_attention.dense.weight", {32, 32}).add(layer + "mlp.dense_h_to_4h.weight", {64, 32}).add(layer + "mlp.dense_4h_to_h.weight", {32, 32});
  const ModelConfig c = open(own, file).config;
  CHECK(c.window == 1048576 && c.kv_heads == 1 && c.rope.dims == 8 && !c.tied_embeddings && !c.qkv_bias);
  CHECK(c.rope.inverse_frequencies == plain_frequencies(1e8, 8));
  for (const auto& [key, value] : HubConfig{{"add_bias_linear", "true"}, {"rmsnorm", "false"}, {"apply_residual_connection_post_layernorm", "true"}})
    CHECK_THROWS(open(with(own, {{key, value}}), file), kUnsupportedArchitecture);
  CHECK_THROWS(open(with(own, {{"multi_query_group_num", "0"}}), file), kFileCorrupt);
  CHECK_THROWS(open(with(own, {{"kv_channels", "2"}}), file), kFileCorrupt);
}

TEST("LongRoPE: two sets of divisors, and a factor from the two windows") {
  const std::string factors = R"("short_factor":[1,1,1,1,1,1,1,2],"long_factor":[1,2,3,4,5,6,7,8])";
  const HubConfig phi = with(tiny_config("phi3"), {{"original_max_position_embeddings", "64"}, {"rope_scaling", R"({"type":"longrope",)" + factors + "}"}});
  const std::vector<double> plain = plain_frequencies(10000, 16);
  const RopeConfig rope = open(phi, builders::tiny_fused_safetensors()).config.rope;
  CHECK(rope.short_window == 64 && rope.inverse_frequencies.back() == plain.back() / 2);
  for (size_t i = 0; i < 8; ++i) CHECK(rope.long_inverse_frequencies[i] == plain[i] / static_cast<double>(i + 1));
  CHECK_NEAR(rope.attention_scale, std::sqrt(1 + std::log(4.0) / std::log(64.0)), 1e-15);
  const auto scaled = [&](const std::string& members) { return with(phi, {{"rope_scaling", "{" + members + "}"}}); };
  CHECK(open(scaled(R"("type":"su",)" + factors), builders::tiny_fused_safetensors()).config.rope.short_window == 64);
  CHECK(open(scaled(R"("type":"longrope","attention_factor":1.5,)" + factors), builders::tiny_fused_safetensors()).config.rope.attention_scale == 1.5);
  for (const char* bad : {R"("type":"longrope")", R"("type":"longrope","short_factor":[1],"long_factor":[1])", R"("type":"longrope","short_factor":[1,1,1,1,1,1,1,"x"],"long_factor":[1,2,3,4,5,6,7,8])",
                          R"("type":"longrope","short_factor":[1,1,1,1,1,1,1,0],"long_factor":[1,2,3,4,5,6,7,8])", R"("type":"longrope","short_factor":[1,1,1,1,1,1,1,1],"long_factor":[1,2,3,4,5,6,7,-8])"})
    CHECK_THROWS(open(scaled(bad), builders::tiny_fused_safetensors()), kFileCorrupt);
  CHECK_THROWS(open(with(phi, {{"original_max_position_embeddings", "1"}}), builders::tiny_fused_safetensors()), kFileCorrupt);

  Gguf gguf = builders::tiny_fused_gguf("phi3").set_u32("phi3.rope.scaling.original_context_length", 64).add("rope_factors_short.weight", {8}).add("rope_factors_long.weight", {8});
  CHECK_THROWS(open(gguf), kFileCorrupt);  // divisors of 0
  for (const char* name : {"rope_factors_short.weight", "rope_factors_long.weight"})
    for (size_t i = 0; i < 8; ++i) {
      const float value = static_cast<float>(i + 1);
      std::memcpy(gguf.tensor(name).bytes.data() + 4 * i, &value, 4);
    }
  CHECK(open(gguf).config.rope.long_inverse_frequencies == rope.long_inverse_frequencies);
  gguf.tensor("rope_factors_long.weight").dims = {4};
  CHECK_THROWS(open(gguf), kFileCorrupt);
  for (const char* name : {"rope_factors_short.weight", "rope_factors_long.weight"}) CHECK_THROWS(open(Gguf(gguf).drop(name)), kFileCorrupt);
}

TEST("fused matrices are taken apart by rows, without a copy") {
  const Model model = open(builders::tiny_fused_gguf("chatglm"));
  const LayerWeights& layer = model.weights.layers[0];
  CHECK(layer.q.rows == 32 && layer.k.rows == 16 && layer.v.rows == 16 && layer.gate.rows == 32 && layer.up.rows == 32);
  CHECK(layer.k.data == layer.q.data + 32 * 32 * 4 && layer.v.data == layer.k.data + 16 * 32 * 4 && layer.up.data == layer.gate.data + 32 * 32 * 4);
  CHECK(layer.v.bytes == 16 * 32 * 4);
  Gguf biased = builders::tiny_fused_gguf("chatglm").add("blk.0.attn_qkv.bias", {64});
  const Model with_bias = open(biased);
  CHECK(with_bias.config.qkv_bias && with_bias.weights.layers[0].v_bias.cols == 16);
  CHECK(with_bias.weights.layers[0].v_bias.data == with_bias.weights.layers[0].q_bias.data + 48 * 4);
  biased.tensor("blk.0.attn_qkv.bias").dims = {32};
  CHECK_THROWS(open(biased), kFileCorrupt);
  CHECK_THROWS(open(builders::tiny_gguf("phi3")), kFileCorrupt);  // gate and up apart
}

TEST("what a config.json leaves out is what transformers takes for its architecture") {
  const auto bare = [](const std::string& type) {
    HubConfig config = tiny_config(type);
    config["max_position_embeddings"] = "8192";
    config.erase("rms_norm_eps");
    return open(config, type == "mistral" || type == "llama" ? tiny_safetensors() : builders::tiny_fused_safetensors()).config;
  };
  CHECK(bare("llama").norm_epsilon == 1e-6f && bare("phi3").norm_epsilon == 1e-5f && bare("glm").norm_epsilon == 1.5625e-7f);
  CHECK(bare("llama").rope.dims == 16 && bare("glm").rope.dims == 8);
  CHECK(bare("llama").window == 8192 && bare("mistral").sliding.span == 4096 && bare("mistral").window == 8192 && bare("phi3").sliding.span == 0);
}

TEST("layers that see only a part: which ones, and where their order is unknown the window is what they see") {
  const auto slides = [](const Model& model, int64_t span, int64_t interval) {
    const ModelConfig& c = model.config;
    return c.sliding.span == span && c.sliding.interval == interval && c.window == 256 && c.note.empty();
  };
  const auto limited = [](const Model& model) { return model.config.sliding.span == 0 && model.config.window == 64 && model.config.note.find("64 tokens instead of 256") != std::string::npos; };
  CHECK(slides(open(with(tiny_config("mistral"), {{"sliding_window", "64"}})), 64, 0));
  CHECK(slides(open(with(tiny_config("mistral"), {{"sliding_window", "null"}})), 0, 0));
  CHECK(slides(open(with(tiny_config("mistral"), {{"sliding_window", "256"}})), 0, 0));  // all that there is
  // Where it is not in use the number alone means nothing.
  CHECK(slides(open(with({{"sliding_window", "64"}, {"use_sliding_window", "false"}})), 0, 0));
  CHECK(limited(open(with({{"sliding_window", "64"}, {"use_sliding_window", "true"}}))));
  const HubConfig types = with({{"sliding_window", "64"}, {"use_sliding_window", "true"}});
  CHECK(slides(open(with(types, {{"layer_types", R"(["full_attention"])"}})), 0, 0));
  CHECK(slides(open(with(types, {{"layer_types", R"(["sliding_attention"])"}})), 64, 0));
  CHECK(limited(open(with(types, {{"layer_types", R"(["sliding_attention", "full_attention"])"}}))));  // of two layers, where there is one
  CHECK_THROWS(open(with(types, {{"layer_types", R"(["linear_attention"])"}})), kUnsupportedArchitecture);
  CHECK(slides(open(tiny_gguf().set_u32("llama.attention.sliding_window", 64)), 64, 0));
  CHECK(limited(open(builders::tiny_experts_gguf().set_u32("qwen3moe.attention.sliding_window", 64))));
  ModelConfig alternating;
  alternating.sliding = {64, 2};
  CHECK(alternating.span(0) == 64 && alternating.span(1) == 0 && alternating.span(2) == 64 && alternating.sees_all());
  alternating.sliding.interval = 0;
  CHECK(alternating.span(0) == 64 && alternating.span(1) == 64 && !alternating.sees_all());
}

TEST("attention in chunks limits the window and says so") {
  const HubConfig chunks = {{"dual_chunk_attention_config", R"({"chunk_size":128,"local_size":32})"}};
  CHECK(open(with(chunks)).config.window == 96);
  CHECK(!open(with(chunks)).config.note.empty());
}

TEST_MAIN()
