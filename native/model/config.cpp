#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/error.h"
#include "base/text.h"
#include "model/read_config.h"
#include "model/rope.h"

namespace longview {

bool has_experts(const std::string& architecture) { return architecture == "gpt-oss" || architecture == "qwen3moe" || architecture == "qwen3_moe" || shares_expert(architecture); }
bool shares_expert(const std::string& architecture) { return architecture == "qwen3next" || architecture == "qwen35moe" || architecture == "qwen3_5_moe_text"; }

bool is_gemma3(const std::string& architecture) { return architecture == "gemma3" || architecture == "gemma3_text"; }

bool is_hybrid(const std::string& architecture) { return architecture == "qwen35" || architecture == "qwen3_5_text" || shares_expert(architecture); }

void set_architecture(const std::string& name, const std::string& path, ModelConfig& config) {
  constexpr const char* kKnown[] = {"llama", "mistral", "mistral3", "ministral3", "qwen2", "qwen3", "qwen3moe", "qwen3_moe", "qwen3next", "qwen35", "qwen3_5_text", "qwen35moe", "qwen3_5_moe_text", "glm", "glm4", "chatglm", "phi3", "gpt-oss", "gemma3", "gemma3_text", "granite"};
  LONGVIEW_CHECK(std::find(std::begin(kKnown), std::end(kKnown), name) != std::end(kKnown),
                 kUnsupportedArchitecture,
                 "The model %s is of the architecture \"%s\", which Longview does not run. It runs llama, "
                 "mistral, mistral3, qwen2, qwen3, qwen3moe, qwen3next, qwen35, qwen35moe, glm, glm4, chatglm, phi3, gpt-oss, gemma3 and granite.",
                 path.c_str(), printable(name).c_str());
  config.architecture = name;
  const bool glm = name == "glm" || name == "glm4" || name == "chatglm";
  if (glm) config.rope.pairing = RopePairing::kAdjacent;
  config.qk_norm = name.starts_with("qwen3") || is_gemma3(name);
  config.attention_gate = is_hybrid(name);
  config.post_norms = name == "glm4" || is_gemma3(name);
  if (is_gemma3(name)) config.gate_curve = kTanhGelu;
  config.fused_gate_up = glm || name == "phi3";
  config.output_bias = config.attention_sinks = config.expert_biases = config.clamped_experts = name == "gpt-oss";
}

void check_sizes(const ModelConfig& c, const std::string& path) {
  const auto between = [&](int64_t value, int64_t least, int64_t most, const char* what) {
    if (value < least || value > most)
      throw_corrupt(path, format("its %s, %lld, is out of range", what, static_cast<long long>(value)));
  };
  between(c.layers, 1, 1024, "number of layers");
  between(c.hidden, 1, 1 << 20, "hidden size");
  between(c.ffn, 1, 1 << 22, "feed-forward size");
  if (has_experts(c.architecture)) between(c.experts, 2, 4096, "number of experts");
  if (c.experts > 0) between(c.experts_used, 1, c.experts, "number of experts for a token");
  if (shares_expert(c.architecture)) between(c.shared_ffn, 1, 1 << 22, "feed-forward size of the shared expert");
  between(c.heads, 1, 4096, "number of heads");
  between(c.kv_heads, 1, c.heads, "number of KV heads");
  between(c.head_dim, 2, 1 << 16, "head size");
  between(c.vocabulary, 1, 1 << 24, "vocabulary");
  between(c.window, 1, int64_t{1} << 31, "window");
  between(c.rope.dims, 2, c.head_dim, "number of rotated dimensions");
  between(c.sliding.span, 0, int64_t{1} << 31, "number of tokens that its layers see");
  if (const RecurrentConfig& r = c.recurrent; is_hybrid(c.architecture)) {
    between(r.interval, 1, c.layers, "number of layers of which one attends");
    between(r.key_heads, 1, 4096, "number of recurrent key heads");
    between(r.value_heads, r.key_heads, 4096, "number of recurrent value heads");
    between(r.head_dim, 1, 1 << 16, "recurrent head size");
    between(r.taps, 1, 1 << 16, "width of its convolution");
    if (r.value_heads % r.key_heads != 0) throw_corrupt(path, "its recurrent value heads are no multiple of its key heads");
    LONGVIEW_CHECK(c.layers % r.interval == 0, kUnsupportedArchitecture, "The last layer of the model %s is recurrent, which Longview does not run.", path.c_str());
    LONGVIEW_CHECK(r.head_dim % 16 == 0 && r.head_dim <= 128 && r.taps == 4, kUnsupportedArchitecture,
                   "The model %s has recurrent heads of %lld dimensions behind a convolution of %lld inputs; Longview runs multiples of 16 up to 128, and 4.", path.c_str(),
                   static_cast<long long>(r.head_dim), static_cast<long long>(r.taps));
  }
  if (c.heads % c.kv_heads != 0) throw_corrupt(path, "its query heads are no multiple of its KV heads");
  LONGVIEW_CHECK(c.head_dim <= 256 && c.head_dim % 2 == 0, kUnsupportedArchitecture,
                 "The model %s has heads of %lld dimensions; Longview runs even sizes up to 256.",
                 path.c_str(), static_cast<long long>(c.head_dim));
  LONGVIEW_CHECK(c.rope.dims % 2 == 0, kFileCorrupt,
                 "The model %s is damaged: it rotates an odd number of dimensions.", path.c_str());
  if (!(c.norm_epsilon > 0 && c.norm_epsilon < 1))
    throw_corrupt(path, "its norm epsilon is not between 0 and 1");
}

void check_pattern(int64_t layers, int64_t interval, const std::function<bool(int64_t layer)>& attends, const std::string& path) {
  for (int64_t i = 0; i < layers; ++i)
    LONGVIEW_CHECK(attends(i) == ((i + 1) % interval == 0), kUnsupportedArchitecture,
                   "The recurrent layers of the model %s follow another pattern than that the last of every %lld attends, which Longview does not run.", path.c_str(), static_cast<long long>(interval));
}

void set_query_growth(double growth, double span, const std::string& path, RopeConfig& rope) {
  if (growth == 0) return;
  if (!(growth > 0 && growth <= 100 && span >= 1 && span <= 1e9)) throw_corrupt(path, format("the growth of its queries, %g over %g tokens, is out of range", growth, span));
  rope.query_growth = growth;
  rope.query_span = static_cast<int64_t>(span);
}

void set_gemma3(ModelConfig& config, const SlidingConfig& sliding, double sliding_theta, double scores_of, const std::string& path) {
  if (sliding.span < 1) throw_corrupt(path, "it does not say how many tokens its layers see that slide");
  if (sliding.interval < 1) throw_corrupt(path, "it does not say which of its layers slide");
  if (!(sliding_theta > 1 && sliding_theta <= 1e15 && scores_of >= 1 && scores_of <= 1e6)) throw_corrupt(path, format("the RoPE theta of its layers that slide, %g, or what its scores are divided by the root of, %g, is out of range", sliding_theta, scores_of));
  config.sliding = sliding;
  if (sliding.interval > config.layers) config.sliding.interval = 0;
  config.rope.sliding_inverse_frequencies = plain_frequencies(sliding_theta, config.rope.dims);
  config.query_scale = std::sqrt(static_cast<double>(config.head_dim) / scores_of);
  config.embedding_scale = std::sqrt(static_cast<double>(config.hidden));
}

void set_granite(ModelConfig& config, const GraniteScales& scales, const std::string& path) {
  for (const double scale : {scales.embeddings, scales.residual, scales.scores, scales.logits})
    if (!(scale >= 1e-4 && scale <= 1e4)) throw_corrupt(path, format("one of its scales, %g, is out of range", scale));
  if (config.rope.dims != config.head_dim) throw_corrupt(path, "it rotates parts of its heads alone");
  // h + r f(norm(h)) is r (H + f(norm(H))) for H = h / r: what embeddings begin with, and what a norm adds to its mean square, are scaled instead.
  config.embedding_scale = scales.embeddings / scales.residual;
  config.norm_epsilon = static_cast<float>(static_cast<double>(config.norm_epsilon) / (scales.residual * scales.residual));
  // Queries and keys both go through cos and sin.
  config.rope.attention_scale *= std::sqrt(scales.scores * std::sqrt(static_cast<double>(config.head_dim)));
  config.logit_scale = 1 / scales.logits;
}

void set_sliding(ModelConfig& config, const SlidingConfig& sliding) {
  if (sliding.span < config.window) config.sliding = sliding;
}

void limit_window(ModelConfig& config, int64_t span, const std::string& why) {
  if (config.window <= span) return;
  config.note = format("%s, so Longview uses it up to %lld tokens instead of %lld.", why.c_str(),
                       static_cast<long long>(span), static_cast<long long>(config.window));
  config.window = span;
}

void limit_to_span(ModelConfig& config, int64_t span) { limit_window(config, span, format("Some of its layers see %lld tokens at a time", static_cast<long long>(span))); }

ModelConfig read_config(const ModelFile& file) {
  ModelConfig config =
      file.format() == ModelFile::Format::kGguf ? read_gguf_config(file) : read_json_config(file);
  check_sizes(config, file.path());
  for (const auto* frequencies : {&config.rope.inverse_frequencies, &config.rope.long_inverse_frequencies, &config.rope.sliding_inverse_frequencies})
    for (const double frequency : *frequencies)
      if (!(std::isfinite(frequency) && frequency >= 0 && frequency < 1e6))
        throw_corrupt(file.path(), "its RoPE frequencies are out of range");
  return config;
}

}  // namespace longview
