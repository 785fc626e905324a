// The layer loop: one chunk of tokens through the model.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "base/cancel.h"
#include "model/weights.h"

namespace longview {

class Forward {
 public:
  // Called while weights are loaded: bytes so far, bytes in all.
  using OnLoad = std::function<void(int64_t done, int64_t total)>;

  // One layer's attention over a chunk, before its product with the output matrix.
  struct Attention {
    AttentionLayer layer;
    Activation hidden, q, out;  // [T, hidden], the residual stream that this layer got; [T, H*D], after RoPE; [T, H*D]
    KvPages pages;
    int64_t first_position;
  };
  using OnAttention = std::function<void(const Attention&)>;

  // Tokens at first_position.. and what the work on them goes by.
  struct Chunk {
    std::span<const int32_t> tokens;
    KvPages pages;           // with room for their K and V
    RecurrentStates states;  // of models with recurrent layers
    int64_t first_position;
    bool long_input;                  // with the frequencies that LongRoPE has for long inputs
    std::span<const HeadPlan> plans;  // of all heads, [attention layers * heads], for sparse attention; empty for dense
    int64_t results;                  // of so many of the last tokens logits may be asked for afterwards; for the others the last layer ends with K and V
  };

  // Buffers for chunks of up to `max_tokens`. backend and model must outlive this.
  Forward(Backend& backend, const Model& model, const KvShape& shape, int64_t max_tokens, const OnLoad& on_load = {});
  ~Forward();
  Forward(const Forward&) = delete;
  Forward& operator=(const Forward&) = delete;

  // Runs a chunk through all layers. Throws kCancelled between layers, at least before each token; then nothing of the chunk counts.
  void run(const Chunk& chunk, const CancelToken& cancel);

  // Calls `observer` after every layer's attention from now on, which is that of all tokens; an empty one ends that. It may use the
  // backend.
  void observe(OnAttention observer) { on_attention_ = std::move(observer); }

  // Logits [vocabulary] after token `row` of the last run, one of its results.
  void logits(int64_t row, std::span<float> out);
  // The first of the largest of them, which alone comes from the device.
  int32_t choice(int64_t row) { return make_logits(row, 1), largest(0); }
  // Makes the logits after tokens first .. first + count - 1 of the last run, all of them results and kMostRows at most, for the two below.
  void make_logits(int64_t first, int64_t count);
  // After the i-th of these tokens: the first of the largest; that, and one that is drawn.
  int32_t largest(int64_t i) { return backend_.largest(logits_, i); }
  Drawn draw(int64_t i, const Sampling& sampling, uint64_t random) { return backend_.draw(logits_, i, sampling, random); }
  static constexpr int64_t kMostRows = 8;

  // Calls `each` with the logits [vocabulary] after every token row 0 .. count - 1 of the last run, in order, all of them results. The output
  // matrix is applied to kLogitRows rows at once: their float32 logits are all the memory that this takes.
  void each_logits(int64_t count, const CancelToken& cancel, const std::function<void(int64_t row, std::span<const float>)>& each);
  static constexpr int64_t kLogitRows = 64;

  const KvShape& kv_shape() const { return shape_; }
  static RecurrentShape recurrent_shape(const ModelConfig& config) { return {config.recurrent, config.layers - config.attention_layers()}; }
  // Bytes of the buffers of a Forward with these sizes, and of what the backend keeps beside them.
  static int64_t workspace_bytes(const Backend& backend, const ModelConfig& config, int64_t max_tokens);

 private:
  struct Layer;

  using Ropes = std::array<DeviceRope*, 2>;  // TokenStep::ropes

  void run_layers(const Chunk& chunk, const Ropes& ropes, const CancelToken& cancel);
  // Adds to the residual stream of a chunk what layer `index` attends to, of those with attention; `last` is the last of all. Returns of how
  // many of the last tokens that was done.
  int64_t add_attention(const Layer& layer, int64_t index, bool last, const Chunk& chunk, const Ropes& ropes);
  // The same of recurrent layer `index`, for all tokens.
  void add_recurrent(const Layer& layer, int64_t index, const Chunk& chunk);
  // Adds what its FFN, or its experts, make of rows of the residual stream; the others are room for these rows, with any content.
  void add_ffn(const Layer& layer, Activation hidden, Activation normed, Activation gate, Activation up);
  // sum += x * weight^T (+ bias), normed before it is added where there is a norm for that.
  void add_product(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, const DeviceWeight* post_norm, Activation scratch, Activation sum);

  Backend& backend_;
  const ModelConfig& config_;
  KvShape shape_;
  RecurrentShape recurrent_;
  OnAttention on_attention_;
  WeightHandle embedding_, output_norm_, output_;
  std::vector<Layer> layers_;
  std::unique_ptr<DeviceRope> rope_, long_rope_, sliding_rope_;  // the second of LongRoPE alone, the third where layers that slide have their own
  // [max_tokens, ...]: the residual stream, its norm, the projections, the two halves of the FFN; [kMostRows, ...]: what logits are made of, and they.
  Activation hidden_, normed_, q_, k_, v_, attended_, gate_, up_, last_, logits_;
  Activation gated_q_, gates_;                            // of attention with gates: [max_tokens, 2 * q_dim], [max_tokens, q_dim]
  Activation mixed_, output_gate_, alpha_, beta_, read_;  // of recurrent layers: channels, value_dim, value_heads twice, value_dim
  Activation logit_rows_;  // [kLogitRows, vocabulary], made when first asked for: questions do without
};

}  // namespace longview
