// Operations by row and by element. Letters: kernels/README.md.
#pragma once

#include "kernels/api/status.h"

namespace longview::kernels {

// out[t] = embedding[tokens[t]]; token ids are in range.
struct EmbedArgs {
  const void* embedding;  // [vocabulary, cols] of `type`
  WeightType type;
  const int32_t* tokens;  // [T], on the device
  float* out;             // [T, cols]
  int64_t tokens_count, cols;
};
Status launch_embed(const EmbedArgs& args, Stream stream);

// out = x / sqrt(mean(x^2) + epsilon) * weight, by row.
struct RmsNormArgs {
  const void* x;  // [rows, cols] of `element`
  Element element;
  const float* weight;  // [cols]
  void* out;            // bf16 [rows, cols]; may be x where that is bf16
  int64_t rows, cols;
  float epsilon;
};
Status launch_rms_norm(const RmsNormArgs& args, Stream stream);

// gate = silu(gate) * up, bf16; count is a multiple of 8, pointers are aligned to 16 bytes.
struct SiluMulArgs {
  void* gate;
  const void* up;
  int64_t count;
};
Status launch_silu_mul(const SiluMulArgs& args, Stream stream);

// x += y; x float32, y bf16; count is a multiple of 8, pointers are aligned to 16 bytes.
struct AddArgs {
  float* x;
  const void* y;
  int64_t count;
};
Status launch_add(const AddArgs& args, Stream stream);

}  // namespace longview::kernels
