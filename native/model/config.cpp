#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/half.h"
#include "model/model_file.h"
#include "model/read_config.h"
#include "model/rope.h"

namespace longview {
namespace {

constexpr const char* kSupported = "llama, mistral, qwen2 and qwen3";

void check_architecture(const std::string& name, const std::string& path) {
  LONGVIEW_CHECK(name == "llama" || name == "mistral" || name == "qwen2" || name == "qwen3", kUnsupportedArchitecture,
                 "The model %s is of the architecture \"%s\", which Longview does not run. It runs %s.", path.c_str(), name.c_str(), kSupported);
}

int64_t required(const ModelFile& file, const std::string& key) {
  const int64_t value = file.integer_or(key, -1);
  LONGVIEW_CHECK(value > 0, kFileCorrupt, "The model file %s is damaged: %s is missing or no positive number.", file.path().c_str(), key.c_str());
  return value;
}

int64_t required(const ModelFile& file, const char* key) {
  const int64_t value = file.config().integer_or(key, -1);
  LONGVIEW_CHECK(value > 0, kFileCorrupt, "config.json of %s is damaged: %s is missing or no positive number.", file.path().c_str(), key);
  return value;
}

void check(const ModelConfig& c, const std::string& path) {
  const auto require = [&](bool holds, const char* what) {
    LONGVIEW_CHECK(holds, kFileCorrupt, "The model %s is damaged: %s.", path.c_str(), what);
  };
  require(c.layers <= 1024, "it has an impossible number of layers");
  require(c.hidden <= 1 << 20 && c.ffn <= 1 << 22, "its layers have an impossible width");
  require(c.heads <= 4096 && c.kv_heads <= c.heads && c.heads % c.kv_heads == 0, "its query heads are no multiple of its KV heads");
  require(c.head_dim >= 2 && c.head_dim <= 256 && c.head_dim % 2 == 0, "its head dimension is odd or above 256");
  require(c.vocabulary <= 1 << 24, "its vocabulary is impossibly large");
  require(c.window <= int64_t{1} << 31, "its window is impossibly large");
  require(c.norm_epsilon > 0 && c.norm_epsilon < 1, "its norm epsilon is not between 0 and 1");
  require(c.rope.dims >= 2 && c.rope.dims <= c.head_dim && c.rope.dims % 2 == 0, "its RoPE dimensions do not fit its heads");
  require(static_cast<int64_t>(c.rope.inverse_frequencies.size()) == c.rope.dims / 2, "its RoPE factors do not fit its heads");
  for (const double frequency : c.rope.inverse_frequencies)
    require(std::isfinite(frequency) && frequency >= 0 && frequency < 1e6, "its RoPE frequencies are out of range");
  require(std::isfinite(c.rope.attention_scale) && c.rope.attention_scale > 0, "its RoPE attention factor is out of range");
}

void require_theta(double theta, const std::string& path) {
  LONGVIEW_CHECK(theta > 1 && theta < 1e15, kFileCorrupt, "The model %s is damaged: RoPE theta %g is out of range.", path.c_str(), theta);
}

void require_factor(double factor, double original, bool needs_original, const std::string& path) {
  LONGVIEW_CHECK(factor > 0 && factor < 1e6 && (!needs_original || (original >= 1 && original < 1e10)), kFileCorrupt,
                 "The model %s is damaged: its RoPE scaling (factor %g, original window %g) is out of range.", path.c_str(), factor, original);
}

RopeConfig gguf_rope(const ModelFile& file, const std::string& arch, int64_t head_dim) {
  RopeConfig rope;
  rope.pairing = arch == "llama" || arch == "mistral" ? RopePairing::kAdjacent : RopePairing::kHalfSplit;
  rope.dims = file.integer_or(arch + ".rope.dimension_count", head_dim);
  LONGVIEW_CHECK(rope.dims >= 2 && rope.dims <= head_dim && rope.dims % 2 == 0, kFileCorrupt, "The model file %s is damaged: its RoPE dimensions do not fit its heads.", file.path().c_str());
  const double theta = file.number_or(arch + ".rope.freq_base", 10000.0);
  require_theta(theta, file.path());
  rope.inverse_frequencies = plain_frequencies(theta, rope.dims);
  const std::string scaling = file.string_or(arch + ".rope.scaling.type", "none");
  const double factor = file.number_or(arch + ".rope.scaling.factor", 1.0);
  const double original = file.number_or(arch + ".rope.scaling.original_context_length", 0.0);
  if (scaling == "linear") {
    require_factor(factor, original, false, file.path());
    for (double& frequency : rope.inverse_frequencies) frequency /= factor;
  } else if (scaling == "yarn") {
    require_factor(factor, original, true, file.path());
    rope.attention_scale = scale_yarn(rope.inverse_frequencies, theta, {.factor = factor, .original_window = original});
  } else {
    LONGVIEW_CHECK(scaling == "none", kUnsupportedArchitecture, "The model %s scales its positions by \"%s\", which Longview does not know.", file.path().c_str(), scaling.c_str());
  }
  // Llama 3.1's scaling arrives as divisors of the frequencies.
  if (const StoredTensor* factors = file.find("rope_freqs.weight")) {
    LONGVIEW_CHECK(factors->view.type == DType::kF32 && factors->view.rows * factors->view.cols == rope.dims / 2, kFileCorrupt,
                   "The model file %s is damaged: rope_freqs.weight does not fit its heads.", file.path().c_str());
    for (size_t i = 0; i < rope.inverse_frequencies.size(); ++i)
      rope.inverse_frequencies[i] /= static_cast<double>(load<float>(factors->view.data + 4 * i));
  }
  return rope;
}

ModelConfig read_gguf_config(const ModelFile& file) {
  ModelConfig c;
  c.architecture = file.string_or("general.architecture", "");
  LONGVIEW_CHECK(!c.architecture.empty(), kFileCorrupt, "The model file %s is damaged: it does not name its architecture.", file.path().c_str());
  check_architecture(c.architecture, file.path());
  const std::string& arch = c.architecture;
  c.name = file.string_or("general.name", "");
  c.layers = required(file, arch + ".block_count");
  c.hidden = required(file, arch + ".embedding_length");
  c.ffn = required(file, arch + ".feed_forward_length");
  c.heads = required(file, arch + ".attention.head_count");
  c.kv_heads = file.integer_or(arch + ".attention.head_count_kv", c.heads);
  LONGVIEW_CHECK(c.kv_heads > 0, kFileCorrupt, "The model file %s is damaged: it has no KV heads.", file.path().c_str());
  c.head_dim = file.integer_or(arch + ".attention.key_length", c.hidden / c.heads);
  LONGVIEW_CHECK(file.integer_or(arch + ".attention.value_length", c.head_dim) == c.head_dim, kUnsupportedArchitecture, "The model %s has keys and values of different widths, which Longview does not run.", file.path().c_str());
  LONGVIEW_CHECK(file.integer_or(arch + ".expert_count", 0) == 0, kUnsupportedArchitecture, "The model %s is a mixture of experts, which Longview does not run yet.", file.path().c_str());
  c.window = required(file, arch + ".context_length");
  c.norm_epsilon = static_cast<float>(file.number_or(arch + ".attention.layer_norm_rms_epsilon", 1e-5));
  const StoredTensor* embedding = file.find("token_embd.weight");
  LONGVIEW_CHECK(embedding, kFileCorrupt, "The model file %s is damaged: token_embd.weight is missing.", file.path().c_str());
  c.vocabulary = embedding->view.rows;
  c.qkv_bias = file.find("blk.0.attn_q.bias") != nullptr;
  c.qk_norm = file.find("blk.0.attn_q_norm.weight") != nullptr;
  c.tied_embeddings = file.find("output.weight") == nullptr;
  c.rope = gguf_rope(file, arch, c.head_dim);
  return c;
}

RopeConfig json_rope(const ModelFile& file, int64_t head_dim, int64_t window) {
  const Json& config = file.config();
  // transformers 5 writes rope_parameters; before it was rope_theta and rope_scaling.
  const Json* scaling = config.find("rope_parameters");
  if (!scaling || !scaling->object()) scaling = config.find("rope_scaling");
  static const Json kNone;
  const Json& s = scaling && scaling->object() ? *scaling : kNone;
  const double theta = s.number_or("rope_theta", config.number_or("rope_theta", 10000.0));
  require_theta(theta, file.path());
  const double partial = s.number_or("partial_rotary_factor", config.number_or("partial_rotary_factor", 1.0));
  LONGVIEW_CHECK(partial > 0 && partial <= 1, kFileCorrupt, "config.json of %s is damaged: partial_rotary_factor is out of range.", file.path().c_str());
  RopeConfig rope;
  rope.dims = static_cast<int64_t>(static_cast<double>(head_dim) * partial) & ~int64_t{1};
  LONGVIEW_CHECK(rope.dims >= 2, kFileCorrupt, "config.json of %s is damaged: no dimension is rotated.", file.path().c_str());
  rope.inverse_frequencies = plain_frequencies(theta, rope.dims);
  const std::string type = s.string_or("rope_type", s.string_or("type", "default"));
  const double factor = s.number_or("factor", 1.0);
  const double original = s.number_or("original_max_position_embeddings", static_cast<double>(window));
  if (type == "linear") {
    require_factor(factor, original, false, file.path());
    for (double& frequency : rope.inverse_frequencies) frequency /= factor;
  } else if (type == "llama3") {
    require_factor(factor, original, true, file.path());
    const double low = s.number_or("low_freq_factor", 1.0), high = s.number_or("high_freq_factor", 4.0);
    LONGVIEW_CHECK(low > 0 && high > low, kFileCorrupt, "config.json of %s is damaged: its RoPE frequency factors are out of range.", file.path().c_str());
    scale_llama3(rope.inverse_frequencies, factor, low, high, original);
  } else if (type == "yarn") {
    require_factor(factor, original, true, file.path());
    rope.attention_scale = scale_yarn(rope.inverse_frequencies, theta,
                                      {.factor = factor,
                                       .original_window = original,
                                       .beta_fast = s.number_or("beta_fast", 32.0),
                                       .beta_slow = s.number_or("beta_slow", 1.0),
                                       .attention_factor = s.number_or("attention_factor", 0.0),
                                       .mscale = s.number_or("mscale", 0.0),
                                       .mscale_all_dim = s.number_or("mscale_all_dim", 0.0),
                                       .truncate = s.bool_or("truncate", true)});
  } else {
    LONGVIEW_CHECK(type == "default", kUnsupportedArchitecture, "The model %s scales its positions by \"%s\", which Longview does not know.", file.path().c_str(), type.c_str());
  }
  return rope;
}

ModelConfig read_json_config(const ModelFile& file) {
  const Json& j = file.config();
  LONGVIEW_CHECK(j.object(), kFileCorrupt, "config.json of %s is not an object.", file.path().c_str());
  ModelConfig c;
  c.architecture = j.string_or("model_type", "");
  check_architecture(c.architecture, file.path());
  c.layers = required(file, "num_hidden_layers");
  c.hidden = required(file, "hidden_size");
  c.ffn = required(file, "intermediate_size");
  c.heads = required(file, "num_attention_heads");
  c.kv_heads = j.integer_or("num_key_value_heads", c.heads);
  LONGVIEW_CHECK(c.kv_heads > 0, kFileCorrupt, "config.json of %s is damaged: it has no KV heads.", file.path().c_str());
  c.head_dim = j.integer_or("head_dim", c.hidden / c.heads);
  c.window = required(file, "max_position_embeddings");
  // Layers that see only a window of tokens are not run; up to that window they are the same as the others.
  const bool sliding = c.architecture == "mistral" ? true : j.bool_or("use_sliding_window", false);
  if (const int64_t span = j.integer_or("sliding_window", 0); sliding && span > 0) c.window = std::min(c.window, span);
  c.norm_epsilon = static_cast<float>(j.number_or("rms_norm_eps", 1e-6));
  c.vocabulary = required(file, "vocab_size");
  c.qkv_bias = file.find("model.layers.0.self_attn.q_proj.bias") != nullptr;
  c.qk_norm = file.find("model.layers.0.self_attn.q_norm.weight") != nullptr;
  c.tied_embeddings = j.bool_or("tie_word_embeddings", false) || file.find("lm_head.weight") == nullptr;
  c.rope = json_rope(file, c.head_dim, c.window);
  return c;
}

}  // namespace

ModelConfig read_config(const ModelFile& file) {
  ModelConfig config = file.format() == ModelFile::Format::kGguf ? read_gguf_config(file) : read_json_config(file);
  check(config, file.path());
  return config;
}

}  // namespace longview
