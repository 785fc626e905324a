// 1 / x to one unit in the last place; 0 for what is infinite or nearly so.
#pragma once

namespace longview::kernels::ptx {

__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace longview::kernels::ptx
