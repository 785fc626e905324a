// From a model file's own words to ModelConfig: one reader a format, and the checks that both share.
#pragma once

#include <functional>
#include <string>

#include "model/config.h"
#include "model/model_file.h"

namespace longview {

// Reads and range-checks the configuration of a model. Throws kUnsupportedArchitecture (named) or
// kFileCorrupt.
ModelConfig read_config(const ModelFile& file);

ModelConfig read_gguf_config(const ModelFile& file);  // config_gguf.cpp
ModelConfig read_json_config(const ModelFile& file);  // config_json.cpp

// Sets the flags of the graph that the architecture alone decides. Throws kUnsupportedArchitecture unless the
// graph runs `name`.
void set_architecture(const std::string& name, const std::string& path, ModelConfig& config);
// What transformers' names of a language model begin with, and that of its output matrix: a model of pictures and text has others.
struct TextPart {
  std::string model = "model.", output = "lm_head.weight";
};
TextPart text_part(const ModelFile& file);

// Whether its layers are mixtures of experts.
bool has_experts(const std::string& architecture);
// And whether one of them is every token's.
bool shares_expert(const std::string& architecture);
// Whether some of its layers are recurrent.
bool is_gemma3(const std::string& architecture);
bool is_hybrid(const std::string& architecture);
// Throws kUnsupportedArchitecture unless, of the first `layers`, those attend that the last of every `interval` is.
void check_pattern(int64_t layers, int64_t interval, const std::function<bool(int64_t layer)>& attends, const std::string& path);
// Queries that grow with the position (RopeConfig::query_scale), of an architecture that has them.
void set_query_growth(double growth, double span, const std::string& path, RopeConfig& rope);
// Everything but RoPE: sizes in range, heads that fit. Called before memory is taken by them.
void check_sizes(const ModelConfig& config, const std::string& path);
// Layers that see no more than a span; without effect where that is the whole window. Called when the window is known.
// What Gemma 3 has beside its architecture: scores are divided by the root of `scores_of`, and layers that slide have a theta of their own.
void set_gemma3(ModelConfig& config, const SlidingConfig& sliding, double sliding_theta, double scores_of, const std::string& path);
// Granite's: of embeddings, of what its layers add, of scores in the place of 1/sqrt(head_dim), and what logits are divided by.
struct GraniteScales {
  double embeddings, residual, scores, logits;
};
// Gives the graph, which has no such steps, numbers by which it computes the same. Called when RoPE is built.
void set_granite(ModelConfig& config, const GraniteScales& scales, const std::string& path);
void set_sliding(ModelConfig& config, const SlidingConfig& sliding);
// Clamps the window to `span` tokens, within which a model whose layers see no further is the same as one
// that sees all, and leaves a note for people. No effect where the window is no larger.
void limit_window(ModelConfig& config, int64_t span, const std::string& why);
// The same where some layers, and it is not known which, see no more than `span` tokens.
void limit_to_span(ModelConfig& config, int64_t span);

}  // namespace longview
