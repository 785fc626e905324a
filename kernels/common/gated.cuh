// What gated attention makes of a result.
#pragma once

namespace longview::kernels {

__device__ inline float gated(float x, float gate) { return x / (1.0f + __expf(-gate)); }

}  // namespace longview::kernels
