// The Llama-3-8B shape with random weights in bf16 or Q4_K, in memory: what the GPU does with it takes as long as with trained ones,
// but for what it may leave out. Its vocabulary is small where none is given: embedding and output then take no time in prefill.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/half.h"
#include "model/quant_formats.h"
#include "model/rope.h"
#include "model/weights.h"

namespace longview {

class RandomLlama {
 public:
  explicit RandomLlama(DType type = DType::kBF16, int64_t vocabulary = 4096)
      : type_(type), random_(static_cast<size_t>(std::max(kFfn, vocabulary) * kHidden + kStep / 2 * (7 * kLayers + 8))), ones_(static_cast<size_t>(kHidden), 1.0f) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<uint16_t> some(1 << 20);
    for (uint16_t& x : some) x = float_to_bf16(normal(random));
    for (size_t i = 0; i < random_.size(); ++i) random_[i] = some[i % (some.size() - 77)];
    if (type_ == DType::kQ4_K) {  // both of a block's scales such that weights are about as large
      const uint16_t scale = 0x0040;
      for (size_t at = 0; at + 72 <= random_.size(); at += 72) random_[at] = random_[at + 1] = scale;
    }
    ModelConfig& c = model_.config;
    c.architecture = "llama";
    c.layers = kLayers, c.hidden = kHidden, c.ffn = kFfn, c.heads = 32, c.kv_heads = 8, c.head_dim = 128, c.vocabulary = vocabulary, c.window = int64_t{1} << 20;
    c.rope.dims = c.head_dim;
    c.rope.inverse_frequencies = plain_frequencies(500000, c.head_dim);
    model_.fingerprint = "random";
    Weights& w = model_.weights;
    w.embedding = matrix(c.vocabulary, kHidden);
    w.output = matrix(c.vocabulary, kHidden);
    w.output_norm = norm();
    for (int64_t i = 0; i < kLayers; ++i) {
      LayerWeights l;
      l.attention_norm = l.ffn_norm = norm();
      l.q = matrix(c.q_dim(), kHidden);
      l.k = matrix(c.kv_dim(), kHidden);
      l.v = matrix(c.kv_dim(), kHidden);
      l.attention_output = matrix(kHidden, c.q_dim());
      l.gate = matrix(kFfn, kHidden);
      l.up = matrix(kFfn, kHidden);
      l.down = matrix(kHidden, kFfn);
      w.layers.push_back(l);
    }
  }

  // Its views point into this object.
  const Model& model() const { return model_; }

 private:
  static constexpr int64_t kLayers = 32, kHidden = 4096, kFfn = 14336, kStep = 144;  // bytes: whole blocks

  // All matrices lie in the same numbers, a little further on each: on a GPU each is a copy of its own.
  TensorView matrix(int64_t rows, int64_t cols) { return {type_, rows, cols, reinterpret_cast<const std::byte*>(random_.data()) + kStep * matrices_++, row_bytes(type_, cols) * rows}; }
  TensorView norm() const { return {DType::kF32, 1, kHidden, reinterpret_cast<const std::byte*>(ones_.data()), kHidden * 4}; }

  DType type_;
  std::vector<uint16_t> random_;
  std::vector<float> ones_;
  int64_t matrices_ = 0;
  Model model_;
};

}  // namespace longview
