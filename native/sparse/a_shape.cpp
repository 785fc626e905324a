#include "sparse/a_shape.h"

#include <algorithm>

namespace longview::sparse {

KeySet a_shape_keys(const HeadPlan& plan, int64_t first_position, int64_t end_position) {
  KeySet keys;
  keys.sink = plan.sink;
  keys.window = std::max<int64_t>(plan.window, 1);  // a row always sees itself
  const int64_t from = std::max<int64_t>(first_position + 1 - keys.window, 0);
  if (keys.sink >= from) {
    keys.ranges.push_back({0, end_position});
  } else {
    if (keys.sink > 0) keys.ranges.push_back({0, keys.sink});
    keys.ranges.push_back({from, end_position});
  }
  return keys;
}

}  // namespace longview::sparse
