// Rotary positions of a pair of dimensions. How often it is rounded is written out, so that all kernels make the same bits: a key that
// decode appends is the one that prefill would.
#pragma once

namespace longview::kernels {

__device__ inline float rotated_low(float low, float high, float cosine, float sine) { return fmaf(low, cosine, -(high * sine)); }
__device__ inline float rotated_high(float low, float high, float cosine, float sine) { return fmaf(low, sine, high * cosine); }

}  // namespace longview::kernels
