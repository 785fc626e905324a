// Causal attention over KV pages by online softmax.
#pragma once

#include "kernels/api/cache.h"

namespace longview::kernels {

// A token whose queries are not rotated yet, and whose K and V are in no page: attention does both on its way, as launch_rope_append would, of
// heads as wide as the pages and rotated by halves of the whole. All pointers at a multiple of 16 bytes.
struct AppendedToken {
  const void* k = nullptr;        // bf16 [G, D]
  const void* v = nullptr;        // bf16 [G, D]
  const float* cosine = nullptr;  // [D / 2]
  const float* sine = nullptr;
};

// T queries at first_position .. + T - 1, each over the tokens up to itself, or the last `span` of them. Scale 1/sqrt(D), D 64, 128 or 256. Pages of 8 and 4 bits are read as they
// are by few queries: each 16 rows (token, head of a KV head), or 8 where D is 256, read all of them once. Many queries read copies
// (launch_expand_pages), but for e4m3 pages where attention_multiplies_e4m3 holds: queries and weights are e4m3 there too.
struct AttentionArgs {
  const void* q;  // bf16 [T, H, D], aligned to 16 bytes, as is out
  void* out;      // bf16 [T, H, D]
  PagedKv kv;
  int64_t tokens, heads, first_position;
  int32_t multiprocessors;  // of the device; decides into how many parts few queries are split
  float* workspace;         // attention_workspace_floats(args) floats, the first 4,096 of them zero and zero again behind the work; may be null where that is 0
  int32_t architecture = 0;  // 80: the kernels of sm_80 on any device, for tests; 0: the device's best
  // On the device: stands for first_position, which still decides into how many parts the keys are split: recorded work serves
  // other tokens for which attention_workspace_floats is the same. K and V of the tokens before it, the page table and the position
  // itself were written before the kernel in front of this one was launched: they are read before that kernel is over.
  const int64_t* position = nullptr;
  // Where its k is null, all tokens are in their pages. Else first_position decides whose page's means are made.
  AppendedToken appended = {};
  // Not null, where attention_gates holds: each head's results, rounded to bf16, are multiplied with the sigmoids of its gates, as launch_sigmoid_mul
  // does it.
  const void* gates = nullptr;  // bf16 [H, D], aligned to 16 bytes
  int64_t gate_stride = 0;      // elements from a head's gates to the next one's, a multiple of 8
  int64_t span = 0;             // 0: all
  const float* sinks = nullptr;  // [H], on the device: scores, already scaled, that are in their head's softmax beside its keys', and stand for no value; null: none
};
// Whether the call may gate its results: those of one token, and few query heads to a KV head.
constexpr bool attention_gates(const AttentionArgs& args) { return args.tokens == 1 && args.kv.kv_heads > 0 && args.heads / args.kv.kv_heads <= 16; }
// Whether the call may append its token: one, over bf16 pages, D 64 or 128, and few query heads to a KV head.
bool attention_appends(const AttentionArgs& args);
// Whether the device's tensor cores multiply the codes of e4m3 pages: compute capability 9.0, D 64 or 128, and enough rows that every multiprocessor
// has 128 without a split of the keys.
bool attention_multiplies_e4m3(const AttentionArgs& args);
int64_t attention_workspace_floats(const AttentionArgs& args);
Status launch_attention(const AttentionArgs& args, Stream stream);

}  // namespace longview::kernels
