// Gates: of what attention gives, and of the two halves of an FFN.
#pragma once

#include "kernels/api/status.h"

namespace longview::kernels {

// x * sigmoid(gate).
__device__ inline float gated(float x, float gate) { return x / (1.0f + __expf(-gate)); }

// What the sigmoid is of. The square is bounded, so that a cubic of 0 leaves nothing of it.
__device__ inline float on_curve(float gate, GateCurve curve) { return gate * fmaf(curve.cubic, fminf(gate * gate, 1e30f), curve.linear); }

__device__ inline float gate_mul(float gate, float up, GateCurve curve) { return gated(gate, on_curve(gate, curve)) * up; }

}  // namespace longview::kernels
