#include "engine/forward.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace longview {

struct Forward::Layer {
  WeightHandle attention_norm, q, k, v, q_bias, k_bias, v_bias, q_norm, k_norm, attention_output, output_bias, sinks, attention_post_norm, ffn_norm, gate, up, down, ffn_post_norm;
  WeightHandle router, expert_gates, expert_ups, expert_downs, router_bias, gate_biases, up_biases, down_biases;
  WeightHandle mixed, output_gate, alpha, beta, taps, decay, decay_bias, value_norm;  // of a recurrent layer
  WeightHandle shared_gate, shared_up, shared_down, shared_router;
};

namespace {

// Of the FFN whose halves have buffers: what experts but the shared one need is the backend's scratch.
int64_t buffered_ffn(const ModelConfig& c) { return c.experts > 0 ? c.shared_ffn : c.ffn; }

}  // namespace

Forward::Forward(Backend& backend, const Model& model, const KvShape& shape, int64_t max_tokens, const OnLoad& on_load)
    : backend_(backend), config_(model.config), shape_(shape), recurrent_(recurrent_shape(model.config)) {
  constexpr int64_t kReportBytes = int64_t{64} << 20;
  int64_t done = 0, reported = 0;
  const auto report = [&](int64_t bytes) {
    done += bytes;
    if (on_load && done - reported >= kReportBytes) on_load(reported = std::min(done, model.weight_bytes), model.weight_bytes);  // tied ones come twice
  };
  const auto upload_for = [&](const TensorView& view, WeightUse use) {
    if (view.empty()) return WeightHandle();
    WeightHandle handle = backend.upload(view, use);
    report(view.bytes);
    return handle;
  };
  const auto upload = [&](const TensorView& view) { return upload_for(view, WeightUse::kAny); };
  const auto matrix = [&](const TensorView& view) { return upload_for(view, WeightUse::kLayerProduct); };
  const auto gates = [&](const TensorView& view) { return upload_for(view, WeightUse::kGates); };
  const auto experts = [&](const std::vector<TensorView>& views) {
    if (views.empty()) return WeightHandle();
    WeightHandle handle = backend.upload_experts(views);
    report(std::accumulate(views.begin(), views.end(), int64_t{0}, [](int64_t sum, const TensorView& view) { return sum + view.bytes; }));
    return handle;
  };
  const Weights& w = model.weights;
  embedding_ = upload(w.embedding);
  output_norm_ = upload(w.output_norm);
  output_ = upload(w.output);
  for (const LayerWeights& l : w.layers)
    layers_.push_back({upload(l.attention_norm), matrix(l.q), matrix(l.k), matrix(l.v), upload(l.q_bias), upload(l.k_bias), upload(l.v_bias),
                       upload(l.q_norm), upload(l.k_norm), matrix(l.attention_output), upload(l.output_bias), upload(l.sinks), upload(l.attention_post_norm), upload(l.ffn_norm), matrix(l.gate), matrix(l.up),
                       matrix(l.down), upload(l.ffn_post_norm), upload(l.router), experts(l.expert_gates), experts(l.expert_ups), experts(l.expert_downs), upload(l.router_bias), upload(l.gate_biases),
                       upload(l.up_biases), upload(l.down_biases),
                       matrix(l.mixed), matrix(l.output_gate), gates(l.alpha), gates(l.beta), upload(l.taps), upload(l.decay), upload(l.decay_bias), upload(l.value_norm),
                       matrix(l.shared_gate), matrix(l.shared_up), matrix(l.shared_down), upload(l.shared_router)});
  if (on_load) on_load(model.weight_bytes, model.weight_bytes);
  rope_ = backend.upload_rope(config_.rope);
  if (RopeConfig far = config_.rope; !far.long_inverse_frequencies.empty()) {
    far.inverse_frequencies.swap(far.long_inverse_frequencies);
    long_rope_ = backend.upload_rope(far);
  }
  if (RopeConfig near = config_.rope; !near.sliding_inverse_frequencies.empty()) {
    near.inverse_frequencies.swap(near.sliding_inverse_frequencies);
    sliding_rope_ = backend.upload_rope(near);
  }
  hidden_ = backend.allocate_float(max_tokens, config_.hidden);
  normed_ = backend.allocate(max_tokens, config_.hidden);
  q_ = backend.allocate(max_tokens, config_.q_dim());
  k_ = backend.allocate(max_tokens, config_.kv_dim());
  v_ = backend.allocate(max_tokens, config_.kv_dim());
  attended_ = backend.allocate(max_tokens, config_.q_dim());
  if (const int64_t ffn = buffered_ffn(config_); ffn > 0) {
    gate_ = backend.allocate(max_tokens, ffn);
    up_ = backend.allocate(max_tokens, ffn);
  }
  if (config_.attention_gate) {
    gated_q_ = backend.allocate(max_tokens, 2 * config_.q_dim());
    gates_ = backend.allocate(max_tokens, config_.q_dim());
  }
  if (recurrent_.layers > 0) {
    const RecurrentConfig& r = recurrent_.config;
    mixed_ = backend.allocate(max_tokens, r.channels());
    output_gate_ = backend.allocate(max_tokens, r.value_dim());
    alpha_ = backend.allocate(max_tokens, r.value_heads);
    beta_ = backend.allocate(max_tokens, r.value_heads);
    read_ = backend.allocate(max_tokens, r.value_dim());
  }
  last_ = backend.allocate(kMostRows, config_.hidden);
  logits_ = backend.allocate_float(kMostRows, config_.vocabulary);
}

Forward::~Forward() {
  for (Activation* buffer : {&hidden_, &normed_, &q_, &k_, &v_, &attended_, &gate_, &up_, &last_, &logits_, &logit_rows_, &gated_q_, &gates_, &mixed_, &output_gate_, &alpha_, &beta_, &read_})
    if (buffer->data) backend_.release(*buffer);
}

int64_t Forward::workspace_bytes(const Backend& backend, const ModelConfig& c, int64_t max_tokens) {
  const int64_t halves = 2 * buffered_ffn(c);
  const int64_t gates = c.attention_gate ? 3 * c.q_dim() : 0, recurrent = c.recurrent.channels() + 2 * c.recurrent.value_dim() + 2 * c.recurrent.value_heads;
  const int64_t narrow = max_tokens * (c.hidden + 2 * c.q_dim() + 2 * c.kv_dim() + halves + gates + recurrent) + kMostRows * c.hidden, wide = max_tokens * c.hidden + kMostRows * c.vocabulary;
  return backend.activation_bytes() * narrow + static_cast<int64_t>(sizeof(float)) * wide + backend.scratch_bytes(c, max_tokens);
}

void Forward::run(const Chunk& chunk, const CancelToken& cancel) {
  DeviceRope& rope = chunk.long_input && long_rope_ ? *long_rope_ : *rope_;
  const Ropes ropes{&rope, sliding_rope_ ? sliding_rope_.get() : &rope};
  const auto work = [&] { run_layers(chunk, ropes, cancel); };
  if (chunk.tokens.size() != 1 || !chunk.plans.empty() || on_attention_) return work();
  cancel.throw_if_cancelled();
  backend_.run_token({this, chunk.tokens[0], chunk.first_position, config_.heads, shape_, chunk.pages, ropes, chunk.states}, work);
}

void Forward::run_layers(const Chunk& chunk, const Ropes& ropes, const CancelToken& cancel) {
  const auto count = static_cast<int64_t>(chunk.tokens.size());
  backend_.embed(*embedding_, chunk.tokens, static_cast<float>(config_.embedding_scale), backend_.rows(hidden_, 0, count));
  int64_t attending = 0, recurrent = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    cancel.throw_if_cancelled();
    const Layer& layer = layers_[i];
    int64_t rows = count;
    if (layer.mixed) add_recurrent(layer, recurrent++, chunk);
    else rows = add_attention(layer, attending++, i + 1 == layers_.size(), chunk, ropes);
    if (rows == 0) return;
    const auto last = [&](Activation x) { return backend_.rows(x, count - rows, rows); };
    add_ffn(layer, last(hidden_), last(normed_), last(gate_), last(up_));
  }
}

int64_t Forward::add_attention(const Layer& layer, int64_t index, bool last_layer, const Chunk& chunk, const Ropes& ropes) {
  const auto count = static_cast<int64_t>(chunk.tokens.size()), heads = config_.heads, first_position = chunk.first_position;
  const auto part = [&](Activation buffer) { return backend_.rows(buffer, 0, count); };
  const Activation hidden = part(hidden_), normed = part(normed_), q = part(q_), k = part(k_), v = part(v_), attended = part(attended_);

  const Activation input = backend_.for_products(normed, {layer.q.get(), layer.k.get(), layer.v.get()});
  const Activation queries = config_.attention_gate ? part(gated_q_) : q;
  const std::array<Projection, 3> projections{{{layer.q.get(), layer.q_bias.get(), queries}, {layer.k.get(), layer.k_bias.get(), k}, {layer.v.get(), layer.v_bias.get(), v}}};
  backend_.norm_linear_all(hidden, *layer.attention_norm, config_.norm_epsilon, input, projections);
  // Nothing sees what the last layer makes of a token but that token's logits.
  const int64_t rows = !last_layer || on_attention_ ? count : chunk.results;
  const auto last = [&](Activation x) { return backend_.rows(x, count - rows, rows); };
  HeadSteps steps{config_.attention_gate ? queries : Activation{}, config_.attention_gate ? part(gates_) : Activation{}, layer.q_norm.get(), layer.k_norm.get(), config_.norm_epsilon};
  const bool token = count == 1 && rows == 1 && chunk.plans.empty() && !on_attention_, grows = config_.rope.query_growth > 0;
  if (!token || grows) {
    backend_.prepare_heads(q, k, steps, config_.head_dim);
    if (grows) backend_.scale_queries(q, config_.rope, first_position);
    steps = {};
  }
  const AttentionLayer attending{index, config_.span(index), layer.sinks.get()};
  DeviceRope& rope = *ropes[attending.span > 0];
  if (token) {
    backend_.append_and_attend(q, k, v, steps, rope, shape_, heads, attending, chunk.pages, first_position, attended);
  } else {
    backend_.rope_and_append_kv(q, k, v, rope, shape_, index, chunk.pages, first_position);
    if (rows == 0) return 0;
    if (chunk.plans.empty() || rows < count || attending.span > 0) backend_.attention(last(q), shape_, heads, attending, chunk.pages, first_position + count - rows, last(attended));
    else backend_.attention_sparse(q, shape_, heads, attending, chunk.pages, first_position, chunk.plans.subspan(static_cast<size_t>(index * heads), static_cast<size_t>(heads)), attended);
  }
  if (on_attention_) on_attention_({attending, hidden, q, attended, chunk.pages, first_position});
  if (config_.attention_gate && !steps.both.data) backend_.multiply_gates(last(attended), last(part(gates_)));
  add_product(last(attended), *layer.attention_output, layer.output_bias.get(), layer.attention_post_norm.get(), last(normed), last(hidden));
  return rows;
}

void Forward::add_recurrent(const Layer& layer, int64_t index, const Chunk& chunk) {
  const auto part = [&](Activation buffer) { return backend_.rows(buffer, 0, static_cast<int64_t>(chunk.tokens.size())); };
  const Activation hidden = part(hidden_), normed = part(normed_), mixed = part(mixed_), gate = part(output_gate_), alpha = part(alpha_), beta = part(beta_), read = part(read_);
  const Activation input = backend_.for_products(normed, {layer.mixed.get(), layer.output_gate.get(), layer.alpha.get(), layer.beta.get()});
  const DeltaProjections projections{{{layer.mixed.get(), nullptr, mixed}, {layer.output_gate.get(), nullptr, gate}, {layer.alpha.get(), nullptr, alpha}, {layer.beta.get(), nullptr, beta}}};
  const DeltaWeights weights{layer.taps.get(), layer.decay.get(), layer.decay_bias.get(), layer.value_norm.get()};
  backend_.norm_delta_net(hidden, *layer.attention_norm, input, projections, weights, config_.norm_epsilon, recurrent_, index, chunk.states, read);
  add_product(read, *layer.attention_output, nullptr, nullptr, normed, hidden);
}

void Forward::add_ffn(const Layer& layer, Activation hidden, Activation normed, Activation gate, Activation up) {
  if (layer.router) {
    const Experts experts{layer.router.get(), layer.expert_gates.get(), layer.expert_ups.get(), layer.expert_downs.get(), config_.experts_used, config_.experts_normalised,
                          layer.router_bias.get(), layer.gate_biases.get(), layer.up_biases.get(), layer.down_biases.get(), config_.clamped_experts};
    backend_.norm_add_experts(hidden, *layer.ffn_norm, config_.norm_epsilon, normed, experts);
    if (!layer.shared_down) return;
    backend_.linear_gated(normed, *layer.shared_gate, *layer.shared_up, config_.gate_curve, up, gate);
    backend_.scale_rows(gate, normed, *layer.shared_router);
    add_product(gate, *layer.shared_down, nullptr, nullptr, normed, hidden);
    return;
  }
  const Activation input = backend_.for_products(normed, {layer.gate.get(), layer.up.get()});
  const Activation activated = backend_.for_products(gate, {layer.down.get()});
  backend_.norm_linear_gated(hidden, *layer.ffn_norm, config_.norm_epsilon, input, *layer.gate, *layer.up, config_.gate_curve, up, activated);
  add_product(activated, *layer.down, nullptr, layer.ffn_post_norm.get(), normed, hidden);
}

void Forward::add_product(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, const DeviceWeight* post_norm, Activation scratch, Activation sum) {
  if (!post_norm) return backend_.linear_add(x, weight, bias, scratch, sum);
  backend_.linear(x, weight, bias, scratch);
  backend_.add_normed(sum, scratch, *post_norm, config_.norm_epsilon);
}

void Forward::make_logits(int64_t first, int64_t count) {
  const Projection projection{output_.get(), nullptr, backend_.rows(logits_, 0, count)};
  backend_.norm_linear_all(backend_.rows(hidden_, first, count), *output_norm_, config_.norm_epsilon, backend_.rows(last_, 0, count), {&projection, 1});
}

void Forward::logits(int64_t row, std::span<float> out) {
  make_logits(row, 1);
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
