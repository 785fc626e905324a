#include "engine/score.h"

#include <cmath>

#include "base/argmax.h"

namespace longview {

TokenScore score_token(std::span<const float> logits, int32_t token) {
  const int32_t top1 = argmax(logits);
  const double largest = logits[static_cast<size_t>(top1)];
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return {std::log(sum) + (largest - logits[static_cast<size_t>(token)]), top1};
}

}  // namespace longview
