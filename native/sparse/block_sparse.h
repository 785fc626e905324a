// Block-sparse (MInference): for each 64 rows the key blocks of 64 whose pooled keys score best with the pooled queries.
#pragma once

#include <cstdint>
#include <span>

#include "sparse/key_set.h"
#include "sparse/pattern.h"

namespace longview::sparse {

constexpr int64_t kPoolTokens = 64;

// Keys of at most 64 rows that end before end_position. scores[j]: pooled query times pooled key of block j, for the blocks
// that end before the first of these rows; the blocks behind them, which the rows lie in, are always visited and count
// against the budget.
KeySet block_sparse_keys(const HeadPlan& plan, int64_t end_position, std::span<const float> scores);

}  // namespace longview::sparse
