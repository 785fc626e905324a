// Sparse prefill attention on sm_90: persistent blocks take one tile after the other. The first warpgroup brings what they need
// (sparse_tiles_sm90); two warpgroups of 64 rows multiply, as in dense attention.
#include "kernels/attention/rows_e4m3_sm90.cuh"
#include "kernels/attention/rows_sm90.cuh"
#include "kernels/attention/sparse_tiles_sm90.cuh"
#include "kernels/common/sink.cuh"
#include "kernels/index/sparse.cuh"
#include "kernels/ptx/shared.cuh"

namespace longview::kernels {
namespace {

template <int D, class Rows>
__global__ void __launch_bounds__(kThreads, 1) sparse_attention_sm90_kernel(const SparsePlan p) {
  using Stages = typename Rows::Stages;
  constexpr uint32_t kQueryBytes = Shared<Rows>::kQueryBytes;
  constexpr int kSlots = Shared<Rows>::kSlots, kPartKeys = Rows::kBlockKeys, kParts = kKeys / kPartKeys;  // of a page
  extern __shared__ char shared_bytes[];
  __shared__ uint64_t barriers[4 * Stages::kStages + 2 * kSlots];
  __shared__ Slot slots[kSlots];
  const uint32_t offset = -ptx::shared_address(shared_bytes) & 1023, queries = ptx::shared_address(shared_bytes) + offset;
  auto* all_bits = reinterpret_cast<uint32_t*>(shared_bytes + offset + Shared<Rows>::kBits);
  const Stages stages(queries + kSlots * kQueryBytes, ptx::shared_address(barriers));
  const uint32_t slot_full = ptx::shared_address(barriers + 4 * Stages::kStages), slot_empty = slot_full + 8 * kSlots;
  if (threadIdx.x == 0) {
    stages.init();
    for (uint32_t i = 0; i < kSlots; ++i) {
      ptx::mbarrier_init(slot_full + 8 * i, kLoaders);
      ptx::mbarrier_init(slot_empty + 8 * i, 1 + 2 * 128);  // the copying thread and all that multiply
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();

  const Tiles tiles{slots, queries, slot_full, slot_empty, all_bits};
  const int warpgroup = static_cast<int>(threadIdx.x / 128) - 1;
  if (warpgroup < 0) {
    ptx::registers_down<40>();
    if (threadIdx.x >= 32) return prepare_tiles<D, Rows>(p, tiles);
    return bring_blocks<Rows>(p, tiles, stages);
  }

  ptx::registers_up<232>();
  const int lane = threadIdx.x % 32, row_in_tile = warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  Rows rows;
  uint32_t turn = 0, number = 0;  // of the tile, and of the block whose scores were computed last
  PageWalk walk(all_bits, 0);
  const auto own = [&] { return queries + turn % kSlots * kQueryBytes + warpgroup * Rows::kWarpgroupBytes; };  // queries
  const auto take = [&]() -> int {
    ptx::mbarrier_wait(slot_full + 8 * (turn % kSlots), turn / kSlots & 1);
    const Slot& slot = slots[turn % kSlots];
    walk = PageWalk(all_bits + turn % kSlots * p.words, slot.tile.pages);
    rows.take_scales(own());
    return slot.visited == 0 ? 0 : (slot.visited + slot.means) * kParts;
  };
  // Returns what the keys are: part kParts * page + i of a page, or ~ one of a block of means. The copying warp walks the same bits in the
  // same order.
  int parted = 0;  // the page, or ~ block of means
  const auto multiply_keys = [&](int left) {
    rows.multiply_keys(stages, own(), number);
    const Slot& slot = slots[turn % kSlots];
    const auto next = [&](int blocks_left) { return blocks_left > slot.means ? walk.next() : ~(slot.tile.first_candidate / kBlockKeys + slot.means - blocks_left); };
    if constexpr (kParts == 1) return next(left);
    if (left % kParts == 0) parted = next(left / kParts);
    const int part = (kParts - left % kParts) % kParts;
    return parted >= 0 ? parted * kParts + part : ~(~parted * kParts + part);
  };
  const auto hide = [&](int block) {
    const Tile& tile = slots[turn % kSlots].tile;
    if (block < 0) {
      const uint32_t biases = stages.biases(number);
      add_biases(rows.score, rows.slope(p.scale, 0), rows.slope(p.scale, 1), [&](int key) { return ptx::load_shared_pair(biases + key * 4); });
      return;
    }
    const int begin = block * kPartKeys, heads = tile.group.heads, row = tile.first_row + row_in_tile, sink = tile.group.sink;
    const int window = tile.group.limited ? tile.group.window : kLargestPosition;
    const bool diagonal = begin + kPartKeys > tile.first_position + 1, border = begin + kPartKeys > sink && begin <= tile.last_position - window;
    if (!diagonal && !border) return;
    const int first = static_cast<int>(p.args.first_position) - begin, limit0 = first + row / heads, limit1 = first + (row + 8) / heads;
    if (diagonal) hide_behind(rows.score, limit0, limit1);
    if (border) hide_between(rows.score, sink - begin, limit0 - window, limit1 - window);
  };
  // Stores the results of the tile in this slot, which the loaders may then use again.
  const auto finish = [&](uint32_t at, const float(&sum)[2]) {
    const Tile& tile = slots[at].tile;
    const auto place = [&](int row) { return row < tile.first_row + tile.rows ? static_cast<__nv_bfloat16*>(p.args.out) + row_offset(p, tile, row) * D : nullptr; };
    __nv_bfloat16 *to0 = place(tile.first_row + row_in_tile), *to1 = place(tile.first_row + row_in_tile + 8);
    ptx::mbarrier_arrive(slot_empty + 8 * at);
    rows.store(to0, to1, sum);
  };

  // The sums of the tile in this slot, to which sinks add what they weigh.
  const auto add_sinks = [&](uint32_t at, float (&sum)[2]) {
    if constexpr (D == kSinkHeadDim) {
      if (!p.args.sinks || threadIdx.x % 4 != 0) return;
      const Tile& tile = slots[at].tile;
#pragma unroll
      for (int r = 0; r < 2; ++r) sum[r] += sink_weight(p.args.sinks, tile.group.first_head + (tile.first_row + row_in_tile + 8 * r) % tile.group.heads, rows.base(p.scale, r));
    }
  };

  // As in dense attention, the scores of the next block are computed while the weights of this one meet its values; the next
  // block may be the first of the next tile, where the slots have its queries.
  const auto begin_tile = [&](int left) {
    rows.begin();
    const int block = multiply_keys(left);
    ptx::wgmma_wait<0>();
    rows.scores_done(stages, number);
    hide(block);
    rows.keys_done(stages, number);
    rows.soften(p.scale);
    rows.pack();
  };
  if constexpr (kSlots == 1) {
    for (int left = take(); left > 0; left = take(), ++number) {
      begin_tile(left);
      bool first = true;
      for (; --left > 0; first = false) {
        ++number;
        const int block = multiply_keys(left);
        rows.multiply_values(stages, number - 1, first);
        ptx::wgmma_wait<1>();
        rows.scores_done(stages, number);
        hide(block);
        rows.keys_done(stages, number);
        rows.soften(p.scale);
        ptx::wgmma_wait<0>();
        rows.values_done(stages, number - 1);
        rows.shrink();
        rows.pack();
      }
      rows.multiply_values(stages, number, first);
      ptx::wgmma_wait<0>();
      rows.values_done(stages, number);
      add_sinks(turn % kSlots, rows.sum);
      finish(turn++ % kSlots, rows.sum);
    }
    return;
  }
  int left = take();
  if (left == 0) return;
  begin_tile(left);
  bool first = true;
  for (;;) {
    const bool switches = --left == 0;
    if (switches) {
      ++turn;
      left = take();
      if (left == 0) break;
    }
    ++number;
    const int block = multiply_keys(left);
    rows.multiply_values(stages, number - 1, first);
    ptx::wgmma_wait<1>();
    rows.scores_done(stages, number);
    const float earlier[2] = {rows.factor[0], rows.factor[1]};
    float sum[2] = {rows.sum[0], rows.sum[1]};
    if (switches) {
      add_sinks((turn - 1) % kSlots, sum);
      rows.begin();
    }
    hide(block);
    rows.keys_done(stages, number);
    rows.soften(p.scale);
    ptx::wgmma_wait<0>();
    rows.values_done(stages, number - 1);
    rows.collect(first, earlier);
    if (switches) finish((turn - 1) % kSlots, sum);
    else rows.shrink();
    rows.pack();
    first = switches;
  }
  rows.multiply_values(stages, number, first);
  ptx::wgmma_wait<0>();
  rows.values_done(stages, number);
  rows.collect(first, rows.factor);
  add_sinks((turn - 1) % kSlots, rows.sum);
  finish((turn - 1) % kSlots, rows.sum);
}

template <int D, class Rows>
Status launch(const SparsePlan& p, Stream stream) {
  const auto kernel = sparse_attention_sm90_kernel<D, Rows>;
  const auto bytes = static_cast<int>(Shared<Rows>::bytes(p));
  if (const Status error = allow_shared(kernel, bytes)) return error;
  if (const Status error = clear(p.next_tile, sizeof(int32_t), stream)) return error;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(p.args.tiles, p.args.multiprocessors));
  kernel<<<grid, kThreads, bytes, cuda(stream)>>>(p);
  return launched();
}

template <int D>
Status launch(const SparsePlan& p, Stream stream) {
  return p.args.kv.format == PageFormat::kE4M3 ? launch<D, RowsE4M3Sm90<D>>(p, stream) : launch<D, RowsSm90<D>>(p, stream);
}

}  // namespace

Status launch_sparse_attention_sm90(const SparsePlan& plan, Stream stream) {
  const int64_t d = plan.args.kv.head_dim;
  return d == 64 ? launch<64>(plan, stream) : d == 128 ? launch<128>(plan, stream) : launch<256, RowsSm90<256>>(plan, stream);
}

}  // namespace longview::kernels
