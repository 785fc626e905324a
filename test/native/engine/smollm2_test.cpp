// A second set of real weights, SmolLM2-135M-Instruct, against outputs of PyTorch in float32.
#include "engine/smollm2.h"

using namespace longview;
using namespace longview::smollm2;

namespace {

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
    check_agreement(engine, isa);
  }
}

TEST_MAIN()
