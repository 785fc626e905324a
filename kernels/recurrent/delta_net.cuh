// How a call is laid out, and its kernels behind launch_delta_net, which has checked the arguments.
#pragma once

#include <cuda_fp16.h>

#include "kernels/api/recurrent.h"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/reciprocal.cuh"

namespace longview::kernels {

struct DeltaPlan {
  DeltaNetArgs args;
  int64_t channels, chunks;
  int32_t continued;  // not 0: the state before these tokens lies where that behind them does
  // Of more than kDeltaRowTokens:
  void* x;        // behind convolution, activation and norm, as chunk_tile.cuh says
  float2* gates;  // [Hv, T]: {log2 of the decay, b}
  char* tiles;    // [chunks, Hv] of kDeltaTileBytes
};

__device__ inline const char* state_before(const DeltaPlan& p) {
  return p.args.states ? static_cast<const char*>(p.args.states[p.continued ? 1 : 0]) + p.args.state_offset : static_cast<const char*>(p.continued ? p.args.after : p.args.before);
}
__device__ inline char* state_after(const DeltaPlan& p) {
  return p.args.states ? static_cast<char*>(p.args.states[1]) + p.args.state_offset : static_cast<char*>(p.args.after);
}
// Where the convolution's inputs lie in a state.
__device__ inline int64_t conv_offset(const DeltaPlan& p) { return p.args.value_heads * p.args.head_dim * p.args.head_dim * 4; }

__device__ inline int64_t key_head_of(const DeltaPlan& p, int64_t value_head) {
  return p.args.tiled ? value_head % p.args.key_heads : value_head / (p.args.value_heads / p.args.key_heads);
}
__device__ inline int64_t first_value_head(const DeltaPlan& p, int64_t key_head) { return p.args.tiled ? key_head : key_head * (p.args.value_heads / p.args.key_heads); }
__device__ inline float sigmoid(float x) { return ptx::reciprocal(1.0f + ptx::exp2(-1.4426950408889634f * x)); }
__device__ inline float silu(float x) { return x * sigmoid(x); }

// At most kDeltaRowTokens, to `out`.
Status launch_delta_row(const DeltaPlan& plan, Stream stream);
// x and gates of all tokens, and the convolution's part of the state; tiles of all chunks; then, from chunk to chunk, S and o, the latter in `out`; then `out` normed and gated.
Status launch_chunk_conv(const DeltaPlan& plan, Stream stream);
Status launch_delta_chunks(const DeltaPlan& plan, Stream stream);
Status launch_delta_scan(const DeltaPlan& plan, Stream stream);
Status launch_delta_scan_sm90(const DeltaPlan& plan, Stream stream);  // of heads of 128
Status launch_delta_norm(const DeltaPlan& plan, Stream stream);

}  // namespace longview::kernels
