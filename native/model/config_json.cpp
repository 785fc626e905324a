// The configuration in a Hugging Face config.json, in the spellings of transformers 4 (rope_theta,
// rope_scaling) and 5 (rope_parameters).
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "model/read_config.h"
#include "model/rope.h"
#include "model/unknown_steps.h"

namespace longview {
namespace {

// An object of the configuration. A member that is absent or null is the fallback; one of another kind is an
// error, as guessing past it would give wrong answers.
class Members {
 public:
  Members(const Json& object, const std::string& path) : object_(object), path_(path) {}

  int64_t integer(const char* key, int64_t fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    constexpr int64_t kNone = std::numeric_limits<int64_t>::min();
    const int64_t number = value->integer_or(kNone);
    if (number == kNone) throw_corrupt(path_, std::string(key) + " is no whole number");
    return number;
  }
  double number(const char* key, double fallback) const {
    const Json* value = find(key);
    if (value && !value->number()) throw_corrupt(path_, std::string(key) + " is no number");
    return value ? *value->number() : fallback;
  }
  bool boolean(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (value && !value->boolean()) throw_corrupt(path_, std::string(key) + " is neither true nor false");
    return value ? *value->boolean() : fallback;
  }
  std::string text(const char* key, const std::string& fallback) const {
    const Json* value = find(key);
    if (value && !value->string()) throw_corrupt(path_, std::string(key) + " is no text");
    return value ? *value->string() : fallback;
  }
  // Null where there is none.
  const Json* object(const char* key) const {
    const Json* value = find(key);
    if (value && !value->object()) throw_corrupt(path_, std::string(key) + " is no object");
    return value;
  }
  const Json::Array* list(const char* key) const {
    const Json* value = find(key);
    if (value && !value->array()) throw_corrupt(path_, std::string(key) + " is no list");
    return value ? value->array() : nullptr;
  }
  // Empty where there is none.
  std::vector<double> numbers(const char* key) const {
    std::vector<double> out;
    const Json::Array* items = list(key);
    if (!items) return out;
    for (const Json& item : *items) {
      if (!item.number()) throw_corrupt(path_, std::string(key) + " holds what is no number");
      out.push_back(*item.number());
    }
    return out;
  }
  bool has(const char* key) const { return find(key) != nullptr; }
  // Null is stated too.
  bool states(const char* key) const { return object_.find(key) != nullptr; }
  const std::string& path() const { return path_; }

 private:
  const Json* find(const char* key) const {
    const Json* value = object_.find(key);
    return value && !value->is_null() ? value : nullptr;
  }

  const Json& object_;
  const std::string& path_;
};

// What RoPE has of its own for layers of a kind; null where kinds share theirs.
const Json* rope_of(const Members& config, const char* kind) {
  const Json* all = config.object("rope_parameters");
  return all ? Members(*all, config.path()).object(kind) : nullptr;
}

// An empty object where the configuration says nothing of RoPE, or of RoPE in the layers that slide.
Members rope_members(const Members& config, bool sliding = false) {
  static const Json kNone;
  const Json* found = rope_of(config, sliding ? "sliding_attention" : "full_attention");
  if (!found && !sliding) found = config.object("rope_parameters");
  if (!found && !sliding) found = config.object("rope_scaling");
  return {found ? *found : kNone, config.path()};
}

RopeScaling read_scaling(const Members& config, const Members& rope, int64_t window, double theta) {
  RopeScaling scaling;
  scaling.type = rope.text("rope_type", rope.text("type", "default"));
  scaling.theta = rope.number("rope_theta", config.number("rope_theta", theta));
  const auto whole = static_cast<double>(window);
  const double original = config.number("original_max_position_embeddings", whole);
  YarnSettings& s = scaling.settings;
  s.original_window = rope.number("original_max_position_embeddings", original);
  // Where YaRN gives no factor it is what the window was stretched by.
  s.factor = rope.number("factor", scaling.type == "yarn" ? whole / std::max(s.original_window, 1.0) : 0.0);
  s.beta_fast = rope.number("beta_fast", 32.0);
  s.beta_slow = rope.number("beta_slow", 1.0);
  s.attention_factor = rope.number("attention_factor", 0.0);
  s.mscale = rope.number("mscale", 0.0);
  s.mscale_all_dim = rope.number("mscale_all_dim", 0.0);
  s.truncate = rope.boolean("truncate", true);
  scaling.low_frequency_factor = rope.number("low_freq_factor", 1.0);
  scaling.high_frequency_factor = rope.number("high_freq_factor", 4.0);
  scaling.short_factors = rope.numbers("short_factor");
  scaling.long_factors = rope.numbers("long_factor");
  // transformers takes LongRoPE's factor from the two windows where the configuration has both.
  if (!scaling.long_factors.empty() && (s.factor == 0 || config.has("original_max_position_embeddings")))
    s.factor = whole / std::max(s.original_window, 1.0);
  return scaling;
}

// Which layers see no more than the last tokens.
struct SlidingLayers {
  bool any = false, regular = false;  // regular: of every `interval` the last does not
  int64_t interval = 0;               // 0: all slide
};

SlidingLayers sliding_layers(const Json::Array& types, const ModelConfig& c, const std::string& path) {
  std::vector<bool> slides;
  for (const Json& type : types) {
    const std::string name = type.string() ? *type.string() : "";
    if (name == "linear_attention" && is_hybrid(c.architecture)) continue;  // read_recurrent checks where they are
    LONGVIEW_CHECK(name == "full_attention" || name == "sliding_attention", kUnsupportedArchitecture,
                   "The model %s has layers of the type \"%s\", which Longview does not run.",
                   path.c_str(), printable(name).c_str());
    slides.push_back(name == "sliding_attention");
  }
  SlidingLayers layers{std::find(slides.begin(), slides.end(), true) != slides.end(), static_cast<int64_t>(slides.size()) == c.layers};
  if (const auto first = std::find(slides.begin(), slides.end(), false); first != slides.end()) layers.interval = first - slides.begin() + 1;
  const SlidingConfig pattern{1, layers.interval};
  for (int64_t i = 0; i < static_cast<int64_t>(slides.size()); ++i) layers.regular = layers.regular && slides[static_cast<size_t>(i)] == pattern.slides(i);
  return layers;
}

// Layers that see no more than the last tokens. Where these follow no pattern of the graph's, no layer gets to see more tokens than that: a model
// is the same then as one that sees all.
void read_sliding(const Members& config, ModelConfig& c) {
  const bool by_nature = c.architecture == "mistral" || c.architecture == "phi3";
  SlidingLayers layers{config.boolean("use_sliding_window", by_nature), by_nature};
  if (const Json::Array* types = config.list("layer_types")) layers = sliding_layers(*types, c, config.path());
  if (!layers.any) return;
  // transformers' own for Mistral, whose configurations have null where there is none.
  const int64_t unstated = c.architecture == "mistral" && !config.states("sliding_window") ? 4096 : 0;
  const int64_t span = config.integer("sliding_window", unstated);
  if (span <= 0) return;
  if (layers.regular) return set_sliding(c, {span, layers.interval});
  limit_to_span(c, span);
}

void read_gemma3(const Members& config, const Members& sliding_rope, ModelConfig& c) {
  const std::string activation = config.text("hidden_activation", "gelu_pytorch_tanh");
  LONGVIEW_CHECK(activation == "gelu_pytorch_tanh", kUnsupportedArchitecture, "The model %s uses the activation \"%s\", which Longview does not run in this architecture. It runs gelu_pytorch_tanh.",
                 config.path().c_str(), printable(activation).c_str());
  SlidingLayers layers{true, true, config.integer("sliding_window_pattern", 6)};
  if (const Json::Array* types = config.list("layer_types")) layers = sliding_layers(*types, c, config.path());
  LONGVIEW_CHECK(layers.any && layers.regular, kUnsupportedArchitecture, "The layers of the model %s that slide follow no pattern that Longview runs, which is that of so many the last does not.", config.path().c_str());
  set_gemma3(c, {config.integer("sliding_window", config.states("sliding_window") ? 0 : 4096), layers.interval}, sliding_rope.number("rope_theta", config.number("rope_local_base_freq", 10000.0)), config.number("query_pre_attn_scalar", 256.0), config.path());
}

void refuse_what_the_graph_lacks(const Members& config) {
  if (const Json* quantisation = config.object("quantization_config"))
    LONGVIEW_THROW(
        kUnsupportedQuantization,
        "The model %s is quantised by \"%s\". Of safetensors Longview reads F32, F16 and BF16: choose the "
        "original model or a GGUF file.",
        config.path().c_str(),
        printable(Members(*quantisation, config.path()).text("quant_method", "another tool")).c_str());
  const std::string activation = config.text("hidden_act", "silu");
  LONGVIEW_CHECK(activation == "silu", kUnsupportedArchitecture,
                 "The model %s uses the activation \"%s\", which Longview does not run. It runs silu.",
                 config.path().c_str(), printable(activation).c_str());
}

// Qwen2.5-1M attends in chunks beyond this; up to here that is the same as plain attention. 0 for other
// models.
int64_t first_chunk(const Members& config) {
  const Json* chunks = config.object("dual_chunk_attention_config");
  if (!chunks) return 0;
  const Members members(*chunks, config.path());
  const int64_t first = members.integer("chunk_size", 0) - members.integer("local_size", 0);
  if (first <= 0) throw_corrupt(config.path(), "the chunks of its attention are out of range");
  return first;
}

// Layers of another kind between those with experts are refused: the graph has one kind for all.
void read_experts(const Members& config, ModelConfig& c) {
  c.experts = config.integer("num_experts", config.integer("num_local_experts", 128));
  c.experts_used = config.integer("num_experts_per_tok", 8);
  c.experts_normalised = shares_expert(c.architecture) || config.boolean("norm_topk_prob", false);
  c.ffn = config.integer("moe_intermediate_size", 768);
  if (shares_expert(c.architecture)) c.shared_ffn = config.integer("shared_expert_intermediate_size", 512);
  const Json::Array* plain = config.list("mlp_only_layers");
  LONGVIEW_CHECK((!plain || plain->empty()) && config.integer("decoder_sparse_step", 1) == 1, kUnsupportedArchitecture,
                 "The model %s has layers without experts between those with them (mlp_only_layers, decoder_sparse_step), which Longview does not run.",
                 config.path().c_str());
}

// Which layers are recurrent stands in a list of them, or in their distance.
RecurrentConfig read_recurrent(const Members& config, int64_t layers) {
  RecurrentConfig r;
  r.key_heads = config.integer("linear_num_key_heads", 16);
  r.value_heads = config.integer("linear_num_value_heads", 32);
  r.head_dim = config.integer("linear_key_head_dim", 128);
  r.taps = config.integer("linear_conv_kernel_dim", 4);
  r.interval = config.integer("full_attention_interval", 4);
  LONGVIEW_CHECK(config.integer("linear_value_head_dim", 128) == r.head_dim, kUnsupportedArchitecture,
                 "The recurrent heads of keys and of values of the model %s differ in width, which Longview does not run.", config.path().c_str());
  LONGVIEW_CHECK(config.boolean("attn_output_gate", true), kUnsupportedArchitecture, "The attention of the model %s has no gates (attn_output_gate), which Longview does not run of this architecture.",
                 config.path().c_str());
  const Json::Array* types = config.list("layer_types");
  if (!types) return r;
  if (static_cast<int64_t>(types->size()) != layers) throw_corrupt(config.path(), "its layer_types are not as many as its layers");
  const auto attends = [](const Json& type) { return type.string() && *type.string() == "full_attention"; };
  r.interval = std::find_if(types->begin(), types->end(), attends) - types->begin() + 1;
  check_pattern(layers, r.interval, [&](int64_t layer) { return attends((*types)[static_cast<size_t>(layer)]); }, config.path());
  return r;
}

// GLM-4's own spelling of its configuration. Half of each head is rotated.
void read_chatglm(const Members& json, ModelConfig& c) {
  c.name = json.text("_name_or_path", "");
  c.layers = json.integer("num_layers", 0);
  c.hidden = json.integer("hidden_size", 0);
  c.ffn = json.integer("ffn_hidden_size", 0);
  c.heads = json.integer("num_attention_heads", 0);
  c.kv_heads = json.boolean("multi_query_attention", false) ? json.integer("multi_query_group_num", 0) : c.heads;
  c.head_dim = json.integer("kv_channels", 128);
  c.window = json.integer("seq_length", 0);
  c.norm_epsilon = static_cast<float>(json.number("layernorm_epsilon", 1e-5));
  c.vocabulary = json.integer("padded_vocab_size", 0);
  c.qkv_bias = json.boolean("add_qkv_bias", false);
  c.rope.dims = c.head_dim / 2;
  LONGVIEW_CHECK(json.boolean("rmsnorm", true) && json.boolean("post_layer_norm", true) &&
                     !json.boolean("apply_residual_connection_post_layernorm", false) &&
                     !json.boolean("add_bias_linear", false),
                 kUnsupportedArchitecture,
                 "The model %s is of an older kind of chatglm, which Longview does not run. It runs GLM-4.",
                 json.path().c_str());
}

RopeScaling chatglm_rope(const Members& json) {
  RopeScaling scaling;
  scaling.theta = 10000 * json.number("rope_ratio", 1.0);
  return scaling;
}

// A model of pictures and text keeps what is of its language model in an object of its own.
const Json& text_config(const ModelFile& file) {
  const Json& config = file.config();
  const Json *type = config.find("model_type"), *text = config.find("text_config");
  if (!type || !type->string() || (*type->string() != "mistral3" && *type->string() != "gemma3" && *type->string() != "qwen3_5" && *type->string() != "qwen3_5_moe")) return config;
  if (!text || !text->object()) throw_corrupt(file.path(), "its config.json has no text_config");
  return *text;
}

}  // namespace

TextPart text_part(const ModelFile& file) {
  if (file.find("language_model.model.embed_tokens.weight")) return {"language_model.model.", "language_model.lm_head.weight"};
  if (file.find("model.language_model.embed_tokens.weight")) return {"model.language_model.", "lm_head.weight"};
  return {};
}

ModelConfig read_json_config(const ModelFile& file) {
  const std::string& path = file.path();
  if (!file.config().object()) throw_corrupt(path, "its config.json is not an object");
  const Members json(text_config(file), path);
  const TextPart part = text_part(file);
  ModelConfig c;
  const std::string architecture = json.text("model_type", "");
  if (architecture.empty())
    throw_corrupt(path, "its config.json does not name its architecture (model_type)");
  LONGVIEW_CHECK(architecture != "gpt_oss" && architecture != "gpt-oss", kUnsupportedArchitecture, "The model %s is a gpt-oss in safetensors, which Longview reads as a GGUF file alone: choose one of it.", path.c_str());
  set_architecture(architecture, path, c);
  for (const Members& members : {Members(file.config(), path), json}) refuse_what_the_graph_lacks(members);
  if (architecture == "chatglm") {
    read_chatglm(json, c);
    check_sizes(c, path);
    build_rope(chatglm_rope(json), path, c.rope);
    return c;
  }

  c.name = json.text("_name_or_path", "");
  c.layers = json.integer("num_hidden_layers", 0);
  c.hidden = json.integer("hidden_size", 0);
  c.ffn = json.integer("intermediate_size", 0);
  if (has_experts(architecture)) read_experts(json, c);
  if (is_hybrid(architecture)) c.recurrent = read_recurrent(json, c.layers);
  const bool gemma3 = is_gemma3(architecture);  // whose published configurations leave out what transformers has for them
  c.heads = json.integer("num_attention_heads", gemma3 ? 8 : 0);
  c.kv_heads = json.integer("num_key_value_heads", gemma3 ? 4 : c.heads);
  c.head_dim = json.integer("head_dim", gemma3 ? 256 : c.heads > 0 ? c.hidden / c.heads : 0);
  c.window = json.integer("max_position_embeddings", gemma3 ? 131072 : 0);
  const bool glm = architecture == "glm" || architecture == "glm4";
  c.norm_epsilon = static_cast<float>(json.number("rms_norm_eps", glm ? 1.5625e-7 : architecture == "phi3" ? 1e-5 : 1e-6));
  c.vocabulary = json.integer("vocab_size", gemma3 ? 262208 : 0);
  c.qkv_bias = c.architecture == "qwen2" || file.find(part.model + "layers.0.self_attn.q_proj.bias") != nullptr;
  c.tied_embeddings = json.boolean("tie_word_embeddings", file.find(part.output) == nullptr);

  const Members rope = rope_members(json);
  const double partial = rope.number("partial_rotary_factor", json.number("partial_rotary_factor", glm ? 0.5 : is_hybrid(architecture) ? 0.25 : 1.0));
  if (!(partial > 0 && partial <= 1)) throw_corrupt(path, "its partial_rotary_factor is not between 0 and 1");
  c.rope.dims = static_cast<int64_t>(static_cast<double>(c.head_dim) * partial);
  check_sizes(c, path);
  const bool granite = architecture == "granite";
  const auto is_known = [&](std::string_view key) { return granite && (key == "attention_multiplier" || key == "embedding_multiplier" || key == "residual_multiplier" || key == "logits_scaling"); };
  refuse_unknown_steps({[&](const char* key, double fallback) { return is_known(key) ? fallback : json.number(key, fallback); }, [&](const char* key, bool fallback) { return json.boolean(key, fallback); }},
                       c.head_dim, path);
  const RopeScaling scaling = read_scaling(json, rope, c.window, gemma3 ? 1e6 : 1e4);
  build_rope(scaling, path, c.rope);
  if (architecture == "ministral3") set_query_growth(rope.number("llama_4_scaling_beta", 0.0), scaling.settings.original_window, path, c.rope);
  if (scaling.type == "yarn")
    c.window =
        std::max<int64_t>(c.window, std::llround(scaling.settings.factor * scaling.settings.original_window));
  if (granite) set_granite(c, {json.number("embedding_multiplier", 1), json.number("residual_multiplier", 1), json.number("attention_multiplier", 1), json.number("logits_scaling", 1)}, path);
  if (gemma3) read_gemma3(json, rope_members(json, true), c);
  else read_sliding(json, c);
  if (const int64_t span = first_chunk(json); span > 0)
    limit_window(c, span, "Beyond that it attends in chunks");
  return c;
}

}  // namespace longview
