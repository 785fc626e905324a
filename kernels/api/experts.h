// A layer's mixture of experts (native/backend/backend.h, norm_add_experts). E experts, S of them for each token.
//
// Few tokens read the matrices of their experts as they are stored: choose, gates, downs. Many are put into the experts' order, where each
// expert's rows are a product of their own (GemmArgs::groups): choose, group, gather, products, combine.
#pragma once

#include "kernels/api/gemm.h"

namespace longview::kernels {

constexpr int64_t kMostExperts = 512, kMostExpertsUsed = 32;
constexpr bool experts_fit(int64_t experts, int64_t used) { return experts > 0 && experts <= kMostExperts && used > 0 && used <= experts && used <= kMostExpertsUsed; }

// The S experts with the largest scores, larger ones first, of equals the earlier ones; a score that is NaN is behind all others. A share
// is exp(score) over the sum of all, or of the S.
struct ChooseExpertsArgs {
  const float* scores;  // [T, E]
  int32_t* chosen;      // [T, S]
  float* shares;        // [T, S]
  int64_t tokens, experts, used;
  int32_t normalised;  // not 0: over the sum of the S
};
Status launch_choose_experts(const ChooseExpertsArgs& args, Stream stream);

// Rows in the order of experts, those of one token after those of earlier ones, each expert's filled up to whole tiles of kGroupRows.
// At most grouped_rows() of them.
struct GroupExpertsArgs {
  const int32_t* chosen;  // [T, S]
  int32_t* counts;        // [E], of rows without padding
  int32_t* places;        // [T, S]: the row
  int32_t* row_tokens;    // [grouped_rows]: the token, or -1 of padding; not written behind the last tile
  int32_t* groups;        // [grouped_rows / kGroupRows]: the expert, or -1 behind the last tile
  int64_t tokens, experts, used;
};
constexpr int64_t grouped_rows(int64_t tokens, int64_t experts, int64_t used) {
  const int64_t rows = tokens * used, partial = rows < experts ? rows : experts;
  return (rows / kGroupRows + partial) * kGroupRows;
}
Status launch_group_experts(const GroupExpertsArgs& args, Stream stream);

// out[r] = x[row_tokens[r]], zeros where that is -1; nothing behind the last tile. bf16; cols is a multiple of 8, x and out are
// aligned to 16 bytes.
struct GatherRowsArgs {
  const void* x;  // [T, cols]
  const int32_t *row_tokens, *groups;
  void* out;  // [rows, cols]
  int64_t rows, cols;
};
Status launch_gather_rows(const GatherRowsArgs& args, Stream stream);

// gate = what gpt-oss's experts make of gate + gate_biases and up + up_biases (native/backend/backend.h, Experts::clamped), of rows in the experts'
// order; nothing behind the last tile. n is a multiple of 8, gate and up are aligned to 16 bytes.
struct ActivateExpertsArgs {
  void* gate;      // bf16 [rows, N]
  const void* up;  // bf16 [rows, N]
  const int32_t* groups;
  const float *gate_biases, *up_biases;  // [E, N]
  int64_t rows, n;
};
Status launch_activate_experts(const ActivateExpertsArgs& args, Stream stream);

// sum[t] += shares[t, s] * (rows[places[t, s]] + the bias of expert chosen[t, s]) of all s, in their order. cols is a multiple of 8, rows and sum are aligned to 16 bytes.
struct CombineExpertsArgs {
  const void* rows;  // bf16 [rows, cols]
  const int32_t* places;
  const float* shares;
  float* sum;  // [T, cols]
  int64_t tokens, used, cols;
  const int32_t* chosen = nullptr;  // [T, S], where there are biases
  const float* biases = nullptr;    // [E, cols]; null: none
};
Status launch_combine_experts(const CombineExpertsArgs& args, Stream stream);

// Matrices of all experts lie behind each other: [E, N, K] of `type`, not kE4M3. Pointers are aligned to 16 bytes. Quantised ones meet x
// in 8-bit codes, as in launch_matvec_row, or as it is where `exact` is not 0.
struct ExpertGatesArgs {
  const void* x;  // bf16 [T, K]
  WeightType type;
  const void *gates, *ups;
  const int32_t* chosen;  // [T, S]
  void* out;              // bf16 [T, S, N]: silu(gate) * up, or with biases what launch_activate_experts makes of them
  int64_t tokens, used, n, k;
  int32_t exact = 0;
  const float *gate_biases = nullptr, *up_biases = nullptr;  // [E, N]; null: none
};
Status launch_expert_gates(const ExpertGatesArgs& args, Stream stream);

// sum[t] += shares[t, s] * (down_s * x[t, s] + its bias) of all s.
struct ExpertDownsArgs {
  const void* x;  // bf16 [T, S, K]
  WeightType type;
  const void* downs;
  const int32_t* chosen;
  const float* shares;
  float* sum;  // [T, N]
  int64_t tokens, used, n, k;
  int32_t exact = 0;
  const float* biases = nullptr;  // [E, N]; null: none
};
Status launch_expert_downs(const ExpertDownsArgs& args, Stream stream);
// Whether the codes of x, and those of all S, fit where these keep them.
constexpr bool expert_gates_fit(int64_t k) { return codes_bytes(k) <= kMostCodesBytes; }
constexpr bool expert_downs_fit(int64_t used, int64_t k) { return expert_gates_fit(used * k); }

}  // namespace longview::kernels
