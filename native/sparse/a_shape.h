// A-shape (MInference; StreamingLLM before it): the first keys and a local window, whatever the input.
#pragma once

#include "sparse/key_set.h"
#include "sparse/pattern.h"

namespace longview::sparse {

// Keys of rows first_position .. end_position - 1: each row the first plan.sink keys and the last plan.window up to itself.
KeySet a_shape_keys(const HeadPlan& plan, int64_t first_position, int64_t end_position);

}  // namespace longview::sparse
