// Attention of few queries (decode) over pages of 8 or 4 bits, read as they are: the kernel of all these formats. A warp takes its steps of the keys through
// stages of its own in shared memory; where there is one alone (heads of 256), its keys are replaced while its values are multiplied, and the
// other way round. `Rows`, a CodeRows, is what its format adds: how a step lies in a stage, and what codes become.
#pragma once

#include "kernels/attention/code_rows.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/hold_registers.cuh"

namespace longview::kernels {

template <typename Rows>
__global__ void __maxnreg__(join_registers(Rows::kHeadDim)) code_attention_kernel(const AttentionPlan p) {
  constexpr int kStages = code_stages(Rows::kHeadDim);
  constexpr bool kInTurns = kStages == 1;  // keys are brought, then values
  extern __shared__ __align__(128) char shared[];
  if constexpr (Rows::kHoldsRegisters)
    if (p.parts < 0) ptx::hold_registers<kJoinRegisters - 8>();  // never: with fewer, a third block would find room (kJoinBlocks)
  const CodeTile tile(p);
  char* own = shared + threadIdx.x / 32 * (kStages * Rows::kStageBytes);
  const auto stage_of = [&](int i) { return own + static_cast<uint32_t>(i % kStages) * Rows::kStageBytes; };
  const auto load = [&](int i, int is_value = 0) {  // the warp's step i
    const int64_t step = tile.first + i * kJoinWarps, token = step * kStepKeys;
    if (step < tile.end) {
      const uint32_t to = ptx::shared_address(stage_of(i));
      const char* block = tile.template block<Rows::kFormat>(token);
      if constexpr (kInTurns) Rows::load_one(to, block, static_cast<int>(token % kPageTokens), is_value);
      else Rows::load(to, block, static_cast<int>(token % kPageTokens));
    }
    ptx::cp_async_commit();
  };
  const auto load_first = [&] {  // two groups, as there are at the beginning of each turn of the loop
    load(0);
    if constexpr (kInTurns) load(0, 1);
    else load(1);
  };
  // Recorded work reads keys that lie there already (api/attention.h): they need not wait for the kernel that writes the last one.
  const bool early = p.args.position && min(tile.begin + kStages * kJoinWarps, tile.end) * kStepKeys <= tile.first_position;
  if (early) load_first();
  ptx::wait_for_previous();
  ptx::start_dependents();

  Rows rows;
  rows.read_queries(tile);  // ahead of the stages: what is asked for behind them waits for them
  if (!early) load_first();
  rows.prepare_queries(p.scale);

#pragma unroll Rows::kStepsAtOnce
  for (int i = 0; tile.first + i * kJoinWarps < tile.end; ++i) {
    ptx::cp_async_wait<1>();
    __syncwarp();
    const int64_t token = (tile.first + i * kJoinWarps) * kStepKeys;
    const char* stage = stage_of(i);
    rows.multiply_keys(stage);
    if (tile.crosses(token)) rows.hide(tile, token);
    if constexpr (kInTurns) {
      __syncwarp();
      load(i + 1);
    }
    rows.soften();
    if constexpr (kInTurns) {
      ptx::cp_async_wait<1>();
      __syncwarp();
    }
    rows.multiply_values(stage, static_cast<int>(min(tile.visible - token, int64_t{kStepKeys})));
    __syncwarp();
    if constexpr (kInTurns) load(i + 1, 1);
    else load(i + kStages);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  join_block<Rows::kHeadDim>(p, tile.joined(), shared, [&](const auto& to) { rows.put(to); });
}

template <typename Rows>
Status launch_code_attention(const AttentionPlan& p, Stream stream) {
  static_assert(kJoinWarps * code_stages(Rows::kHeadDim) * Rows::kStageBytes <= Rows::kSharedBytes);
  const auto kernel = code_attention_kernel<Rows>;
  if (const Status error = allow_shared(kernel, Rows::kSharedBytes)) return error;
  return launch_dependent(kernel, dim3(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.args.kv.kv_heads), static_cast<unsigned>(p.parts)), kJoinThreads, static_cast<size_t>(Rows::kSharedBytes), stream, p);
}

// `Rows`: of a head dimension and eights of rows.
template <template <int, int> typename Rows>
Status launch_code_attention(const AttentionPlan& p, Stream stream) {
  if (p.args.kv.head_dim == 64) return p.rows <= 8 ? launch_code_attention<Rows<64, 1>>(p, stream) : launch_code_attention<Rows<64, 2>>(p, stream);
  if (p.args.kv.head_dim == 128) return p.rows <= 8 ? launch_code_attention<Rows<128, 1>>(p, stream) : launch_code_attention<Rows<128, 2>>(p, stream);
  return launch_code_attention<Rows<256, code_rows(256) / 8>>(p, stream);
}

}  // namespace longview::kernels
