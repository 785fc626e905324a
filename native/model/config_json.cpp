// The configuration in a Hugging Face config.json, in the spellings of transformers 4 (rope_theta,
// rope_scaling) and 5 (rope_parameters).
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "model/read_config.h"
#include "model/rope.h"

namespace longview {
namespace {

const Json& rope_object(const Json& config) {
  static const Json kNone;
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (const Json* found = config.find(key); found && found->object()) return *found;
  return kNone;
}

RopeScaling read_scaling(const Json& config, const Json& s, int64_t window) {
  const auto number = [&](const char* key, double fallback) {
    return s.number_or(key, config.number_or(key, fallback));
  };
  RopeScaling rope;
  rope.type = s.string_or("rope_type", s.string_or("type", "default"));
  rope.theta = number("rope_theta", 10000.0);
  const auto whole = static_cast<double>(window);
  rope.settings.original_window = number("original_max_position_embeddings", whole);
  // Where YaRN gives no factor it is what the window was stretched by.
  const double stretched = rope.type == "yarn" ? whole / std::max(rope.settings.original_window, 1.0) : 0.0;
  rope.settings.factor = s.number_or("factor", stretched);
  rope.settings.beta_fast = s.number_or("beta_fast", 32.0);
  rope.settings.beta_slow = s.number_or("beta_slow", 1.0);
  rope.settings.attention_factor = s.number_or("attention_factor", 0.0);
  rope.settings.mscale = s.number_or("mscale", 0.0);
  rope.settings.mscale_all_dim = s.number_or("mscale_all_dim", 0.0);
  rope.settings.truncate = s.bool_or("truncate", true);
  rope.low_frequency_factor = s.number_or("low_freq_factor", 1.0);
  rope.high_frequency_factor = s.number_or("high_freq_factor", 4.0);
  return rope;
}

// Tokens that every layer sees, or 0 where all see everything.
int64_t sliding_window(const Json& config, const std::string& architecture, const std::string& path) {
  bool sliding = architecture == "mistral" || config.bool_or("use_sliding_window", false);
  if (const Json* types = config.find("layer_types"); types && types->array()) {
    sliding = false;
    for (const Json& type : *types->array()) {
      const std::string name = type.string() ? *type.string() : "";
      LONGVIEW_CHECK(name == "full_attention" || name == "sliding_attention", kUnsupportedArchitecture,
                     "The model %s has layers of the type \"%s\", which Longview does not run.", path.c_str(),
                     printable(name).c_str());
      sliding = sliding || name == "sliding_attention";
    }
  }
  return sliding ? std::max<int64_t>(config.integer_or("sliding_window", 0), 0) : 0;
}

void refuse_what_the_graph_lacks(const Json& config, const std::string& path) {
  if (const Json* quantisation = config.find("quantization_config"); quantisation && !quantisation->is_null())
    LONGVIEW_THROW(
        kUnsupportedQuantization,
        "The model %s is quantised by \"%s\". Of safetensors Longview reads F32, F16 and BF16: choose the "
        "original model or a GGUF file.",
        path.c_str(), printable(quantisation->string_or("quant_method", "another tool")).c_str());
  const std::string activation = config.string_or("hidden_act", "silu");
  LONGVIEW_CHECK(activation == "silu", kUnsupportedArchitecture,
                 "The model %s uses the activation \"%s\", which Longview does not run. It runs silu.",
                 path.c_str(), printable(activation).c_str());
}

// Qwen2.5-1M attends in chunks beyond this; up to here that is the same as plain attention.
int64_t first_chunk(const Json& config) {
  const Json* chunks = config.find("dual_chunk_attention_config");
  if (!chunks || !chunks->object()) return 0;
  return chunks->integer_or("chunk_size", 0) - chunks->integer_or("local_size", 0);
}

}  // namespace

ModelConfig read_json_config(const ModelFile& file) {
  const std::string& path = file.path();
  const Json& json = file.config();
  LONGVIEW_CHECK(json.object(), kFileCorrupt, "The config.json of %s is damaged: it is not an object.",
                 path.c_str());
  ModelConfig c;
  c.architecture = json.string_or("model_type", "");
  LONGVIEW_CHECK(!c.architecture.empty(), kFileCorrupt,
                 "The config.json of %s is damaged: it does not name its architecture (model_type).",
                 path.c_str());
  check_architecture(c.architecture, path);
  refuse_what_the_graph_lacks(json, path);

  c.name = json.string_or("_name_or_path", "");
  c.layers = json.integer_or("num_hidden_layers", 0);
  c.hidden = json.integer_or("hidden_size", 0);
  c.ffn = json.integer_or("intermediate_size", 0);
  c.heads = json.integer_or("num_attention_heads", 0);
  c.kv_heads = json.integer_or("num_key_value_heads", c.heads);
  c.head_dim = json.integer_or("head_dim", c.heads > 0 ? c.hidden / c.heads : 0);
  c.window = json.integer_or("max_position_embeddings", 0);
  c.norm_epsilon = static_cast<float>(json.number_or("rms_norm_eps", 1e-6));
  c.vocabulary = json.integer_or("vocab_size", 0);
  c.qkv_bias = c.architecture == "qwen2" || file.find("model.layers.0.self_attn.q_proj.bias") != nullptr;
  c.qk_norm = c.architecture == "qwen3";
  c.tied_embeddings = json.bool_or("tie_word_embeddings", file.find("lm_head.weight") == nullptr);

  const Json& rope = rope_object(json);
  const double partial =
      rope.number_or("partial_rotary_factor", json.number_or("partial_rotary_factor", 1.0));
  if (!(partial > 0 && partial <= 1)) throw_corrupt(path, "its partial_rotary_factor is not between 0 and 1");
  c.rope.pairing = RopePairing::kHalfSplit;
  c.rope.dims = static_cast<int64_t>(static_cast<double>(c.head_dim) * partial);
  check_sizes(c, path);
  const RopeScaling scaling = read_scaling(json, rope, c.window);
  build_rope(scaling, path, c.rope);
  if (scaling.type == "yarn")
    c.window =
        std::max<int64_t>(c.window, std::llround(scaling.settings.factor * scaling.settings.original_window));
  if (const int64_t span = sliding_window(json, c.architecture, path); span > 0)
    limit_window(c, span, format("Its layers see %lld tokens at a time", static_cast<long long>(span)));
  if (const int64_t span = first_chunk(json); span > 0)
    limit_window(c, span, "Beyond that it attends in chunks");
  return c;
}

}  // namespace longview
