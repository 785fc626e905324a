// How far a head's output is from another, as the layer's output sees it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor.h"

namespace longview {

// The output matrix as a metric of one head's output: the squared length of W_h o is o^T (W_h^T W_h) o.
class OutputMetric {
 public:
  // `weight` [hidden, heads * d]: a layer's output matrix.
  OutputMetric(const TensorView& weight, int64_t heads, int64_t d);

  // Of the difference of head `h` between the rows a and b, [heads * d] each.
  double squared(int64_t h, std::span<const float> a, std::span<const float> b) const;

 private:
  size_t d_;
  std::vector<float> gram_;  // [heads, d, d]
};

}  // namespace longview
