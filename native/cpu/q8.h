// The KV format q8: blocks of 32 values, an int8 code each and one bf16 scale, 8.5 bits a value. A value is code * scale.
// bf16 scales cost as much as float16 ones and have float32's range: no outlier overflows them, no block vanishes.
#pragma once

#include <cstdint>

namespace longview::cpu {

constexpr int64_t kQ8Block = 32;

constexpr int64_t q8_blocks(int64_t values) { return (values + kQ8Block - 1) / kQ8Block; }

// Codes of x [n], n up to kQ8Block; returns the scale, as bf16. Codes are within -127 .. 127 and off by no more than half a
// scale, save at the two ends of float32's range, where the scale itself is coarse. A block that holds an infinity or a NaN
// becomes NaN as a whole: a model's fault stays as visible as it is in bf16.
uint16_t quantize_q8(const float* x, int64_t n, int8_t* codes);

}  // namespace longview::cpu
