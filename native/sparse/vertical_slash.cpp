#include "sparse/vertical_slash.h"

#include <algorithm>
#include <limits>

#include "base/larger_first.h"

namespace longview::sparse {

VerticalSlashIndex vertical_slash_index(const HeadPlan& plan, int64_t rows, int64_t end_position, bool in_chunks,
                                        const std::function<std::span<const float>(int64_t row)>& probabilities) {
  const auto n = static_cast<size_t>(end_position);
  std::vector<float> vertical(n, 0.0f), slash(n, 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    const std::span<const float> p = probabilities(row);
    const int64_t position = end_position - rows + row;
    for (int64_t key = 0; key <= position; ++key) {
      vertical[static_cast<size_t>(key)] += p[static_cast<size_t>(key)];
      slash[static_cast<size_t>(position - key)] += p[static_cast<size_t>(key)];
    }
  }
  constexpr float kForced = std::numeric_limits<float>::infinity();
  const int64_t forced = in_chunks ? kForcedColumnsInChunks : kForcedColumns;
  std::fill_n(vertical.begin(), std::min(forced, end_position), kForced);
  std::fill_n(slash.begin(), std::min(kForcedDiagonals, end_position), kForced);

  VerticalSlashIndex index;
  index.columns = largest(vertical, std::max<int64_t>(plan.columns, forced));
  index.diagonals = largest(slash, std::max<int64_t>(plan.diagonals, kForcedDiagonals));
  std::sort(index.columns.begin(), index.columns.end());
  std::sort(index.diagonals.begin(), index.diagonals.end(), std::greater<>());
  return index;
}

KeySet vertical_slash_keys(const VerticalSlashIndex& index, int64_t first_position) {
  KeySet keys;
  // These rows meet the diagonal of distance s in keys first - s .. first - s + 63. Descending distances are ascending keys.
  for (const int32_t distance : index.diagonals) {
    if (distance >= first_position + kSlashBlock) continue;
    const int64_t begin = std::max<int64_t>(first_position - distance, 0), end = begin + kSlashBlock;
    if (keys.ranges.empty() || begin > keys.ranges.back().end) keys.ranges.push_back({begin, end});
    else if (end > keys.ranges.back().end) keys.ranges.back().end += kSlashBlock;
  }
  size_t range = 0;
  for (const int32_t column : index.columns) {
    while (range < keys.ranges.size() && keys.ranges[range].end <= column) ++range;
    const bool inside = range < keys.ranges.size() && keys.ranges[range].begin <= column;
    if (!inside && column < first_position) keys.columns.push_back(column);
  }
  return keys;
}

}  // namespace longview::sparse
