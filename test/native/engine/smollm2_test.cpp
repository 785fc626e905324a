// A second set of real weights, SmolLM2-135M-Instruct (Q4_1 matrices, Q8_0 embedding), against outputs of PyTorch in float32:
// seven prompts of 25 to 3,390 tokens. Skipped where the model or its reference is not on this machine.
#include <cmath>

#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "model/files.h"

using namespace longview;

namespace {

struct Case {
  std::string name;
  std::vector<int32_t> tokens, greedy;
  std::vector<double> margins;  // between the first and the second choice of each greedy step
  double mean_nll;              // of the prompt's tokens but the first
  std::vector<std::pair<int32_t, double>> top;
};

std::string model() { return files::test_model("SmolLM2-135M-Instruct.Q4_1.gguf"); }

std::vector<Case> cases() {
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

// Mean negative log likelihood of each token but the first, from the logits before it.
double mean_nll(std::span<const float> logits, std::span<const int32_t> tokens) {
  const size_t vocabulary = logits.size() / tokens.size();
  double total = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const auto row = logits.subspan(i * vocabulary, vocabulary);
    const double largest = row[static_cast<size_t>(argmax(row))];
    double sum = 0;
    for (const float x : row) sum += std::exp(static_cast<double>(x) - largest);
    total += largest + std::log(sum) - static_cast<double>(row[static_cast<size_t>(tokens[i + 1])]);
  }
  return total / static_cast<double>(tokens.size() - 1);
}

double worst_of_top(std::span<const float> logits, const Case& one) {
  double worst = 0;
  for (const auto& [id, value] : one.top) worst = std::max(worst, std::fabs(static_cast<double>(logits[static_cast<size_t>(id)]) - value));
  return worst;
}

}  // namespace

TEST("SmolLM2 gives every greedy id, the likelihoods and the largest logits of the reference in float32") {
  Engine engine(model(), exact(""));
  for (const Case& one : cases()) {
    const auto context = engine.create_context();
    const double nll = mean_nll(engine.all_logits(*context, one.tokens), one.tokens);
    CHECK_NEAR(nll, one.mean_nll, 1e-3);
    context->truncate(context->length() - 1);
    engine.prefill(*context, std::span(one.tokens).last(1), CancelToken());
    const double worst = worst_of_top(context->logits(), one);
    CHECK(worst <= 1e-3 * one.top.front().second);
    int right = 0;
    for (const int32_t id : one.greedy) {
      const int32_t next = argmax(context->logits());
      right += next == id;
      engine.decode(*context, id, CancelToken());
    }
    CHECK(right == static_cast<int>(one.greedy.size()));
    std::printf("  %-14s %4zu tokens: NLL %.4f (reference %.4f), largest logits within %.1e, %d of %zu greedy ids\n", one.name.c_str(), one.tokens.size(), nll,
                one.mean_nll, worst, right, one.greedy.size());
  }
}

TEST("SmolLM2's fast paths agree with the reference, teacher-forced, wherever its margin is above 0.25") {
  for (const std::string& isa : available_cpu_isas()) {
    if (isa == "scalar") continue;
    EngineOptions options;
    options.cpu.isa = isa;
    Engine engine(model(), options);
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
        if (!same && one.margins[i] > 0.25) check::fail(__FILE__, __LINE__, isa + ", " + one.name + ", step " + std::to_string(i) + ": margin " + std::to_string(one.margins[i]));
        engine.decode(*context, one.greedy[i], CancelToken());
      }
    }
    std::printf("  %s: %zu of %zu steps, largest logits within %.2f\n", isa.c_str(), agreed, steps, worst);
  }
}

TEST_MAIN()
