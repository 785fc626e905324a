// The keys that a tile of query rows visits. Causality is the attention's affair: a set may reach beyond what a row sees.
#pragma once

#include <cstdint>
#include <vector>

namespace longview::sparse {

struct KeyRange {
  int64_t begin, end;  // begin .. end - 1
};

struct KeySet {
  std::vector<KeyRange> ranges;   // ascending, apart from each other
  std::vector<int32_t> columns;   // single keys outside all ranges, ascending
  int64_t sink = 0, window = 0;   // window > 0: within the ranges a row sees the first `sink` keys and its last `window`
};

}  // namespace longview::sparse
