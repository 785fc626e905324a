// The choice among measured plans: for each head one, so that the error of all is least at a given mean density.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sparse/pattern.h"

namespace longview {

// The plans that a search tries for every head. Adaptive ones visit the blocks of keys which hold at least so much of the mass;
// the un-calibrated ones are among them, and dense is the last.
std::vector<HeadPlan> adaptive_candidates();
// MInference's (arXiv 2407.02490, section 3.2): a_shape, vertical_slash and block_sparse. A search does not mix them with the
// others: they have no means for what they leave out, and heads that err by as much as an adaptive one cost answers all the
// same, because they err alike in all rows. Measured on two sequences of 16,384 tokens, target fast, as many keys: mean loss
// of -ln p 0.0156 nats with them, 0.0007 without.
std::vector<HeadPlan> minference_candidates();

// What one plan did for one head on the calibration text.
struct PlanMeasurement {
  double error = 0;    // squared error of the layer's output by this head alone, relative to the layer's input: its root mean square over rows
  double density = 0;  // keys and means visited, of those that a dense head visits
  double seconds = 0;  // of this device's kernels
};

// The candidate of each head, [heads], from measurements [heads * candidates]: the least sum of error + price * seconds, with
// the lowest price at which the mean density is at most `density`. Where no price brings it there, the sparsest of each head.
std::vector<int32_t> choose_plans(std::span<const PlanMeasurement> measurements, int64_t candidates, double density);

}  // namespace longview
