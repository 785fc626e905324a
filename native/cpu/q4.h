// The KV format q4: blocks of 32 values, a code of 4 bits each and one bf16 scale, 4.5 bits a value. A value is (code - 8) * scale; the
// scale has the sign that gives the value of largest magnitude the code 0, of which there is one more than on the other side.
#pragma once

#include <cstdint>

#include "cpu/q8.h"

namespace longview::cpu {

// Codes 0 .. 15 of x [n], n up to kQ8Block; returns the scale, as bf16. A value is off by no more than half a scale, or by a whole one at
// the end that has a code less. Blocks that are not finite become NaN as a whole, as those of q8.
uint16_t quantize_q4(const float* x, int64_t n, uint8_t* codes);

}  // namespace longview::cpu
