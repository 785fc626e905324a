#include "cpu/experts.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/each_row.h"

namespace longview::cpu {
namespace {

// The places of the `used` largest of scores [experts], larger ones and of equals earlier ones first, and their shares of the softmax.
// A score that is no number is behind all others, and makes every share none.
void choose_experts(const float* scores, int64_t experts, int64_t used, bool normalised, int32_t* places, float* shares) {
  const auto before = [&](int64_t a, int64_t b) { return scores[a] > scores[b] || (std::isnan(scores[b]) && !std::isnan(scores[a])); };
  for (int64_t count = 0, e = 0; e < experts; ++e) {
    int64_t at = count;
    while (at > 0 && before(e, places[at - 1])) --at;
    if (at == used) continue;
    if (count < used) ++count;
    std::copy_backward(places + at, places + count - 1, places + count);
    places[at] = static_cast<int32_t>(e);
  }
  const float largest = scores[places[0]];
  float all = 0, chosen = 0;
  for (int64_t e = 0; e < experts; ++e) all += std::exp(scores[e] - largest);
  for (int64_t i = 0; i < used; ++i) chosen += shares[i] = std::exp(scores[places[i]] - largest);
  for (int64_t i = 0; i < used; ++i) shares[i] /= normalised ? chosen : all;
}

// Experts::clamped: gate becomes the result.
void clamped_swiglu(const Kernels& kernels, float* gate, float* up, int64_t n) {
  constexpr float kMost = 7, kSlope = 1.702f;
  for (int64_t i = 0; i < n; ++i) {
    const float g = std::min(gate[i], kMost);
    gate[i] = g * (1 + std::clamp(up[i], -kMost, kMost));
    up[i] = kSlope * g;
  }
  kernels.sigmoid_mul(gate, up, n);
}

}  // namespace

ExpertMixture::ExpertMixture(const Kernels& kernels, Precision precision, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), router_(kernels, Precision::kFloat32, pool), linear_(kernels, precision, pool) {}

int64_t ExpertMixture::scratch_bytes(const ModelConfig& c, int64_t tokens) {
  if (c.experts == 0) return 0;
  const int64_t choice = c.experts * sizeof(float) + c.experts_used * (sizeof(int32_t) + sizeof(float) + sizeof(Chosen));
  // Every token may choose the same expert. Its rows also go as copies in the kernels' format.
  return tokens * (choice + static_cast<int64_t>(sizeof(float)) * 2 * (c.hidden + 2 * c.ffn));
}

void ExpertMixture::choose(const float* x, int64_t tokens, const Matrices& m) {
  const int64_t experts = m.router.rows, used = m.used;
  auto* scores = scores_.get<float>(tokens * experts);
  router_.run(x, tokens, m.router, m.router_bias, scores);
  choice_.resize(static_cast<size_t>(tokens * used));
  weights_.resize(choice_.size());
  each_row(pool_, tokens, [&](int64_t t) { choose_experts(scores + t * experts, experts, used, m.normalised, choice_.data() + t * used, weights_.data() + t * used); });

  first_.assign(static_cast<size_t>(experts) + 1, 0);
  for (const int32_t e : choice_) ++first_[static_cast<size_t>(e) + 1];
  for (size_t e = 0; e < static_cast<size_t>(experts); ++e) first_[e + 1] += first_[e];
  chosen_.resize(choice_.size());
  std::vector<int64_t> next = first_;
  for (size_t i = 0; i < choice_.size(); ++i) chosen_[static_cast<size_t>(next[static_cast<size_t>(choice_[i])]++)] = {static_cast<int64_t>(i) / used, weights_[i]};
}

void ExpertMixture::add(const float* x, int64_t tokens, const Matrices& m, float* sum) {
  choose(x, tokens, m);
  const int64_t hidden = m.router.cols, ffn = m.gates.front().rows;
  const auto bias_of = [](const float* biases, size_t expert, int64_t rows) { return biases ? biases + static_cast<int64_t>(expert) * rows : nullptr; };
  for (size_t e = 0; e < m.gates.size(); ++e) {
    const int64_t rows = first_[e + 1] - first_[e];
    if (rows == 0) continue;
    const Chosen* chosen = chosen_.data() + first_[e];
    auto* input = rows_.get<float>(rows * hidden);
    auto* gate = gate_.get<float>(rows * ffn);
    auto* up = up_.get<float>(rows * ffn);
    for (int64_t i = 0; i < rows; ++i) std::memcpy(input + i * hidden, x + chosen[i].token * hidden, static_cast<size_t>(hidden) * sizeof(float));
    linear_.run(input, rows, m.gates[e], bias_of(m.gate_biases, e, ffn), gate);
    linear_.run(input, rows, m.ups[e], bias_of(m.up_biases, e, ffn), up);
    each_row(pool_, rows, [&](int64_t i) {
      if (m.clamped) clamped_swiglu(kernels_, gate + i * ffn, up + i * ffn, ffn);
      else kernels_.gate_mul(gate + i * ffn, up + i * ffn, {}, ffn);
    });
    linear_.run(gate, rows, m.downs[e], bias_of(m.down_biases, e, hidden), input);
    each_row(pool_, rows, [&](int64_t i) {
      const float* from = input + i * hidden;
      float* to = sum + chosen[i].token * hidden;
      for (int64_t d = 0; d < hidden; ++d) to[d] += chosen[i].weight * from[d];
    });
  }
}

}  // namespace longview::cpu
