// Gated DeltaNet, the linear attention of Qwen3-Next and Qwen3.5 (Yang et al., arXiv:2412.06464): a head keeps a matrix S [D, D], keys
// by values, which every token decays and corrects, in place of keys and values of all tokens.
#pragma once

#include "kernels/api/status.h"

namespace longview::kernels {

// Hk heads of queries and keys, Hv of values, a multiple of them, all D wide; C = (2 Hk + Hv) D channels, the queries' in front.
constexpr int64_t kConvWidth = 4;
constexpr int64_t delta_channels(int64_t key_heads, int64_t value_heads, int64_t head_dim) { return (2 * key_heads + value_heads) * head_dim; }

// A layer's state: S, float32 [Hv, D, D], and behind it the last three inputs of every channel, bf16 [3, C], the oldest first. Zeros
// at a sequence's beginning. In bytes, a multiple of 256.
constexpr int64_t delta_state_bytes(int64_t key_heads, int64_t value_heads, int64_t head_dim) {
  const int64_t bytes = value_heads * head_dim * head_dim * 4 + (kConvWidth - 1) * delta_channels(key_heads, value_heads, head_dim) * 2;
  return (bytes + 255) / 256 * 256;
}

// For each token:
//   x = silu(convolution of the channel's last four inputs); q and k are x * rsqrt(sum of the head's x^2 + 1e-6), q times 1 / sqrt(D)
//   g = decay * softplus(alpha + dt_bias), b = sigmoid(beta)
//   S *= exp(g); S += k (b (v - S^T k))^T; o = S^T q
//   out = o * rsqrt(mean of o^2 + epsilon) * norm * silu(z)
// At most kDeltaRowTokens tokens are taken one by one in float32. More go in chunks of 64 over the tensor cores, S and all sums in
// float32, their factors in fp16 (recurrent/chunk_tile.cuh). What is not a number stays in the chunks from its own on, and in its own heads.
constexpr int64_t kDeltaRowTokens = 16;
struct DeltaNetArgs {
  const void* qkv;       // bf16 [T, C]
  const void* z;         // bf16 [T, Hv, D]
  const void* alpha;     // bf16 [T, Hv]; not read where there is an `input`, nor is beta
  const void* beta;      // bf16 [T, Hv]
  const float* conv;     // [C, 4], the newest input's weight last
  const float* decay;    // [Hv]: -exp(A_log)
  const float* dt_bias;  // [Hv]
  const float* norm;     // [D]
  void* out;             // bf16 [T, Hv, D]; none of the inputs
  // The layer's state before these tokens and behind them, aligned to 256 bytes, in memory that does not overlap.
  const void* before;
  void* after;
  // Not null: on the device, {before, after} when the work runs, so that a recording may be launched with others; the layer's state
  // begins `state_offset` bytes, a multiple of 256, behind each of them. `before` and `after` are not read then. The pointers and
  // the state before these tokens are read while kernels in front of this call are not over: they were there before the recording was launched,
  // or a copy stands in front of the call.
  void* const* states;
  int64_t state_offset;
  void* workspace;  // delta_net_workspace_bytes(), aligned to 256 bytes; any content; may be null where that is 0
  int64_t tokens, key_heads, value_heads, head_dim;  // D: 32, 64 or 128
  float epsilon;
  int32_t tiled;  // not 0: value head h goes with key head h % Hk; 0: with h / (Hv / Hk)
  int32_t architecture = 0;  // 80: the kernels of sm_80 on any device, for tests; 0: the device's best
  // Not null, of one token: its alpha and beta are products of this and two weights, summed up in float32 in fixed order.
  const void* input = nullptr;         // bf16 [K]
  const void* alpha_weight = nullptr;  // bf16 [Hv, K]
  const void* beta_weight = nullptr;   // bf16 [Hv, K]
  int64_t k = 0;                       // a multiple of 8
};
// Nothing is allocated, and the host is not waited for. qkv, z, conv, norm, out, input and its weights are aligned to 16 bytes.
Status launch_delta_net(const DeltaNetArgs& args, Stream stream);

// More tokens are worked on in parts of so many.
constexpr int64_t kDeltaPartTokens = 2048, kDeltaChunkTokens = 64;
// Of a chunk and value head: two matrices [64, 64] in fp16 without a quarter of zeros, and three floats a token (recurrent/chunk_tile.cuh).
constexpr int64_t kDeltaTileBytes = 2 * 6144 + kDeltaChunkTokens * 12;
// Enough for fewer tokens, too.
constexpr int64_t delta_net_workspace_bytes(int64_t tokens, int64_t key_heads, int64_t value_heads, int64_t head_dim) {
  const auto whole = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
  if (tokens <= kDeltaRowTokens) return 0;
  const int64_t part = tokens < kDeltaPartTokens ? tokens : kDeltaPartTokens, channels = delta_channels(key_heads, value_heads, head_dim);
  const int64_t chunks = (part + kDeltaChunkTokens - 1) / kDeltaChunkTokens;
  return whole(chunks * kDeltaChunkTokens * channels * 2) + whole(part * value_heads * 8) + chunks * value_heads * kDeltaTileBytes;
}

}  // namespace longview::kernels
