// How well a model foresees a token that is given: the measure of teacher-forced evaluations.
#pragma once

#include <cstdint>
#include <span>

namespace longview {

struct TokenScore {
  double nll = 0;    // -ln of the probability that the model gave the token
  int32_t top1 = 0;  // the token that it held likeliest; of equals the first
};

// Of `token`, from the logits [vocabulary] after the token before it. The softmax is summed in double.
TokenScore score_token(std::span<const float> logits, int32_t token);

}  // namespace longview
