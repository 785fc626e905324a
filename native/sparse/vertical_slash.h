// Vertical-slash (MInference, section 3 and its kernels' index): columns that every row sees, and diagonals, both chosen by
// the attention of the chunk's last 64 rows.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "sparse/key_set.h"
#include "sparse/pattern.h"

namespace longview::sparse {

constexpr int64_t kIndexRows = 64;       // rows at the end of a chunk that choose
constexpr int64_t kSlashBlock = 64;      // rows, and keys of a diagonal's block
constexpr int64_t kForcedColumns = 30;   // first keys that are always chosen; in chunks behind others:
constexpr int64_t kForcedColumnsInChunks = 130;
constexpr int64_t kForcedDiagonals = 100;  // smallest distances that are always chosen

struct VerticalSlashIndex {
  std::vector<int32_t> columns;    // positions, ascending
  std::vector<int32_t> diagonals;  // distances between row and key, descending
};

// `probabilities(row)` gives the softmax over all keys of index row `row` of `rows` (the last one stands at end_position - 1):
// [end_position] floats, zero beyond the row itself. `in_chunks`: there is context before the chunk.
VerticalSlashIndex vertical_slash_index(const HeadPlan& plan, int64_t rows, int64_t end_position, bool in_chunks,
                                        const std::function<std::span<const float>(int64_t row)>& probabilities);

// Keys of the rows first_position .. first_position + 63: every diagonal becomes a block of 64 keys, overlapping blocks are
// merged; columns outside of them stay single.
KeySet vertical_slash_keys(const VerticalSlashIndex& index, int64_t first_position);

}  // namespace longview::sparse
