// 2^x to two units in the last place; 0 for minus infinity.
#pragma once

namespace longview::kernels::ptx {

__device__ inline float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace longview::kernels::ptx
