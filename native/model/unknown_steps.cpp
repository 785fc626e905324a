#include "model/unknown_steps.h"

#include <cmath>

#include "base/error.h"

namespace longview {
namespace {

// Where a number says that there is no such step, beside 0 and where it is absent.
enum class None { kZero, kOne, kRootOfHead };

struct Step {
  const char *gguf, *hub, *what;  // null where a format has no such key
  None none = None::kZero;
};
constexpr Step kNumbers[] = {
    {"attn_logit_softcapping", "attn_logit_softcapping", "caps the scores of its attention"},
    {"final_logit_softcapping", "final_logit_softcapping", "caps its logits"},
    {"attention.clamp_kqv", "clip_qkv", "clips queries, keys and values"},
    {"attention.max_alibi_bias", nullptr, "lowers the scores of its attention with the distance"},
    {"attention.temperature_scale", nullptr, "scales the scores of its attention with the position"},
    {"attention.scale", "attention_multiplier", "scales the scores of its attention in its own way", None::kRootOfHead},
    {"embedding_scale", "embedding_multiplier", "scales its embeddings", None::kOne},
    {"residual_scale", "residual_multiplier", "scales what its layers add", None::kOne},
    {"logit_scale", "logits_scaling", "scales its logits", None::kOne},
    {"rope.scaling_beta", nullptr, "lets its queries grow in the form that Ollama's own files have"},
    {"expert_weights_scale", nullptr, "scales what its experts give", None::kOne},
    {nullptr, "logit_scale", "scales its logits", None::kOne},
};

struct Choice {
  const char *gguf, *hub, *what;
  bool plain;  // what the graph does
};
constexpr Choice kChoices[] = {
    {"attention.causal", "is_causal", "lets tokens see what follows them", true},
    {"use_parallel_residual", nullptr, "runs attention and feed-forward side by side", false},
    {nullptr, "use_bidirectional_attention", "lets tokens see what follows them", false},
    {nullptr, "alibi", "lowers the scores of its attention with the distance", false},
};

bool is_none(const Step& step, double value, int64_t head_dim) {
  if (value == 0 || (step.none == None::kOne && value == 1)) return true;
  // A float of the file's, or a rounded one.
  return step.none == None::kRootOfHead && std::fabs(value * std::sqrt(static_cast<double>(head_dim)) - 1) < 1e-4;
}

}  // namespace

void refuse_unknown_steps(const StatedSteps& stated, int64_t head_dim, const std::string& path) {
  const auto require = [&](bool holds, const char* what, const char* key) {
    LONGVIEW_CHECK(holds, kUnsupportedArchitecture, "The model %s %s (%s), which Longview does not run.", path.c_str(), what, key);
  };
  for (const Step& step : kNumbers)
    if (const char* key = stated.gguf ? step.gguf : step.hub) require(is_none(step, stated.number(key, 0), head_dim), step.what, key);
  for (const Choice& choice : kChoices)
    if (const char* key = stated.gguf ? choice.gguf : choice.hub) require(stated.boolean(key, choice.plain) == choice.plain, choice.what, key);
}

}  // namespace longview
