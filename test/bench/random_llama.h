// The Llama-3-8B shape with random weights in bf16, in memory: what the GPU does with it takes as long as with trained ones, but
// for what it may leave out. Its vocabulary is small: embedding and output take no time in prefill.
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "base/half.h"
#include "model/rope.h"
#include "model/weights.h"

namespace longview {

class RandomLlama {
 public:
  RandomLlama() : random_(static_cast<size_t>(kFfn * kHidden + 8 * 7 * kLayers + 64)), ones_(static_cast<size_t>(kHidden), 1.0f) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<uint16_t> some(1 << 20);
    for (uint16_t& x : some) x = float_to_bf16(normal(random));
    for (size_t i = 0; i < random_.size(); ++i) random_[i] = some[i % (some.size() - 77)];
    ModelConfig& c = model_.config;
    c.architecture = "llama";
    c.layers = kLayers, c.hidden = kHidden, c.ffn = kFfn, c.heads = 32, c.kv_heads = 8, c.head_dim = 128, c.vocabulary = 4096, c.window = int64_t{1} << 20;
    c.rope.dims = c.head_dim;
    c.rope.inverse_frequencies = plain_frequencies(500000, c.head_dim);
    model_.fingerprint = "random";
    Weights& w = model_.weights;
    w.embedding = w.output = matrix(c.vocabulary, kHidden);
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
  static constexpr int64_t kLayers = 32, kHidden = 4096, kFfn = 14336;

  // All matrices lie in the same numbers, a little further on each: on a GPU each is a copy of its own.
  TensorView matrix(int64_t rows, int64_t cols) { return {DType::kBF16, rows, cols, reinterpret_cast<const std::byte*>(random_.data() + 8 * matrices_++), rows * cols * 2}; }
  TensorView norm() const { return {DType::kF32, 1, kHidden, reinterpret_cast<const std::byte*>(ones_.data()), kHidden * 4}; }

  std::vector<uint16_t> random_;
  std::vector<float> ones_;
  int64_t matrices_ = 0;
  Model model_;
};

}  // namespace longview
