// A panel of 32 rows of a weight as the columns that products of many tokens take.
#pragma once

#include "cpu/kernels.h"

namespace longview::cpu {

constexpr int64_t kPanel = 32;  // rows of a weight that are packed together

// Rows first .. first + width of the weight; up to kPanel they are filled with zeros. `rows` and `panel` have room for kPanel * weight.cols
// floats each; what comes out is in `panel`, with a leading dimension of kPanel.
void pack_floats(const Kernels& kernels, const TensorView& weight, int64_t first, int64_t width, float* rows, float* panel);
// As a pair matrix (kernels.h). weight.cols is even.
void pack_bf16(const Kernels& kernels, const TensorView& weight, int64_t first, int64_t width, float* rows, float* panel);
// As codes; the weight is quantised.
CodePanel pack_codes(const Kernels& kernels, const TensorView& weight, int64_t first, int64_t width, float* rows, float* panel);

}  // namespace longview::cpu
