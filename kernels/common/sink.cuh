// A score that each head has of its own (AttentionArgs::sinks): it takes its share of a row's softmax, and no value stands behind it.
#pragma once

#include "kernels/ptx/exp2.cuh"

namespace longview::kernels {

// What it weighs in a sum of weights relative to `maximum`, which is in log2 units; 0 where there are none.
__device__ inline float sink_weight(const float* sinks, int64_t head, float maximum) {
  return sinks ? ptx::exp2(fmaf(sinks[head], 1.4426950408889634f, -maximum)) : 0.0f;
}

}  // namespace longview::kernels
