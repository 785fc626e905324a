#include "base/argmax.h"

#include <algorithm>
#include <array>
#include <limits>

namespace longview {

int32_t argmax(std::span<const float> values) {
  // Maxima of interleaved parts, which the compiler makes vectors of: the vocabulary is looked through for every token.
  constexpr size_t kParts = 32;
  std::array<float, kParts> best;
  best.fill(-std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kParts <= values.size(); i += kParts)
    for (size_t j = 0; j < kParts; ++j) best[j] = values[i + j] > best[j] ? values[i + j] : best[j];
  float highest = *std::max_element(best.begin(), best.end());
  for (; i < values.size(); ++i) highest = std::max(highest, values[i]);
  const auto first = std::find(values.begin(), values.end(), highest);
  return first == values.end() ? 0 : static_cast<int32_t>(first - values.begin());
}

}  // namespace longview
