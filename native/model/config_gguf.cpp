// The configuration in GGUF metadata. Keys: ggml's docs/gguf.md and llama.cpp's key table.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/half.h"
#include "base/text.h"
#include "model/read_config.h"
#include "model/rope.h"
#include "model/unknown_steps.h"

namespace longview {
namespace {

// An integer that some files give as a list with one entry a layer. The graph has one value for all layers.
int64_t same_in_all_layers(const ModelFile& file, const std::string& key, int64_t fallback) {
  const auto found = file.metadata().find(key);
  const auto* list =
      found == file.metadata().end() ? nullptr : std::get_if<std::vector<int64_t>>(&found->second);
  if (!list || list->empty()) return file.integer_or(key, fallback);
  LONGVIEW_CHECK(
      std::all_of(list->begin(), list->end(), [&](int64_t value) { return value == list->front(); }),
      kUnsupportedArchitecture, "The layers of the model %s differ in %s, which Longview does not run.",
      file.path().c_str(), printable(key).c_str());
  return list->front();
}

// Of so many layers the last sees everything: Gemma 3's number, where the file has no list of the layers that slide.
int64_t same_interval(const ModelFile& file, const std::string& arch, int64_t layers) {
  const std::string key = arch + ".attention.sliding_window_pattern";
  const auto found = file.metadata().find(key);
  const auto* list = found == file.metadata().end() ? nullptr : std::get_if<std::vector<bool>>(&found->second);
  if (!list) return file.integer_or(key, 6);
  const std::vector<bool> slides(list->begin(), list->begin() + std::min<int64_t>(layers, static_cast<int64_t>(list->size())));
  const SlidingConfig sliding{1, std::find(slides.begin(), slides.end(), false) - slides.begin() + 1};
  for (int64_t i = 0; i < layers; ++i)
    LONGVIEW_CHECK(i < static_cast<int64_t>(slides.size()) && slides[static_cast<size_t>(i)] == sliding.slides(i), kUnsupportedArchitecture,
                   "The layers of the model %s that slide follow another pattern than that the last of every %lld does not, which Longview does not run.", file.path().c_str(), static_cast<long long>(sliding.interval));
  return sliding.interval;
}

// One number for each pair of rotated dimensions; null where the file has none.
const StoredTensor* find_factors(const ModelFile& file, const char* name, int64_t dims) {
  const StoredTensor* factors = file.find(name);
  if (!factors) return nullptr;
  const TensorView& view = factors->view;
  if (view.empty() || view.type != DType::kF32 || view.rows != 1 || view.cols != dims / 2)
    throw_corrupt(file.path(), std::string(name) + " does not fit its heads");
  return factors;
}

std::vector<double> read_factors(const StoredTensor& factors) {
  std::vector<double> out(static_cast<size_t>(factors.view.cols));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<double>(load<float>(factors.view.data + 4 * i));
  return out;
}

RopeScaling read_scaling(const ModelFile& file, const std::string& arch, const ModelConfig& c) {
  const std::string scaling = arch + ".rope.scaling.";
  RopeScaling rope;
  rope.type = file.string_or(scaling + "type", "none");
  rope.theta = file.number_or(arch + ".rope.freq_base", 10000.0);
  rope.settings.factor = file.number_or(scaling + "factor", 0.0);
  rope.settings.original_window = file.number_or(scaling + "original_context_length", 0.0);
  // Of mistral3 it is mscale_all_dim, beside a mscale of 1.
  if (arch == "mistral3") rope.settings.mscale = 1, rope.settings.mscale_all_dim = file.number_or(scaling + "yarn_log_multiplier", 0.0);
  rope.settings.beta_fast = file.number_or(scaling + "yarn_beta_fast", 32.0);
  rope.settings.beta_slow = file.number_or(scaling + "yarn_beta_slow", 1.0);
  rope.settings.truncate = arch != "gpt-oss";  // which no key says
  rope.attention_multiplier =
      file.number_or(scaling + "attn_factor", 1.0) * file.number_or(scaling + "yarn_attn_factor", 1.0);
  // The older spelling of linear scaling.
  if (const double factor = file.number_or(arch + ".rope.scale_linear", 1.0);
      rope.type == "none" && factor != 1.0) {
    rope.type = "linear";
    rope.settings.factor = factor;
  }
  // LongRoPE arrives as two tensors; what the attention factor is of, its window and the one it was stretched from,
  // stands in the settings.
  const StoredTensor* near = find_factors(file, "rope_factors_short.weight", c.rope.dims);
  const StoredTensor* far = find_factors(file, "rope_factors_long.weight", c.rope.dims);
  if ((near == nullptr) != (far == nullptr)) throw_corrupt(file.path(), "it has one of the two tensors of LongRoPE, rope_factors_short.weight and rope_factors_long.weight");
  if (near) {
    rope.type = "longrope";
    rope.short_factors = read_factors(*near);
    rope.long_factors = read_factors(*far);
    rope.settings.attention_factor = file.number_or(scaling + "attn_factor", 0.0);
    rope.settings.factor = static_cast<double>(c.window) / std::max(rope.settings.original_window, 1.0);
    rope.attention_multiplier = 1;
  }
  return rope;
}

// Llama 3.1's scaling arrives as divisors of the frequencies.
void divide_by_stored_factors(const ModelFile& file, RopeConfig& rope) {
  const StoredTensor* factors = find_factors(file, "rope_freqs.weight", rope.dims);
  if (!factors) return;
  const std::vector<double> divisors = read_factors(*factors);
  rope.plain_theta = 0;
  for (size_t i = 0; i < divisors.size(); ++i) rope.inverse_frequencies[i] /= divisors[i];
}

// llama.cpp's keys, made for other recurrent models; heads of keys and of values are equally wide there.
RecurrentConfig read_recurrent(const ModelFile& file, const std::string& arch, int64_t layers) {
  const std::string ssm = arch + ".ssm.";
  RecurrentConfig r;
  r.interval = file.integer_or(arch + ".full_attention_interval", 4);
  r.key_heads = file.integer_or(ssm + "group_count", 0);
  r.value_heads = file.integer_or(ssm + "time_step_rank", 0);
  r.head_dim = file.integer_or(ssm + "state_size", 0);
  r.taps = file.integer_or(ssm + "conv_kernel", 0);
  r.tiled = arch != "qwen3next";
  const int64_t width = file.integer_or(ssm + "inner_size", 0);
  if (r.value_heads < 1 || width / r.value_heads != r.head_dim || width % r.value_heads != 0)
    throw_corrupt(file.path(), "its recurrent heads of keys and of values differ in width, or it does not say how wide they are");
  const auto found = file.metadata().find(arch + ".attention.recurrent_layers");
  const auto* list = found == file.metadata().end() ? nullptr : std::get_if<std::vector<bool>>(&found->second);
  if (!list || r.interval < 1) return r;
  check_pattern(std::min(layers, static_cast<int64_t>(list->size())), r.interval, [&](int64_t layer) { return !(*list)[static_cast<size_t>(layer)]; }, file.path());
  return r;
}

// Rows of the embedding: the vocabulary as the weights have it, padding included.
int64_t vocabulary_of(const ModelFile& file) {
  const StoredTensor* embedding = file.find("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2)
    throw_corrupt(file.path(), "token_embd.weight is missing or no matrix");
  const int64_t rows = embedding->shape[0];
  const auto found = file.metadata().find("tokenizer.ggml.tokens");
  const auto* tokens =
      found == file.metadata().end() ? nullptr : std::get_if<std::vector<std::string>>(&found->second);
  if (tokens && static_cast<int64_t>(tokens->size()) > rows)
    throw_corrupt(file.path(), "its tokenizer has more tokens than its embedding has rows");
  return rows;
}

}  // namespace

ModelConfig read_gguf_config(const ModelFile& file) {
  const std::string& path = file.path();
  ModelConfig c;
  const std::string arch = file.string_or("general.architecture", "");
  if (arch.empty()) throw_corrupt(path, "it does not name its architecture");
  set_architecture(arch, path, c);
  c.experts = file.integer_or(arch + ".expert_count", 0);
  c.experts_used = file.integer_or(arch + ".expert_used_count", 0);
  LONGVIEW_CHECK(c.experts == 0 || has_experts(arch), kUnsupportedArchitecture,
                 "The model %s is a mixture of experts of the architecture \"%s\". Longview runs those of qwen3moe, qwen3next, qwen35moe and gpt-oss.", path.c_str(), printable(arch).c_str());
  // llama.cpp's numbers: 0 where the file says nothing, 1 for softmax, 3 for softmax of those that are chosen, which is the same where their weights
  // add up to 1.
  const int64_t gating = file.integer_or(arch + ".expert_gating_func", 0);
  LONGVIEW_CHECK(gating <= 1 || (gating == 3 && arch == "gpt-oss"), kUnsupportedArchitecture,
                 "The model %s chooses its experts otherwise than by softmax (expert_gating_func), which Longview does not run.", path.c_str());

  c.name = file.string_or("general.name", "");
  // Layers that guess at further tokens (MTP) stand behind the others; the graph does without.
  c.layers = file.integer_or(arch + ".block_count", 0) - (is_hybrid(arch) ? std::max<int64_t>(file.integer_or(arch + ".nextn_predict_layers", 0), 0) : 0);
  c.hidden = file.integer_or(arch + ".embedding_length", 0);
  c.ffn = same_in_all_layers(file, arch + (c.experts > 0 ? ".expert_feed_forward_length" : ".feed_forward_length"), 0);
  if (shares_expert(arch)) c.shared_ffn = file.integer_or(arch + ".expert_shared_feed_forward_length", c.ffn);
  c.heads = same_in_all_layers(file, arch + ".attention.head_count", 0);
  c.kv_heads = same_in_all_layers(file, arch + ".attention.head_count_kv", c.heads);
  c.head_dim = file.integer_or(arch + ".attention.key_length", c.heads > 0 ? c.hidden / c.heads : 0);
  c.window = file.integer_or(arch + ".context_length", 0);
  c.norm_epsilon = static_cast<float>(file.number_or(arch + ".attention.layer_norm_rms_epsilon", 1e-5));
  c.vocabulary = vocabulary_of(file);
  c.qkv_bias = arch == "qwen2" || file.find("blk.0.attn_q.bias") || file.find("blk.0.attn_qkv.bias");
  c.tied_embeddings = file.find("output.weight") == nullptr;
  if (is_hybrid(arch)) c.recurrent = read_recurrent(file, arch, c.layers);
  if (arch == "llama" || arch == "mistral" || arch == "mistral3" || arch == "granite") c.rope.pairing = RopePairing::kAdjacent;  // by the converter
  c.rope.dims = file.integer_or(arch + ".rope.dimension_count", c.head_dim);
  check_sizes(c, path);
  LONGVIEW_CHECK(
      file.integer_or(arch + ".attention.value_length", c.head_dim) == c.head_dim, kUnsupportedArchitecture,
      "The model %s has keys and values of different widths, which Longview does not run.", path.c_str());

  const std::string growth = arch == "mistral3" ? "attention.temperature_scale" : "";
  const auto is_known = [&](std::string_view key) { return key == growth || (arch == "granite" && (key == "attention.scale" || key == "embedding_scale" || key == "residual_scale" || key == "logit_scale")); };
  refuse_unknown_steps({[&](const char* key, double fallback) { return is_known(key) ? fallback : file.number_or(arch + "." + key, fallback); },
                        [&](const char* key, bool fallback) { return file.bool_or(arch + "." + key, fallback); }, true},
                       c.head_dim, path);

  const RopeScaling scaling = read_scaling(file, arch, c);
  build_rope(scaling, path, c.rope);
  divide_by_stored_factors(file, c.rope);
  if (!growth.empty())
    set_query_growth(file.number_or(arch + "." + growth, 0.0), file.number_or(arch + ".rope.scaling.original_context_length", static_cast<double>(c.window)), path, c.rope);
  if (scaling.type == "yarn")
    c.window =
        std::max<int64_t>(c.window, std::llround(scaling.settings.factor * scaling.settings.original_window));
  if (const int64_t span = file.integer_or(arch + ".attention.sliding_window", 0); span > 0) {
    // Which layers slide stands in hardly any file.
    if (arch == "gpt-oss") set_sliding(c, {span, 2});
    else if (arch == "llama" || arch == "mistral" || arch == "phi3") set_sliding(c, {span, 0});
    else if (!is_gemma3(arch)) limit_to_span(c, span);
  }
  if (arch == "granite") {
    const auto scale = [&](const char* key, double fallback) { return file.number_or(arch + "." + key, fallback); };
    set_granite(c, {scale("embedding_scale", 1), scale("residual_scale", 1), scale("attention.scale", 1 / std::sqrt(static_cast<double>(c.head_dim))), scale("logit_scale", 1)}, path);
  }
  if (is_gemma3(arch)) {
    // That the scores of the largest model are not divided by the root of their width is known, but not said in the file.
    const int64_t scores_of = c.layers == 62 ? c.hidden / c.heads : c.head_dim;
    set_gemma3(c, {file.integer_or(arch + ".attention.sliding_window", 0), same_interval(file, arch, c.layers)}, file.number_or(arch + ".rope.freq_base_swa", 10000.0), static_cast<double>(scores_of), path);
  }
  // Qwen2.5-1M, whose GGUF files do not say that it attends in chunks of 262,144 tokens, the last 8,192 of which two have in common.
  if (arch == "qwen2" && c.window == 1010000) limit_window(c, 262144 - 8192, "Beyond that it attends in chunks");
  return c;
}

}  // namespace longview
