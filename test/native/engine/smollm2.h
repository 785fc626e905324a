// SmolLM2-135M-Instruct (Q4_1 matrices, Q8_0 embedding) and the outputs of PyTorch in float32 for it: seven prompts of 25 to
// 3,390 tokens. Skips where the model or its reference is not on this machine.
#pragma once

#include <cmath>

#include "base/json.h"
#include "check.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "model/files.h"

namespace longview::smollm2 {

struct Case {
  std::string name;
  std::vector<int32_t> tokens, greedy;
  std::vector<double> margins;  // between the first and the second choice of each greedy step
  double mean_nll;              // of the prompt's tokens but the first
  std::vector<std::pair<int32_t, double>> top;
};

inline std::string model() { return files::test_model("SmolLM2-135M-Instruct.Q4_1.gguf"); }

inline std::vector<Case> cases() {
  const Json reference = Json::parse(files::read(files::shared("golden/smollm2/reference.json")), "the reference");
  std::vector<Case> out;
  for (const Json& entry : *reference.array()) {
    Case one{entry.string_or("name", ""), ids(*entry.find("tokens")), ids(*entry.find("greedy")), {}, entry.number_or("meanNll", 0), {}};
    for (const Json& margin : *entry.find("greedyMargins")->array()) one.margins.push_back(*margin.number());
    for (const Json& pair : *entry.find("lastLogitsTop20")->array()) one.top.emplace_back((*pair.array())[0].integer_or(-1), *(*pair.array())[1].number());
    out.push_back(std::move(one));
  }
  return out;
}

inline double worst_of_top(std::span<const float> logits, const Case& one) {
  double worst = 0;
  for (const auto& [id, value] : one.top) worst = std::max(worst, std::fabs(static_cast<double>(logits[static_cast<size_t>(id)]) - value));
  return worst;
}

// Teacher-forced: the first choices must agree wherever the reference's margin is above 0.25.
inline void check_agreement(Engine& engine, const std::string& name) {
  size_t agreed = 0, steps = 0;
  double worst = 0;
  for (const Case& one : cases()) {
    const auto context = engine.create_context();
    engine.prefill(*context, one.tokens, CancelToken());
    worst = std::max(worst, worst_of_top(context->logits(), one));
    for (size_t i = 0; i < one.greedy.size(); ++i) {
      const bool same = argmax(context->logits()) == one.greedy[i];
      agreed += same;
      ++steps;
      if (!same && one.margins[i] > 0.25) check::fail(__FILE__, __LINE__, name + ", " + one.name + ", step " + std::to_string(i) + ": margin " + std::to_string(one.margins[i]));
      engine.decode(*context, one.greedy[i], CancelToken());
    }
  }
  std::printf("  %s: %zu of %zu steps, largest logits within %.2f\n", name.c_str(), agreed, steps, worst);
}

}  // namespace longview::smollm2
