// Operations by row and by element. Letters: kernels/README.md.
#pragma once

#include "kernels/api/status.h"

namespace longview::kernels {

// out[t] = embedding[tokens[t]] * scale; token ids are in range. cols is a multiple of 8 and of the type's block, embedding and out are aligned to
// 16 bytes.
struct EmbedArgs {
  const void* embedding;  // [vocabulary, cols] of `type`
  WeightType type;
  const int32_t* tokens;  // [T], on the device
  float* out;             // [T, cols]
  int64_t tokens_count, cols;
  float scale = 1;
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
  int32_t coded = 0;  // not 0: out is kE4M3 instead, made of the values as bf16; x is float32 then, pointers are aligned to 16 bytes
};
Status launch_rms_norm(const RmsNormArgs& args, Stream stream);

// The same of each head of Q and of K, in place. cols, a head's, is at most 256.
struct RmsNormHeadsArgs {
  void* q;  // bf16 [q_rows, cols]
  const float* q_weight;
  int64_t q_rows;
  void* k;  // bf16 [k_rows, cols]
  const float* k_weight;
  int64_t k_rows, cols;
  float epsilon;
};
Status launch_rms_norm_heads(const RmsNormHeadsArgs& args, Stream stream);

// q *= 1 + growth * ln(1 + floor(position / span)), of positions first_position .. + rows - 1; cols is a multiple of 8, q is aligned to
// 16 bytes.
struct ScaleQueriesArgs {
  void* q;  // bf16 [rows, cols]
  int64_t rows, cols, first_position;
  double growth;
  int64_t span;
  const int64_t* position = nullptr;  // on the device: stands for first_position, so that recorded work serves other tokens
};
Status launch_scale_queries(const ScaleQueriesArgs& args, Stream stream);

// gate = gate * sigmoid(gate * (linear + cubic * gate^2)) * up, bf16; count is a multiple of 8, pointers are aligned to 16 bytes.
struct GateMulArgs {
  void* gate;
  const void* up;
  int64_t count;
  GateCurve curve = {};
};
Status launch_gate_mul(const GateMulArgs& args, Stream stream);

// x *= sigmoid(gate), bf16; count is a multiple of 8, pointers are aligned to 16 bytes.
struct SigmoidMulArgs {
  void* x;
  const void* gate;
  int64_t count;
};
Status launch_sigmoid_mul(const SigmoidMulArgs& args, Stream stream);

// Each row of x *= sigmoid(the same row of input . weight). N and K are multiples of 8; pointers are aligned to 16 bytes.
struct ScaleRowsArgs {
  void* x;              // bf16 [T, N]
  const void* input;    // bf16 [T, K]
  const float* weight;  // [K]
  int64_t tokens, cols, k;
};
Status launch_scale_rows(const ScaleRowsArgs& args, Stream stream);

// Each head's first D and last D values to matrices of their own. D is a multiple of 8, at most 1024, H at most 4096; pointers are aligned to
// 16 bytes, none aliases another.
struct SplitHeadsArgs {
  const void* x;  // bf16 [T, H, 2 * D]
  void* first;    // bf16 [T, H, D]
  void* last;     // bf16 [T, H, D]
  int64_t tokens, heads, head_dim;
};
Status launch_split_heads(const SplitHeadsArgs& args, Stream stream);

// Rows to kE4M3 (api/status.h): a row's scale is its largest magnitude / 448, so that this becomes e4m3's largest number; rows
// of zeros have the scale 0. cols as status.h says; pointers are aligned to 16 bytes.
struct QuantizeRowsArgs {
  const void* x;  // bf16 [rows, cols]
  void* out;      // e4m3_bytes(rows, cols)
  int64_t rows, cols;
};
Status launch_quantize_rows(const QuantizeRowsArgs& args, Stream stream);

// out = what launch_gate_mul makes of gate and up, then as launch_quantize_rows makes it.
struct GateMulQuantizeArgs {
  const void* gate;  // bf16 [rows, cols]
  const void* up;
  void* out;  // e4m3_bytes(rows, cols)
  int64_t rows, cols;
  GateCurve curve = {};
};
Status launch_gate_mul_quantize(const GateMulQuantizeArgs& args, Stream stream);

// x += y; x float32, y bf16; count is a multiple of 8, pointers are aligned to 16 bytes.
struct AddArgs {
  float* x;
  const void* y;
  int64_t count;
};
Status launch_add(const AddArgs& args, Stream stream);

// sum += x / sqrt(mean(x^2) + epsilon) * weight, by row. cols is a multiple of 8; pointers are aligned to 16 bytes.
constexpr int64_t kMostAddNormedColumns = 8192;
struct AddNormedArgs {
  float* sum;           // [rows, cols]
  const void* x;        // bf16 [rows, cols]
  const float* weight;  // [cols]
  int64_t rows, cols;
  float epsilon;
};
Status launch_add_normed(const AddNormedArgs& args, Stream stream);

// The index of the largest of x; the first of equals; NaN is behind all numbers.
constexpr int64_t kLargestWorkspaceBytes = 129 * 8;
struct LargestArgs {
  const float* x;  // [count]
  int64_t count;
  void* workspace;  // kLargestWorkspaceBytes, the first 4 of them zero and zero again behind the work; aligned to 16 bytes
  int32_t* index;
};
Status launch_largest(const LargestArgs& args, Stream stream);

// An index that is drawn by `random` from the softmax of x under limits, as native/base/draw.h says; the largest where its value is not
// finite.
struct DrawArgs {
  const float* x;  // [count]
  int64_t count;
  const int32_t* largest;  // of x, on the device
  double scale;            // log2(e) / temperature, finite
  uint32_t least;          // of a weight that is drawn, in 2^-31 of the largest one's
  int64_t top_k;           // 0: no limit
  double top_p;
  uint64_t random;
  uint32_t* weights;  // draw_weights(count) of workspace, aligned to 16 bytes
  int32_t* index;
};
int64_t draw_weights(int64_t count);
Status launch_draw(const DrawArgs& args, Stream stream);

}  // namespace longview::kernels
