// What the graph needs to know about a model, read from GGUF metadata or a Hugging Face config.json.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/gate_curve.h"

namespace longview {

// Which dimensions of a head RoPE rotates together: (i, i + dims/2) or (2i, 2i + 1). GGUF files of `llama`
// hold Q and K rows permuted for the adjacent pairing, GLM has it by nature; everything else is half-split.
enum class RopePairing { kHalfSplit, kAdjacent };

struct RopeConfig {
  RopePairing pairing = RopePairing::kHalfSplit;
  int64_t dims = 0;                         // rotated dimensions of a head, from its first; even
  std::vector<double> inverse_frequencies;  // [dims / 2], scaling (llama3, linear, YaRN) already applied
  double attention_scale = 1.0;             // YaRN's and LongRoPE's factor on cos and sin
  double plain_theta = 0;                   // of a model whose file scales no positions; 0: it does
  // LongRoPE: the frequencies of a whole input of more than short_window tokens; those above are of a shorter
  // one. Empty for other models.
  std::vector<double> long_inverse_frequencies;
  int64_t short_window = 0;
  std::vector<double> sliding_inverse_frequencies;  // of layers that slide, where they have their own; empty: all have the same
  // Ministral 3: queries grow with the position, by query_scale(). 0: they do not.
  double query_growth = 0;
  int64_t query_span = 0;

  // What the query of a position is multiplied by: 1 + growth * ln(1 + floor(position / span)).
  double query_scale(int64_t position) const { return query_growth > 0 ? 1 + query_growth * std::log1p(static_cast<double>(position / query_span)) : 1.0; }
};

// Layers that keep a state of one size in the place of K and V: gated DeltaNet (Yang, Kautz, Hatamizadeh 2024), as Qwen3.5 has it.
struct RecurrentConfig {
  int64_t interval = 0;  // of so many layers the last attends, the others are recurrent; 0: all attend
  int64_t key_heads = 0;
  int64_t value_heads = 0;  // a multiple of key_heads
  int64_t head_dim = 0;     // of keys and of values
  int64_t taps = 0;         // of the convolution over a channel's last inputs
  // Which key head a value head reads: GGUF has those of Qwen3.5 ordered so that it is h % key_heads, for others it is h / (value_heads / key_heads).
  bool tiled = false;

  int64_t key_dim() const { return key_heads * head_dim; }
  int64_t value_dim() const { return value_heads * head_dim; }
  int64_t channels() const { return 2 * key_dim() + value_dim(); }  // of the convolution: queries, keys, values
};

// Layers whose tokens see only the last ones before them.
struct SlidingConfig {
  int64_t span = 0;      // tokens that one sees, itself included; 0: no layer is so
  int64_t interval = 0;  // of so many layers the last sees everything; 0: none does

  bool slides(int64_t layer) const { return interval == 0 || (layer + 1) % interval != 0; }
};

struct ModelConfig {
  std::string architecture;  // "llama", "qwen2", "phi3", …: the file's own word
  std::string name;          // for people; may be empty
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;  // of one expert where there are experts
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocabulary = 0;
  int64_t window = 0;  // tokens the model was made for, or what that was stretched to
  int64_t stretch = 1;  // so many times (model/stretch.h)
  std::string note;    // sentences for people where the window is another than one would expect; mostly empty
  float norm_epsilon = 1e-5f;
  RopeConfig rope;
  SlidingConfig sliding;
  bool qkv_bias = false;
  bool output_bias = false;      // of the matrix behind attention
  bool attention_sinks = false;  // each head has a score of its own, which takes its share of every softmax and gives nothing
  bool qk_norm = false;
  double query_scale = 1;  // of the scores, on top of 1/sqrt(head_dim): it lies in the weights of the queries' norm
  bool post_norms = false;     // the outputs of attention and FFN are normed before they are added (GLM-4-0414)
  GateCurve gate_curve;        // of the FFN, experts apart
  double embedding_scale = 1;  // that embeddings are multiplied with
  double logit_scale = 1;      // that logits are: it lies in the weights of the last norm
  bool fused_gate_up = false;  // the file has one matrix for both: gate's rows, then up's
  bool tied_embeddings = false;
  // A mixture of experts: of so many FFNs in a layer each token goes through those `experts_used` that the router's softmax weighs
  // most. 0: a layer has one FFN.
  int64_t experts = 0;
  int64_t experts_used = 0;
  bool experts_normalised = true;  // the weights of those add up to 1
  bool expert_biases = false;      // of the router and of the experts' matrices
  bool clamped_experts = false;    // gpt-oss's SwiGLU (Experts::clamped, backend/backend.h)
  int64_t shared_ffn = 0;          // of one more that each token goes through, behind a gate of its own; 0: there is none
  RecurrentConfig recurrent;
  bool attention_gate = false;  // Q's matrix gives each head as many gates behind its dims, whose sigmoid what it attends to is multiplied with

  int64_t kv_dim() const { return kv_heads * head_dim; }
  int64_t q_dim() const { return heads * head_dim; }
  bool attends(int64_t layer) const { return recurrent.interval == 0 || (layer + 1) % recurrent.interval == 0; }
  // Tokens that one of this layer sees, of those with K and V; 0: all before it.
  int64_t span(int64_t attention_layer) const { return sliding.slides(attention_layer) ? sliding.span : 0; }
  // Whether any layer sees everything.
  bool sees_all() const { return sliding.span == 0 || sliding.interval > 0; }
  // Layers with K and V: those that attention, its pages and its plans count.
  int64_t attention_layer(int64_t index) const { return recurrent.interval == 0 ? index : (index + 1) * recurrent.interval - 1; }
  int64_t attention_layers() const { return recurrent.interval == 0 ? layers : layers / recurrent.interval; }
};

}  // namespace longview
