// Every matrix of a model, as views into its mapped file: the map of the program.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "model/config.h"

namespace longview {

// Shapes are [rows, cols] = [out, in]; vectors are [1, n]. An absent matrix is an empty view. What a file fuses
// (Q, K and V; gate and up) is taken apart here by rows.
struct LayerWeights {
  TensorView attention_norm;  // [1, hidden]
  TensorView q, k, v;         // [heads * head_dim, hidden], with gates (ModelConfig::attention_gate) twice as many; [kv_heads * head_dim, hidden] twice
  TensorView q_bias, k_bias, v_bias;
  TensorView q_norm, k_norm;       // [1, head_dim]
  TensorView attention_output;     // [hidden, heads * head_dim], of a recurrent layer [hidden, value_dim]
  TensorView output_bias;          // [1, hidden], of attention_output
  TensorView sinks;                // [1, heads]
  TensorView attention_post_norm;  // [1, hidden]
  TensorView ffn_norm;             // [1, hidden]
  TensorView gate, up;             // [ffn, hidden]
  TensorView down;                 // [hidden, ffn]
  TensorView ffn_post_norm;        // [1, hidden]
  // In the place of Q, K and V, of a recurrent layer (RecurrentConfig).
  TensorView mixed;        // [channels, hidden]: its queries, keys and values
  TensorView output_gate;  // [value_dim, hidden]
  TensorView alpha, beta;  // [value_heads, hidden]: how much is forgotten, and how much of what is new is written
  TensorView taps;         // [1, channels * taps], a channel's together
  TensorView decay;        // [1, value_heads]: -exp(A_log)
  TensorView decay_bias;   // [1, value_heads]
  TensorView value_norm;   // [1, head_dim]
  // In the place of gate, up and down, of a mixture of experts; of each kind all have one type.
  TensorView router;                                            // [experts, hidden]
  std::vector<TensorView> expert_gates, expert_ups, expert_downs;  // [experts]
  TensorView router_bias;                                          // [1, experts]
  TensorView gate_biases, up_biases, down_biases;                  // [1, experts * ffn] twice, [1, experts * hidden]
  TensorView shared_gate, shared_up, shared_down;                  // of the expert that all share: as gate, up and down, of shared_ffn
  TensorView shared_router;                                        // [1, hidden]: by what its results count

  // Calls body(view) for every one but the router, alpha and beta, absent ones too, and for every one of the experts.
  template <typename Body>
  void each(const Body& body) const {
    for (const TensorView* view : {&attention_norm, &q, &k, &v, &q_bias, &k_bias, &v_bias, &q_norm, &k_norm, &attention_output,
                                   &output_bias, &sinks, &attention_post_norm, &ffn_norm, &gate, &up, &down, &ffn_post_norm, &mixed, &output_gate, &taps, &decay, &decay_bias, &value_norm, &router_bias, &gate_biases, &up_biases, &down_biases, &shared_gate, &shared_up, &shared_down, &shared_router})
      body(*view);
  }
  template <typename Body>
  void each_expert(const Body& body) const {
    for (const auto* kind : {&expert_gates, &expert_ups, &expert_downs})
      for (const TensorView& view : *kind) body(view);
  }
};

struct Weights {
  TensorView embedding;  // [vocabulary, hidden]
  std::vector<LayerWeights> layers;
  TensorView output_norm;  // [1, hidden]
  TensorView output;       // [vocabulary, hidden]; the embedding where they are tied
};

class ModelFile;

// Opens a GGUF file, a .safetensors file or a folder with config.json and (sharded) safetensors. Checks that
// every matrix of the graph is there with the right shape and a supported type. Throws Error with a sentence
// for the user.
struct Model {
  ModelConfig config;
  Weights weights;
  std::string fingerprint;  // hex; changes when the file's header, size or sampled content does
  int64_t parameters = 0;   // of the graph; tied matrices count once
  int64_t weight_bytes = 0;
  std::shared_ptr<const ModelFile> file;  // keeps the mapping alive
  std::deque<std::vector<std::byte>> made;  // what the file has in another form or order; views point into it
};

Model open_model(const std::string& path);

}  // namespace longview
