// What the first warpgroup of sparse attention does on sm_90: one warp copies K and V of the pages that a tile visits and then the blocks of
// means, with what their keys have in their exponents; three warps prepare the next tile, its queries and its bits. Blocks of keys are a
// page's, or of heads of 256 its halves; there is no room for the queries of two tiles of these: a tile's are brought when the one before is
// stored, which is little beside the time that a tile takes.
#pragma once

#include "kernels/attention/rows_sm90.cuh"
#include "kernels/index/sparse.cuh"
#include "kernels/ptx/shared.cuh"

namespace longview::kernels {

constexpr int kLoaders = 96, kLoaderBarrier = 3;  // threads; of the named barriers

// A tile on its way through a block.
struct Slot {
  Tile tile;
  int visited, means;  // pages; blocks of means. 0 visited: there are no more tiles
};

// What lies where in shared memory: queries of the slots, stages of keys and values, bits of the slots.
template <class Rows>
struct Shared {
  static constexpr int kSlots = Rows::kBlockKeys == kKeys ? 2 : 1;
  static constexpr uint32_t kQueryBytes = 2 * Rows::kWarpgroupBytes;
  static constexpr uint32_t kBits = kSlots * kQueryBytes + Rows::Stages::kBytes;  // where the bits begin
  static int64_t bytes(const SparsePlan& p) { return kBits + kSlots * p.words * 4 + 1024; }
};

// Of q and of the results, in heads: a row of the tile's group.
__device__ inline int64_t row_offset(const SparsePlan& p, const Tile& t, int row) { return static_cast<int64_t>(row / t.group.heads) * p.args.heads + t.group.first_head + row % t.group.heads; }

__device__ inline void sync_loaders() { asm volatile("bar.sync %0, %1;" ::"n"(kLoaderBarrier), "n"(kLoaders) : "memory"); }

// The tiles on their way through a block, in shared memory: [kSlots] each.
struct Tiles {
  Slot* slots;
  uint32_t queries, full, empty;  // addresses: Shared::kQueryBytes each, and barriers
  uint32_t* bits;                 // of all pages each
};

// By threads 32 .. 127.
template <int D, class Rows>
__device__ inline void prepare_tiles(const SparsePlan& p, const Tiles& tiles) {
  constexpr int kSlots = Shared<Rows>::kSlots;
  constexpr uint32_t kQueryBytes = Shared<Rows>::kQueryBytes;
  const int thread = static_cast<int>(threadIdx.x) - 32;
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t at = turn % kSlots;
    Slot& slot = tiles.slots[at];
    ptx::mbarrier_wait(tiles.empty + 8 * at, (turn / kSlots & 1) ^ 1);
    if (thread == 0) {
      const int index = atomicAdd(p.next_tile, 1);
      slot.visited = 0;
      slot.means = index;  // for the other loaders
      if (index < p.args.tiles) slot.tile = find_tile(p, index);
    }
    sync_loaders();
    const int index = slot.means;
    const Tile tile = slot.tile;
    sync_loaders();
    if (index < p.args.tiles) {
      if (thread == 0) slot.means = tile.mean_blocks();
      const auto place = [&](int row) { return row < tile.rows ? static_cast<const __nv_bfloat16*>(p.args.q) + row_offset(p, tile, tile.first_row + row) * D : nullptr; };
      for (int half = 0; half < 2; ++half) Rows::template load_queries<kLoaders>(tiles.queries + at * kQueryBytes + half * Rows::kWarpgroupBytes, [&](int row) { return place(half * 64 + row); }, thread);
      uint32_t* bits = tiles.bits + at * p.words;
      int visited = 0;
      for (int word = thread; word < (tile.pages + 31) / 32; word += kLoaders) visited += __popc(bits[word] = p.bits[index * p.words + word]);
      visited = __reduce_add_sync(0xffffffffu, visited);
      if (thread % 32 == 0) atomicAdd(&slot.visited, visited);
      for (int word = (tile.pages + 31) / 32 + thread; word < p.words; word += kLoaders) bits[word] = 0;
      ptx::cp_async_wait<0>();
      ptx::fence_proxy_async();
    }
    ptx::mbarrier_arrive(tiles.full + 8 * at);
    if (index >= p.args.tiles) return;
  }
}

// By threads 0 .. 31.
template <class Rows>
__device__ inline void bring_blocks(const SparsePlan& p, const Tiles& tiles, const typename Rows::Stages& stages) {
  constexpr int kSlots = Shared<Rows>::kSlots, kPartKeys = Rows::kBlockKeys, kParts = kKeys / kPartKeys;  // of a page
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t number = 0;  // of blocks brought
  const char* before = nullptr;
  const auto block_of = [&](const void* blocks, int64_t index) { return static_cast<const char*>(blocks) + index * 2 * Rows::kBlockBytes; };
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t at = turn % kSlots;
    ptx::mbarrier_wait(tiles.full + 8 * at, turn / kSlots & 1);
    const Slot& slot = tiles.slots[at];
    if (slot.visited == 0) break;
    const int kv_head = slot.tile.group.kv_head, visited = slot.visited, count = (visited + slot.means) * kParts, first_block = slot.tile.first_candidate / kBlockKeys;
    PageWalk walk(tiles.bits + at * p.words, slot.tile.pages);
    int block = 0;
    for (int i = 0; i < count; ++i, ++number) {
      const int part = i % kParts;
      if (part == 0) block = i / kParts < visited ? walk.next() : ~(first_block + i / kParts - visited);
      const char* from = block >= 0 ? block_of(p.args.kv.pages[block], p.args.kv.layer * p.args.kv.kv_heads + kv_head) : block_of(Rows::means(p), kv_head * p.mean_blocks + ~block);
      if constexpr (kParts > 1) from += part * kPartKeys * 128;
      if (block < 0 && kParts > 1) {  // two stand-ins each
        const int page = ~block * kKeys + part * kPartKeys + lane * 2;
        const float2 gain = *reinterpret_cast<const float2*>(gains_of(p, kv_head) + page);
        float bias[2];
        stand_in_biases(slot.tile, tiles.bits + at * p.words, page, {gain.x, gain.y}, bias);
        stages.wait_keys_read(number);
        ptx::store_shared(stages.biases(number) + lane * 8, float2{bias[0], bias[1]});
      } else if (block < 0) {  // four
        const int page = ~block * kKeys + lane * 4;
        const float4 gain = *reinterpret_cast<const float4*>(gains_of(p, kv_head) + page);
        float bias[4];
        stand_in_biases(slot.tile, tiles.bits + at * p.words, page, {gain.x, gain.y, gain.z, gain.w}, bias);
        stages.wait_keys_read(number);
        ptx::store_shared(stages.biases(number) + lane * 16, float4{bias[0], bias[1], bias[2], bias[3]});
      }
      __syncwarp();  // also so that no lane waits for a stage that is more than a round ahead
      if (lane == 0) {
        stages.bring_keys(number, from);
        if (kSlots == 1 ? i > 0 : number > 0) stages.bring_values(number - 1, before);
      }
      before = from;
    }
    if (kSlots == 1 && lane == 0) stages.bring_values(number - 1, before);  // the next tile begins behind this one's end
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(tiles.empty + 8 * at);
  }
  if (kSlots > 1 && lane == 0 && number > 0) stages.bring_values(number - 1, before);
}

}  // namespace longview::kernels
