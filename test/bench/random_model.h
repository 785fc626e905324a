// Models of a known shape with random weights in bf16, Q4_K or another type, in memory: what the GPU does with one takes as long as with trained ones,
// but for what it may leave out, and for how evenly its experts are chosen. Its vocabulary is small where the shape has none and none is
// given: embedding and output then take no time in prefill.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "base/half.h"
#include "model/quant_formats.h"
#include "model/rope.h"
#include "model/weights.h"

namespace longview {

// Sizes alone, of Llama 3 8B, Qwen2.5 7B, Qwen3 (Coder) 30B-A3B, Qwen3.5 9B and 27B (as 3.6 and 3.8 have them), Qwen3.6 35B-A3B, gpt-oss 20B, and Gemma 3 12B and 27B.
inline ModelConfig llama_8b() {
  ModelConfig c;
  c.architecture = "llama";
  c.layers = 32, c.hidden = 4096, c.ffn = 14336, c.heads = 32, c.kv_heads = 8, c.head_dim = c.rope.dims = 128;
  return c;
}
inline ModelConfig qwen25_7b() {
  ModelConfig c;
  c.architecture = "qwen2", c.vocabulary = 152064;
  c.layers = 28, c.hidden = 3584, c.ffn = 18944, c.heads = 28, c.kv_heads = 4, c.head_dim = c.rope.dims = 128;
  return c;
}
inline ModelConfig qwen3_30b() {
  ModelConfig c;
  c.architecture = "qwen3moe";
  c.layers = 48, c.hidden = 2048, c.ffn = 768, c.heads = 32, c.kv_heads = 4, c.head_dim = c.rope.dims = 128, c.qk_norm = true, c.experts = 128, c.experts_used = 8;
  return c;
}
inline ModelConfig qwen35_9b() {
  ModelConfig c;
  c.architecture = "qwen35";
  c.layers = 32, c.hidden = 4096, c.ffn = 12288, c.heads = 16, c.kv_heads = 4, c.head_dim = 256, c.rope.dims = 64, c.qk_norm = c.attention_gate = true;
  c.recurrent = {.interval = 4, .key_heads = 16, .value_heads = 32, .head_dim = 128, .taps = 4, .tiled = true};
  return c;
}
inline ModelConfig qwen35_27b() {
  ModelConfig c = qwen35_9b();
  c.layers = 64, c.hidden = 5120, c.ffn = 17408, c.heads = 24, c.recurrent.value_heads = 48, c.vocabulary = 248320;
  return c;
}
inline ModelConfig qwen36_35b() {
  ModelConfig c = qwen35_9b();
  c.architecture = "qwen35moe";
  c.layers = 40, c.hidden = 2048, c.ffn = 512, c.kv_heads = 2, c.experts = 256, c.experts_used = 8, c.shared_ffn = 512;
  return c;
}
inline ModelConfig gpt_oss_20b() {
  ModelConfig c;
  c.architecture = "gpt-oss", c.vocabulary = 201088;
  c.layers = 24, c.hidden = c.ffn = 2880, c.heads = 64, c.kv_heads = 8, c.head_dim = c.rope.dims = 64, c.experts = 32, c.experts_used = 4;
  c.sliding = {.span = 128, .interval = 2};
  c.qkv_bias = c.output_bias = c.attention_sinks = c.expert_biases = c.clamped_experts = true;
  return c;
}
inline ModelConfig gemma3_12b() {
  ModelConfig c;
  c.architecture = "gemma3", c.vocabulary = 262208;
  c.layers = 48, c.hidden = 3840, c.ffn = 15360, c.heads = 16, c.kv_heads = 8, c.head_dim = c.rope.dims = 256;
  c.sliding = {.span = 1024, .interval = 6};
  c.rope.sliding_inverse_frequencies = plain_frequencies(10000, c.rope.dims);
  c.qk_norm = c.post_norms = true, c.gate_curve = kTanhGelu, c.embedding_scale = 62;
  return c;
}
inline ModelConfig gemma3_27b() {
  ModelConfig c = gemma3_12b();
  c.layers = 62, c.hidden = 5376, c.ffn = 21504, c.heads = 32, c.kv_heads = 16, c.head_dim = c.rope.dims = 128;
  c.rope.sliding_inverse_frequencies = plain_frequencies(10000, c.rope.dims);
  return c;
}
// Those that a bench may be asked for by name.
constexpr std::pair<std::string_view, ModelConfig (*)()> kNamedShapes[] = {
    {"qwen2.5-7b", qwen25_7b}, {"qwen3.5-27b", qwen35_27b}, {"gpt-oss-20b", gpt_oss_20b}, {"gemma3-12b", gemma3_12b}, {"gemma3-27b", gemma3_27b}};
inline ModelConfig shape_of(bool experts, bool hybrid, std::string_view named = "") {
  for (const auto& [name, shape] : kNamedShapes)
    if (named == name) return shape();
  return experts ? (hybrid ? qwen36_35b() : qwen3_30b()) : hybrid ? qwen35_9b() : llama_8b();
}

// Parameters of the layers' matrices that a token is multiplied with. Of the last layer those of Q, K and V alone: more is computed of the last
// token only.
inline double parameters_met(const ModelConfig& c) {
  const int64_t ffn = c.experts > 0 ? 3 * (c.experts_used * c.ffn + c.shared_ffn) + c.experts : 3 * c.ffn, recurrent = c.layers - c.attention_layers();
  const int64_t before = (c.attention_gate ? 2 : 1) * c.q_dim() + 2 * c.kv_dim(), state = c.recurrent.channels() + 2 * c.recurrent.value_dim() + 2 * c.recurrent.value_heads;
  return static_cast<double>(c.hidden) * static_cast<double>(c.attention_layers() * before + (c.attention_layers() - 1) * c.q_dim() + recurrent * state + (c.layers - 1) * ffn);
}

// Of MXFP4 the experts alone are, as files have it: the others are Q8_0.
class RandomModel {
 public:
  explicit RandomModel(const ModelConfig& shape = llama_8b(), DType type = DType::kBF16, int64_t vocabulary = 4096)
      : type_(type), random_(static_cast<size_t>(std::max({shape.ffn, vocabulary, 2 * shape.q_dim(), shape.recurrent.channels()}) * shape.hidden + kStep / 2 * (shape.layers * (11 + 3 * shape.experts) + 8))), ones_(static_cast<size_t>(std::max({shape.hidden, shape.q_dim(), shape.experts * shape.hidden, shape.recurrent.channels() * shape.recurrent.taps})), 1.0f), minus_(static_cast<size_t>(shape.recurrent.value_heads), -0.1f) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<uint16_t> some(1 << 20);
    for (uint16_t& x : some) x = float_to_bf16(normal(random));
    for (size_t i = 0; i < random_.size(); ++i) random_[i] = some[i % (some.size() - 77)];
    if (type_ == DType::kQ4_K) {  // both of a block's scales such that weights are about as large
      const uint16_t scale = 0x0040;
      for (size_t at = 0; at + 72 <= random_.size(); at += 72) random_[at] = random_[at + 1] = scale;
    }
    if (type_ == DType::kMXFP4) {
      router_.assign(random_.begin(), random_.begin() + shape.experts * shape.hidden);
      auto* bytes = reinterpret_cast<uint8_t*>(random_.data());
      for (size_t at = 0; at + 34 <= 2 * random_.size(); at += 34) bytes[at] = bytes[at + 17] = 120, bytes[at + 1] = 0x20;  // MXFP4's scales, and Q8_0's
    }
    ModelConfig& c = model_.config;
    c = shape;
    c.vocabulary = vocabulary, c.window = int64_t{1} << 20;
    c.rope.inverse_frequencies = plain_frequencies(500000, c.rope.dims);
    model_.fingerprint = "random";
    Weights& w = model_.weights;
    w.embedding = matrix(c.vocabulary, c.hidden);
    w.output = matrix(c.vocabulary, c.hidden);
    w.output_norm = norm(c.hidden);
    for (int64_t i = 0; i < c.layers; ++i) {
      LayerWeights l;
      l.attention_norm = l.ffn_norm = norm(c.hidden);
      if (c.post_norms) l.attention_post_norm = l.ffn_post_norm = norm(c.hidden);
      if (c.attends(i)) add_attention(l);
      else add_recurrent(l);
      if (c.experts > 0) {
        l.router = matrix(c.experts, c.hidden, DType::kBF16);
        if (!router_.empty()) l.router.data = reinterpret_cast<const std::byte*>(router_.data());
        if (c.expert_biases) {
          l.router_bias = norm(c.experts), l.down_biases = norm(c.experts * c.hidden);
          l.gate_biases = l.up_biases = norm(c.experts * c.ffn);
        }
        for (int64_t e = 0; e < c.experts; ++e) {
          l.expert_gates.push_back(matrix(c.ffn, c.hidden, type_));
          l.expert_ups.push_back(matrix(c.ffn, c.hidden, type_));
          l.expert_downs.push_back(matrix(c.hidden, c.ffn, type_));
        }
        if (c.shared_ffn > 0) {
          l.shared_gate = matrix(c.shared_ffn, c.hidden);
          l.shared_up = matrix(c.shared_ffn, c.hidden);
          l.shared_down = matrix(c.hidden, c.shared_ffn);
          l.shared_router = norm(c.hidden);
        }
      } else {
        l.gate = matrix(c.ffn, c.hidden);
        l.up = matrix(c.ffn, c.hidden);
        l.down = matrix(c.hidden, c.ffn);
      }
      w.layers.push_back(l);
    }
  }

  // Its views point into this object.
  const Model& model() const { return model_; }

 private:
  static constexpr int64_t kStep = 144 * 17;  // bytes: whole blocks of all types

  void add_attention(LayerWeights& l) {
    const ModelConfig& c = model_.config;
    if (c.qk_norm) l.q_norm = l.k_norm = norm(c.head_dim);
    l.q = matrix((c.attention_gate ? 2 : 1) * c.q_dim(), c.hidden);
    l.k = matrix(c.kv_dim(), c.hidden);
    l.v = matrix(c.kv_dim(), c.hidden);
    l.attention_output = matrix(c.hidden, c.q_dim());
    if (c.qkv_bias && c.output_bias) l.q_bias = norm(c.q_dim()), l.k_bias = l.v_bias = norm(c.kv_dim());
    if (c.output_bias) l.output_bias = norm(c.hidden);
    if (c.attention_sinks) l.sinks = norm(c.heads);
  }
  void add_recurrent(LayerWeights& l) {
    const ModelConfig& c = model_.config;
    const RecurrentConfig& r = c.recurrent;
    l.mixed = matrix(r.channels(), c.hidden);
    l.output_gate = matrix(r.value_dim(), c.hidden);
    l.alpha = matrix(r.value_heads, c.hidden, DType::kBF16);
    l.beta = matrix(r.value_heads, c.hidden, DType::kBF16);
    l.taps = norm(r.channels() * r.taps);
    l.decay = {DType::kF32, 1, r.value_heads, reinterpret_cast<const std::byte*>(minus_.data()), r.value_heads * 4};
    l.decay_bias = norm(r.value_heads);
    l.value_norm = norm(r.head_dim);
    l.attention_output = matrix(c.hidden, r.value_dim());
  }

  // All matrices lie in the same numbers, a little further on each: on a GPU each is a copy of its own.
  TensorView matrix(int64_t rows, int64_t cols, DType type) { return {type, rows, cols, reinterpret_cast<const std::byte*>(random_.data()) + kStep * matrices_++, row_bytes(type, cols) * rows}; }
  TensorView matrix(int64_t rows, int64_t cols) { return matrix(rows, cols, type_ == DType::kMXFP4 ? DType::kQ8_0 : type_); }
  TensorView norm(int64_t cols) const { return {DType::kF32, 1, cols, reinterpret_cast<const std::byte*>(ones_.data()), cols * 4}; }

  DType type_;
  std::vector<uint16_t> random_, router_;
  std::vector<float> ones_, minus_;
  int64_t matrices_ = 0;
  Model model_;
};

}  // namespace longview
