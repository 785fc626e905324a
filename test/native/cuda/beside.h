// Two engines of one model side by side on the same GPU: how far their logits and first choices are apart.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "check.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "model/files.h"

namespace longview::beside {

// |a - b| / |b| over logits.
inline double difference(std::span<const float> a, std::span<const float> b) {
  double square = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    square += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(square / norm);
}

// The same for each of `tokens` tokens, ascending. By token: random weights let single tokens attend elsewhere.
inline std::vector<double> differences(std::span<const float> a, std::span<const float> b, size_t tokens) {
  const size_t vocabulary = a.size() / tokens;
  std::vector<double> out;
  for (size_t t = 0; t < tokens; ++t) out.push_back(difference(a.subspan(t * vocabulary, vocabulary), b.subspan(t * vocabulary, vocabulary)));
  std::sort(out.begin(), out.end());
  return out;
}

inline std::vector<int32_t> some_tokens(const Model& model, int32_t count) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back((i * i + 7 * i) % static_cast<int32_t>(model.config.vocabulary));
  return tokens;
}
inline std::vector<int32_t> some_tokens(const Engine& engine, int32_t count) { return some_tokens(engine.model(), count); }

// Skips where it is not there.
inline std::string built_in_model() {
  const std::string path = files::root() + "/media/model/longview-135m-64k.Q5_0.gguf";
  if (!std::filesystem::exists(path)) SKIP("there is no " + path);
  return path;
}

struct Agreement {
  int steps = 0, same = 0;               // first choices
  double before = 0, after = 0, off = 0;  // mean NLL of both, and |a - b| / |b| of all logits
};

// The built-in model along the reference's answers, teacher-forced: `changed` beside `plain`.
inline Agreement along_answers(Engine& plain, Engine& changed) {
  const Json reference = Json::parse(files::read(files::fixture("longview-135m.json")), "the reference");
  const std::vector<int32_t> packed = ids(*reference.find("packedTokens"));
  Agreement out;
  double square = 0, norm = 0;
  const auto a = plain.create_context(), b = changed.create_context();
  plain.prefill(*a, packed, CancelToken());
  changed.prefill(*b, packed, CancelToken());
  for (const Json& question : *reference.find("questions")->array()) {
    const auto left = a->fork(), right = b->fork();
    plain.prefill(*left, ids(*question.find("turnTokens")), CancelToken());
    changed.prefill(*right, ids(*question.find("turnTokens")), CancelToken());
    for (const int32_t id : ids(*question.find("greedy"))) {
      ++out.steps;
      out.same += argmax(right->logits()) == argmax(left->logits());
      out.before += score_token(left->logits(), id).nll;
      out.after += score_token(right->logits(), id).nll;
      for (size_t i = 0; i < left->logits().size(); ++i) {
        square += std::pow(static_cast<double>(right->logits()[i]) - left->logits()[i], 2);
        norm += std::pow(static_cast<double>(left->logits()[i]), 2);
      }
      plain.decode(*left, id, CancelToken());
      changed.decode(*right, id, CancelToken());
    }
  }
  out.before /= out.steps;
  out.after /= out.steps;
  out.off = std::sqrt(square / norm);
  return out;
}

}  // namespace longview::beside
