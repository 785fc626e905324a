// Attention of few queries (decode) over 8-bit pages, read as they are: the kernel of both formats. A warp takes its steps of the keys through
// stages of its own in shared memory. `Rows`, a CodeRows, is what its format adds: how a step lies in a stage, and what codes become.
#pragma once

#include "kernels/attention/code_rows.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/hold_registers.cuh"

namespace longview::kernels {

constexpr int kCodeStages = 2;

template <typename Rows>
__global__ void __maxnreg__(kJoinRegisters) code_attention_kernel(const AttentionPlan p) {
  extern __shared__ __align__(128) char shared[];
  if constexpr (Rows::kHoldsRegisters)
    if (p.parts < 0) ptx::hold_registers<kJoinRegisters - 8>();  // never: with fewer, a third block would find room (kJoinBlocks)
  const CodeTile tile(p);
  char* own = shared + threadIdx.x / 32 * (kCodeStages * Rows::kStageBytes);
  const auto stage_of = [&](int i) { return own + static_cast<uint32_t>(i % kCodeStages) * Rows::kStageBytes; };
  const auto load = [&](int i) {  // the warp's step i
    const int64_t step = tile.first + i * kJoinWarps, token = step * kStepKeys;
    if (step < tile.end) Rows::load(ptx::shared_address(stage_of(i)), tile.template block<Rows::kFormat>(token), static_cast<int>(token % kPageTokens));
    ptx::cp_async_commit();
  };
  // Recorded work reads keys that lie there already (api/attention.h): they need not wait for the kernel that writes the last one.
  const bool early = p.args.position && min(tile.begin + kCodeStages * kJoinWarps, tile.end) * kStepKeys <= tile.first_position;
  if (early)
    for (int i = 0; i < kCodeStages; ++i) load(i);
  ptx::wait_for_previous();
  ptx::start_dependents();

  Rows rows;
  rows.read_queries(tile);  // ahead of the stages: what is asked for behind them waits for them
  if (!early)
    for (int i = 0; i < kCodeStages; ++i) load(i);
  rows.prepare_queries(p.scale);

#pragma unroll Rows::kStepsAtOnce
  for (int i = 0; tile.first + i * kJoinWarps < tile.end; ++i) {
    ptx::cp_async_wait<kCodeStages - 1>();
    __syncwarp();
    const int64_t token = (tile.first + i * kJoinWarps) * kStepKeys;
    const char* stage = stage_of(i);
    rows.multiply_keys(stage);
    if (tile.crosses(token)) rows.hide(tile, token);
    rows.soften();
    rows.multiply_values(stage, static_cast<int>(min(tile.visible - token, int64_t{kStepKeys})));
    __syncwarp();
    load(i + kCodeStages);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  join_block<Rows::kHeadDim>(p, tile.joined(), shared, [&](const auto& to) { rows.put(to); });
}

template <typename Rows>
Status launch_code_attention(const AttentionPlan& p, Stream stream) {
  static_assert(kJoinWarps * kCodeStages * Rows::kStageBytes <= Rows::kSharedBytes);
  const auto kernel = code_attention_kernel<Rows>;
  if (const Status error = allow_shared(kernel, Rows::kSharedBytes)) return error;
  return launch_dependent(kernel, dim3(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.args.kv.kv_heads), static_cast<unsigned>(p.parts)), kJoinThreads, static_cast<size_t>(Rows::kSharedBytes), stream, p);
}

// `Rows`: of a head dimension and eights of rows.
template <template <int, int> typename Rows>
Status launch_code_attention(const AttentionPlan& p, Stream stream) {
  if (p.args.kv.head_dim == 64) return p.rows <= 8 ? launch_code_attention<Rows<64, 1>>(p, stream) : launch_code_attention<Rows<64, 2>>(p, stream);
  return p.rows <= 8 ? launch_code_attention<Rows<128, 1>>(p, stream) : launch_code_attention<Rows<128, 2>>(p, stream);
}

}  // namespace longview::kernels
