// What the graph's matrices are called in a file.
#pragma once

#include <string>

#include "model/model_file.h"

namespace longview {

struct ModelConfig;

// Those of a layer stand between `layer` + its number and ".weight" or ".bias". Null where no file of the format has them.
struct TensorNames {
  std::string embedding, output_norm, output, layer;
  const char *attention_norm, *q, *k, *v, *qkv, *q_norm, *k_norm, *attention_output, *attention_post_norm;
  const char *ffn_norm, *gate, *up, *gate_up, *down, *ffn_post_norm;
  // Of experts: their matrices lie in one tensor where `experts` is null, else in one for each, `experts` + number + name. Or gate's and up's
  // of each lie together in one, and down's in another, of names that stand here whole.
  const char *router, *experts, *expert_gate, *expert_up, *expert_down, *experts_gate_up, *experts_down;
  const char *shared_gate, *shared_up, *shared_down, *shared_router;
  const char* sinks;  // with all that follows the layer's number
  // Of a recurrent layer; the last four with all that follows the layer's number. `beta_alpha`: both of them, by key head.
  const char *mixed, *output_gate, *alpha, *beta, *beta_alpha, *recurrent_output, *taps, *decay, *decay_bias, *value_norm;
};

TensorNames names_of(const ModelFile& file, const ModelConfig& config);

}  // namespace longview
