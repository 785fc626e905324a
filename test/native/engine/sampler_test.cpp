#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "base/argmax.h"
#include "base/larger_first.h"
#include "base/error.h"
#include "check.h"

using namespace longview;

namespace {

constexpr int kDraws = 20'000;

// How often each of four tokens is chosen.
std::array<int, 4> draw(const Sampling& sampling, const std::array<float, 4>& logits) {
  Sampler sampler(sampling);
  std::array<int, 4> counts{};
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.choose(logits))];
  return counts;
}

// Probabilities 0.1, 0.2, 0.3, 0.4.
const std::array<float, 4> kLogits = {std::log(1.0f), std::log(2.0f), std::log(3.0f), std::log(4.0f)};

}  // namespace

TEST("temperature 0 is greedy: the first of the largest") {
  CHECK(Sampler({}).choose(std::array<float, 4>{1, 3, 3, 2}) == 1);
}

TEST("the largest of any number of logits, wherever it stands") {
  for (const size_t count : {size_t{1}, size_t{31}, size_t{32}, size_t{33}, size_t{100}, size_t{1000}})
    for (size_t at = 0; at < count; at += 1 + count / 37) {
      std::vector<float> logits(count, -INFINITY);
      logits[at] = -7;
      CHECK(argmax(logits) == static_cast<int32_t>(at));
      for (size_t i = 0; i < at; ++i) logits[i] = -8 - static_cast<float>(i % 5);
      logits.back() = std::max(logits.back(), -7.0f);  // an equal one behind it
      CHECK(argmax(logits) == static_cast<int32_t>(at));
    }
  CHECK(argmax(std::vector<float>(50, NAN)) == 0);
}

TEST("temperature 1 draws by the model's probabilities, higher ones more evenly, lower ones less") {
  const auto at_one = draw({.temperature = 1, .seed = 1}, kLogits);
  for (size_t i = 0; i < 4; ++i) CHECK_NEAR(at_one[i], kDraws * 0.1 * static_cast<double>(i + 1), kDraws * 0.015);
  CHECK(draw({.temperature = 4, .seed = 1}, kLogits)[0] > at_one[0]);
  CHECK(draw({.temperature = 0.3f, .seed = 1}, kLogits)[3] > at_one[3]);
}

TEST("top-k, top-p and min-p leave out what they must, and nothing else") {
  const auto k = draw({.temperature = 1, .top_k = 2, .seed = 2}, kLogits);
  CHECK(k[0] == 0 && k[1] == 0);
  CHECK_NEAR(k[3], kDraws * 4.0 / 7, kDraws * 0.015);
  // 0.4 + 0.3 reach 0.65; 0.4 alone reaches 0.35.
  const auto p = draw({.temperature = 1, .top_p = 0.65f, .seed = 3}, kLogits);
  CHECK(p[0] == 0 && p[1] == 0 && p[2] > 0);
  CHECK(draw({.temperature = 1, .top_p = 0.35f, .seed = 3}, kLogits)[3] == kDraws);
  CHECK(draw({.temperature = 1, .top_p = 0, .seed = 3}, kLogits)[3] == kDraws);
  // 0.2 is half of the best, 0.1 a quarter.
  const auto m = draw({.temperature = 1, .min_p = 0.4f, .seed = 4}, kLogits);
  CHECK(m[0] == 0 && m[1] > 0);
}

TEST("of many tokens as many are left as sorting them leaves, and they come as often as they should") {
  std::mt19937_64 random(11);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(5000);
  for (float& logit : logits) logit = normal(random);
  logits[17] = logits[4000] = 11;  // equals share a limit
  for (const Sampling& sampling : {Sampling{.temperature = 0.7f, .seed = 1}, Sampling{.temperature = 1, .top_k = 40, .seed = 2}, Sampling{.temperature = 1.3f, .top_p = 0.8f, .seed = 3},
                                   Sampling{.temperature = 1, .min_p = 0.05f, .seed = 4}, Sampling{.temperature = 2, .top_k = 300, .top_p = 0.5f, .min_p = 0.01f, .seed = 5}}) {
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), LargerFirst{logits});
    const auto logit = [&](int32_t token) { return static_cast<double>(logits[static_cast<size_t>(token)]); };
    const auto weight = [&](int32_t token) { return std::exp((logit(token) - logit(order[0])) / static_cast<double>(sampling.temperature)); };
    double all = 0, mass = 0;
    for (const int32_t token : order) all += weight(token);
    std::vector<double> wanted(logits.size());
    double above = 0;
    for (size_t i = 0, equals = 0; i < order.size(); ++i) {
      equals = i > 0 && weight(order[i]) == weight(order[i - 1]) ? equals + 1 : 0;
      above += i > 0 && equals == 0 ? mass - above : 0;
      if ((sampling.top_k > 0 && i - equals >= static_cast<size_t>(sampling.top_k)) || above >= static_cast<double>(sampling.top_p) * all || weight(order[i]) < static_cast<double>(sampling.min_p)) break;
      mass += wanted[static_cast<size_t>(order[i])] = weight(order[i]);
    }
    Sampler sampler(sampling);
    std::vector<int> counts(logits.size());
    for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.choose(logits))];
    double off = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (wanted[i] == 0) CHECK(counts[i] == 0);
      off = std::max(off, std::fabs(counts[i] - kDraws * wanted[i] / mass) / std::sqrt(kDraws));
    }
    CHECK(off < 2.5);  // five standard deviations of the likeliest there can be
  }
}

TEST("what is not a number is not drawn, and infinite ones are as argmax has them") {
  std::vector<float> logits(1000, NAN);
  for (size_t i = 0; i < logits.size(); i += 3) logits[i] = static_cast<float>(i % 7);
  for (const int32_t top_k : {0, 5, 900}) {
    Sampler sampler({.temperature = 1, .top_k = top_k, .seed = 7});
    for (int i = 0; i < 200; ++i) CHECK(std::isfinite(logits[static_cast<size_t>(sampler.choose(logits))]));
  }
  Sampler sampler({.temperature = 1, .seed = 7});
  CHECK(sampler.choose(std::vector<float>(50, NAN)) == 0);
  CHECK(sampler.choose(std::vector<float>(50, -INFINITY)) == 0);
  CHECK(sampler.choose(std::array<float, 4>{1, NAN, INFINITY, INFINITY}) == 2);
}

TEST("the same seed gives the same tokens, another seed others") {
  const auto sequence = [](uint64_t seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    std::vector<int32_t> out;
    for (int i = 0; i < 64; ++i) out.push_back(sampler.choose(kLogits));
    return out;
  };
  CHECK(sequence(5) == sequence(5));
  CHECK(sequence(5) != sequence(6));
  // The first tokens of seed 1, on every machine.
  const std::vector<int32_t> first = sequence(1);
  CHECK(std::vector<int32_t>(first.begin(), first.begin() + 8) == std::vector<int32_t>({1, 1, 2, 0, 2, 3, 2, 0}));
}

TEST("values out of range are refused") {
  CHECK_THROWS(Sampler({.temperature = -1}), kInvalidArgument);
  CHECK_THROWS(Sampler({.temperature = std::nanf("")}), kInvalidArgument);
  CHECK_THROWS(Sampler({.top_k = -1}), kInvalidArgument);
  CHECK_THROWS(Sampler({.top_p = 1.5f}), kInvalidArgument);
  CHECK_THROWS(Sampler({.min_p = -0.1f}), kInvalidArgument);
}

TEST_MAIN()
