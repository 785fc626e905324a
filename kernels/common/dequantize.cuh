// 32 neighbouring elements of a stored weight row, in float: the unit in which all kernels read weights.
#pragma once

#include "kernels/common/bf16.cuh"
#include "kernels/common/e4m3.cuh"
#include "kernels/common/weight_blocks.cuh"

namespace longview::kernels {

// All of a group.
struct Group : Scales {
  uint32_t words[8];
};
template <WeightType kType>
__device__ inline Group load_quantized(const uint8_t* row, int64_t group) {
  Group g{load_scales<kType>(row, group), {}};
  load_codes<kType, 4>(row, group, 0, g.words);
  return g;
}

// Elements 32 * group .. + 31 of the row that begins at `row`; of kE4M3 without the row's scale.
template <WeightType kType>
__device__ inline void load_group(const uint8_t* row, int64_t group, float (&out)[kGroup]) {
  if constexpr (kType == WeightType::kBFloat16) {
    const auto* p = reinterpret_cast<const uint4*>(row + group * kGroup * 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float part[8];
      unpack_bf16x8(p[i], part);
#pragma unroll
      for (int j = 0; j < 8; ++j) out[8 * i + j] = part[j];
    }
  } else if constexpr (kType == WeightType::kE4M3) {
    const auto* p = reinterpret_cast<const uint2*>(row + group * kGroup);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float part[8];
      unpack_e4m3x8(p[i], part);
#pragma unroll
      for (int j = 0; j < 8; ++j) out[8 * i + j] = part[j];
    }
  } else {
    const Group g = load_quantized<kType>(row, group);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      out[4 * i] = fmaf(g.scale[i / 4], byte_to_float<0>(g.words[i]), g.offset[i / 4]);
      out[4 * i + 1] = fmaf(g.scale[i / 4], byte_to_float<1>(g.words[i]), g.offset[i / 4]);
      out[4 * i + 2] = fmaf(g.scale[i / 4], byte_to_float<2>(g.words[i]), g.offset[i / 4]);
      out[4 * i + 3] = fmaf(g.scale[i / 4], byte_to_float<3>(g.words[i]), g.offset[i / 4]);
    }
  }
}

// Calls body.template operator()<type>() for the type at run time; false where there is none.
template <typename Body>
bool for_type(WeightType type, const Body& body) {
  switch (type) {
    case WeightType::kQ4_0: body.template operator()<WeightType::kQ4_0>(); return true;
    case WeightType::kQ4_1: body.template operator()<WeightType::kQ4_1>(); return true;
    case WeightType::kQ5_0: body.template operator()<WeightType::kQ5_0>(); return true;
    case WeightType::kQ5_1: body.template operator()<WeightType::kQ5_1>(); return true;
    case WeightType::kQ8_0: body.template operator()<WeightType::kQ8_0>(); return true;
    case WeightType::kQ3_K: body.template operator()<WeightType::kQ3_K>(); return true;
    case WeightType::kQ4_K: body.template operator()<WeightType::kQ4_K>(); return true;
    case WeightType::kQ5_K: body.template operator()<WeightType::kQ5_K>(); return true;
    case WeightType::kQ6_K: body.template operator()<WeightType::kQ6_K>(); return true;
    case WeightType::kIQ4_NL: body.template operator()<WeightType::kIQ4_NL>(); return true;
    case WeightType::kIQ4_XS: body.template operator()<WeightType::kIQ4_XS>(); return true;
    case WeightType::kMXFP4: body.template operator()<WeightType::kMXFP4>(); return true;
    case WeightType::kBFloat16: body.template operator()<WeightType::kBFloat16>(); return true;
    case WeightType::kE4M3: body.template operator()<WeightType::kE4M3>(); return true;
  }
  return false;
}

}  // namespace longview::kernels
