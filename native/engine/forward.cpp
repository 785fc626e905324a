#include "engine/forward.h"

#include <algorithm>

namespace longview {

struct Forward::Layer {
  WeightHandle attention_norm, q, k, v, q_bias, k_bias, v_bias, q_norm, k_norm, attention_output, ffn_norm, gate, up, down;
};

Forward::Forward(Backend& backend, const Model& model, KvFormat kv_format, int64_t max_tokens)
    : backend_(backend), config_(model.config), shape_{config_.layers, config_.kv_heads, config_.head_dim, kv_format} {
  const auto upload = [&](const TensorView& view) { return view.empty() ? nullptr : backend.upload(view); };
  const Weights& w = model.weights;
  embedding_ = upload(w.embedding);
  output_norm_ = upload(w.output_norm);
  output_ = upload(w.output);
  for (const LayerWeights& l : w.layers)
    layers_.push_back({upload(l.attention_norm), upload(l.q), upload(l.k), upload(l.v), upload(l.q_bias), upload(l.k_bias), upload(l.v_bias),
                       upload(l.q_norm), upload(l.k_norm), upload(l.attention_output), upload(l.ffn_norm), upload(l.gate), upload(l.up), upload(l.down)});
  rope_ = backend.upload_rope(config_.rope);
  hidden_ = backend.allocate_float(max_tokens, config_.hidden);
  normed_ = backend.allocate(max_tokens, config_.hidden);
  q_ = backend.allocate(max_tokens, config_.q_dim());
  k_ = backend.allocate(max_tokens, config_.kv_dim());
  v_ = backend.allocate(max_tokens, config_.kv_dim());
  attended_ = backend.allocate(max_tokens, config_.q_dim());
  gate_ = backend.allocate(max_tokens, config_.ffn);
  up_ = backend.allocate(max_tokens, config_.ffn);
  last_ = backend.allocate(1, config_.hidden);
  logits_ = backend.allocate_float(1, config_.vocabulary);
}

Forward::~Forward() {
  for (Activation* buffer : {&hidden_, &normed_, &q_, &k_, &v_, &attended_, &gate_, &up_, &last_, &logits_, &logit_rows_})
    if (buffer->data) backend_.release(*buffer);
}

int64_t Forward::workspace_bytes(const ModelConfig& c, int64_t max_tokens) {
  // Twice: the backend keeps copies of a product's input in the kernels' format.
  return 2 * 4 * (max_tokens * (2 * c.hidden + 2 * c.q_dim() + 2 * c.kv_dim() + 2 * c.ffn) + c.hidden + c.vocabulary);
}

void Forward::run(std::span<const int32_t> tokens, const KvPages& pages, int64_t first_position, const CancelToken& cancel) {
  const auto count = static_cast<int64_t>(tokens.size());
  const auto part = [&](Activation buffer) { return backend_.rows(buffer, 0, count); };
  const Activation hidden = part(hidden_), normed = part(normed_), q = part(q_), k = part(k_), v = part(v_), attended = part(attended_), gate = part(gate_), up = part(up_);

  backend_.embed(*embedding_, tokens, hidden);
  for (size_t i = 0; i < layers_.size(); ++i) {
    cancel.throw_if_cancelled();
    const Layer& layer = layers_[i];
    const auto index = static_cast<int64_t>(i);

    backend_.rms_norm(hidden, *layer.attention_norm, config_.norm_epsilon, normed);
    backend_.linear(normed, *layer.q, layer.q_bias.get(), q);
    backend_.linear(normed, *layer.k, layer.k_bias.get(), k);
    backend_.linear(normed, *layer.v, layer.v_bias.get(), v);
    if (layer.q_norm) {
      backend_.rms_norm_heads(q, *layer.q_norm, config_.heads, config_.norm_epsilon);
      backend_.rms_norm_heads(k, *layer.k_norm, config_.kv_heads, config_.norm_epsilon);
    }
    backend_.rope_and_append_kv(q, k, v, *rope_, shape_, index, pages, first_position);
    backend_.attention(q, shape_, config_.heads, index, pages, first_position, attended);
    backend_.linear(attended, *layer.attention_output, nullptr, normed);
    backend_.add(hidden, normed);

    backend_.rms_norm(hidden, *layer.ffn_norm, config_.norm_epsilon, normed);
    backend_.linear(normed, *layer.gate, nullptr, gate);
    backend_.linear(normed, *layer.up, nullptr, up);
    backend_.silu_mul(gate, up);
    backend_.linear(gate, *layer.down, nullptr, normed);
    backend_.add(hidden, normed);
  }
}

void Forward::logits(int64_t row, std::span<float> out) {
  backend_.rms_norm(backend_.rows(hidden_, row, 1), *output_norm_, config_.norm_epsilon, last_);
  backend_.linear(last_, *output_, nullptr, logits_);
  backend_.read_row(logits_, 0, out);
}

void Forward::each_logits(int64_t count, const CancelToken& cancel, const std::function<void(int64_t row, std::span<const float>)>& each) {
  if (!logit_rows_.data) logit_rows_ = backend_.allocate_float(kLogitRows, config_.vocabulary);
  std::vector<float> row(static_cast<size_t>(config_.vocabulary));
  for (int64_t first = 0; first < count; first += kLogitRows) {
    cancel.throw_if_cancelled();
    const int64_t block = std::min(kLogitRows, count - first);
    const Activation normed = backend_.rows(normed_, 0, block), logits = backend_.rows(logit_rows_, 0, block);
    backend_.rms_norm(backend_.rows(hidden_, first, block), *output_norm_, config_.norm_epsilon, normed);
    backend_.linear(normed, *output_, nullptr, logits);
    for (int64_t i = 0; i < block; ++i) {
      backend_.read_row(logits, i, row);
      each(first + i, row);
    }
  }
}

}  // namespace longview
