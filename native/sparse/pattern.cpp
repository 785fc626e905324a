#include "sparse/pattern.h"

#include <array>

namespace longview {
namespace {

constexpr std::array kPatterns = {"dense", "a_shape", "vertical_slash", "block_sparse", "adaptive"};
constexpr std::array kRules = {"relative", "share", "mass"};

}  // namespace

const char* name(Pattern pattern) { return kPatterns[static_cast<size_t>(pattern)]; }
const char* name(AdaptiveRule rule) { return kRules[static_cast<size_t>(rule)]; }

std::optional<Pattern> pattern_of(std::string_view name) {
  for (size_t i = 0; i < kPatterns.size(); ++i)
    if (name == kPatterns[i]) return static_cast<Pattern>(i);
  return std::nullopt;
}

std::optional<AdaptiveRule> adaptive_rule_of(std::string_view name) {
  for (size_t i = 0; i < kRules.size(); ++i)
    if (name == kRules[i]) return static_cast<AdaptiveRule>(i);
  return std::nullopt;
}

HeadPlan default_plan(Pattern pattern) {
  HeadPlan plan;
  plan.pattern = pattern;
  switch (pattern) {
    case Pattern::kDense: break;
    case Pattern::kAShape:
      plan.sink = 100;
      plan.window = 800;
      break;
    case Pattern::kVerticalSlash:
      plan.columns = 1000;
      plan.diagonals = 6096;
      break;
    case Pattern::kBlockSparse: plan.blocks = 100; break;
    case Pattern::kAdaptive:
      plan.sink = 128;
      plan.window = 256;
      plan.threshold = 0.002f;
      break;
  }
  return plan;
}

}  // namespace longview
