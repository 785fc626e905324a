// Adaptive selection: which blocks of keys a tile of rows visits one by one; the others are represented by their means.
#pragma once

#include <cstdint>
#include <span>

#include "sparse/pattern.h"

namespace longview::sparse {

// The blocks a tile chooses among: all rows see them whole, and they lie behind the sink and before the window. Everything
// else (sink, window, diagonal) is visited anyway.
struct Candidates {
  int64_t begin, end;  // blocks begin .. end - 1
};
Candidates adaptive_candidates(const HeadPlan& plan, int64_t first_position, int64_t block_tokens);

// Thresholds of shares are meant for contexts of up to so many blocks. In a longer one every block's fair share is smaller, and the
// threshold falls as that does: else what is left out grows with the length.
constexpr int64_t kShareBlocks = 1024;
// The plan as it is in a context of `length` tokens.
HeadPlan at_length(HeadPlan plan, int64_t length, int64_t block_tokens);

// keep[j] = 1 where candidate j is to be visited. mass[j]: its share of the softmax over the estimated weights of all blocks
// that the tile sees whole, sink and window too; between 0 and 1, mean over the rows.
void adaptive_select(const HeadPlan& plan, std::span<const float> mass, std::span<uint8_t> keep);

}  // namespace longview::sparse
