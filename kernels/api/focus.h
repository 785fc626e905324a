// Which keys attention is fixed on: sums of its squared weights, by which an answer's sources are found.
#pragma once

#include "kernels/api/cache.h"

namespace longview::kernels {

// T queries at first_position .. + T - 1, as of AttentionArgs; first_position + T is at most 2^30. Pages are in bf16.
struct FocusArgs {
  const void* q;  // bf16 [T, H, D], aligned to 16 bytes
  PagedKv kv;
  int64_t tokens, heads, first_position;
  float* focus;      // [keys]
  int64_t keys;      // at most first_position + T
  float* workspace;  // focus_workspace_floats(args), aligned to 16 bytes
  int32_t architecture = 0;  // 80: the kernels of sm_80 on any device, for tests; 0: the device's best
  const float* sinks = nullptr;  // as of AttentionArgs
};
// Maximum and sum of each row in each part of the keys.
constexpr int64_t focus_workspace_floats(const FocusArgs& args) { return key_parts((args.first_position + args.tokens + kPageTokens - 1) / kPageTokens) * args.tokens * args.heads * 2; }
// focus[k] += the squares of the softmax weights of key k, over all tokens and heads.
Status launch_focus(const FocusArgs& args, Stream stream);

}  // namespace longview::kernels
