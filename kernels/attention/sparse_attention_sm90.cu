// Sparse prefill attention on sm_90: persistent blocks take one tile after the other. Of the first warpgroup, one warp copies
// K and V of the pages that the tile visits and then the blocks of means, three warps prepare the next tile: its queries and
// its bits. Two warpgroups of 64 rows multiply, as in dense attention.
#include "kernels/attention/rows_sm90.cuh"
#include "kernels/index/sparse.cuh"

namespace longview::kernels {
namespace {

constexpr int kSlots = 2, kLoaders = 96;
constexpr int kLoaderBarrier = 3;  // of the named barriers

// A tile on its way through a block.
struct Slot {
  Tile tile;
  int visited, means;  // pages; blocks of means. 0 visited: there are no more tiles
};

template <int D>
struct Shared {
  static constexpr uint32_t kQueryBytes = kRows * D * 2;
  static constexpr uint32_t kBits = kSlots * kQueryBytes + KvStages<D>::kBytes;  // where the bits begin
  static int64_t bytes(const SparsePlan& p) { return kBits + kSlots * p.words * 4 + 1024; }
};

__device__ inline void sync_loaders() { asm volatile("bar.sync %0, %1;" ::"n"(kLoaderBarrier), "n"(kLoaders) : "memory"); }

template <int D>
__global__ void __launch_bounds__(kThreads, 1) sparse_attention_sm90_kernel(const SparsePlan p) {
  constexpr uint32_t kQueryBytes = Shared<D>::kQueryBytes;
  extern __shared__ char shared_bytes[];
  __shared__ uint64_t barriers[4 * kStages + 2 * kSlots];
  __shared__ Slot slots[kSlots];
  __shared__ int blocks[kStages];  // what the keys of a stage are: a page, or ~ a block of means
  const uint32_t offset = -ptx::shared_address(shared_bytes) & 1023, queries = ptx::shared_address(shared_bytes) + offset;
  auto* all_bits = reinterpret_cast<uint32_t*>(shared_bytes + offset + Shared<D>::kBits);
  const KvStages<D> stages(queries + kSlots * kQueryBytes, ptx::shared_address(barriers));
  const uint32_t slot_full = ptx::shared_address(barriers + 4 * kStages), slot_empty = slot_full + 8 * kSlots;
  if (threadIdx.x == 0) {
    stages.init();
    for (uint32_t i = 0; i < kSlots; ++i) {
      ptx::mbarrier_init(slot_full + 8 * i, kLoaders);
      ptx::mbarrier_init(slot_empty + 8 * i, 1 + kReaders);  // the copying warp and all that multiply
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();

  const int warpgroup = static_cast<int>(threadIdx.x / 128) - 1;
  if (warpgroup < 0) {
    ptx::registers_down<40>();
    if (threadIdx.x >= 32) {  // prepare tiles
      const int thread = static_cast<int>(threadIdx.x) - 32;
      for (uint32_t turn = 0;; ++turn) {
        const uint32_t at = turn % kSlots;
        Slot& slot = slots[at];
        ptx::mbarrier_wait(slot_empty + 8 * at, (turn / kSlots & 1) ^ 1);
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
          load_queries<D>(p, tile, queries + at * kQueryBytes, thread, kLoaders);
          ptx::cp_async_commit();
          uint32_t* bits = all_bits + at * p.words;
          int visited = 0;
          for (int word = thread; word < (tile.pages + 31) / 32; word += kLoaders) visited += __popc(bits[word] = p.bits[index * p.words + word]);
          visited = __reduce_add_sync(0xffffffffu, visited);
          if (thread % 32 == 0) atomicAdd(&slot.visited, visited);
          for (int word = (tile.pages + 31) / 32 + thread; word < p.words; word += kLoaders) bits[word] = 0;
          ptx::cp_async_wait<0>();
          ptx::fence_proxy_async();
        }
        ptx::mbarrier_arrive(slot_full + 8 * at);
        if (index >= p.args.tiles) return;
      }
    }
    if (threadIdx.x != 0) return;
    uint32_t number = 0;  // of blocks brought
    for (uint32_t turn = 0;; ++turn) {
      const uint32_t at = turn % kSlots;
      ptx::mbarrier_wait(slot_full + 8 * at, turn / kSlots & 1);
      const Slot& slot = slots[at];
      if (slot.visited == 0) return;
      const int kv_head = slot.tile.group.kv_head, visited = slot.visited, count = visited + slot.means, first_block = slot.tile.first_candidate / kBlockKeys;
      PageWalk walk(all_bits + at * p.words, slot.tile.pages);
      for (int i = 0; i < count; ++i, ++number) {
        const int block = i < visited ? walk.next() : ~(first_block + i - visited);
        const void* from = block >= 0 ? page_block<D>(p.args.kv, block, kv_head) : mean_block<D>(p, ~block, kv_head);
        stages.bring(number, from, [&](uint32_t stage) { blocks[stage] = block; });
      }
      ptx::mbarrier_arrive(slot_empty + 8 * at);
    }
  }

  ptx::registers_up<232>();
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const int row_in_tile = warpgroup * 64 + warp * 16 + lane / 4;
  RowsSm90<D> rows;
  uint32_t number = 0;
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t at = turn % kSlots;
    ptx::mbarrier_wait(slot_full + 8 * at, turn / kSlots & 1);
    const Slot& slot = slots[at];
    const int visited = slot.visited, count = visited + slot.means;
    if (visited == 0) return;
    const Tile& tile = slot.tile;
    const int first_row = tile.first_row, heads = tile.group.heads, first_position = tile.first_position, last_position = tile.last_position;
    const int sink = tile.group.sink, window = tile.group.limited ? tile.group.window : kLargestPosition;
    const int row0 = first_row + row_in_tile, row1 = row0 + 8, all_rows = first_row + tile.rows;
    const int position[2] = {static_cast<int>(p.args.first_position) + row0 / heads, static_cast<int>(p.args.first_position) + row1 / heads};
    const uint32_t* bits = all_bits + at * p.words;

    rows.run(
        stages, queries + at * kQueryBytes + warpgroup * 64 * 128, kTileBytes, number, count, p.scale, [&](uint32_t stage, int) { return blocks[stage]; },
        [&](float(&score)[64], int block) {
          if (block < 0) {
            hide_visited(score, slot.tile, bits, ~block * kKeys, p.scale);
            return;
          }
          const int begin = block * kKeys;
          if (begin + kKeys > first_position + 1) hide_behind(score, position[0] - begin, position[1] - begin);  // the diagonal crosses this page
          if (begin + kKeys > sink && begin <= last_position - window) hide_between(score, sink - begin, position[0] - window - begin, position[1] - window - begin);
        });
    number += count;
    const int first_head = tile.group.first_head;
    if (lane == 0) ptx::mbarrier_arrive(slot_empty + 8 * at);
    const auto place = [&](int row) {
      return row < all_rows ? static_cast<__nv_bfloat16*>(p.args.out) + (static_cast<int64_t>(row / heads) * p.args.heads + first_head + row % heads) * D : nullptr;
    };
    rows.store(place(row0), place(row1));
  }
}

template <int D>
Status launch(const SparsePlan& p, Stream stream) {
  const auto bytes = static_cast<int>(Shared<D>::bytes(p));
  if (const auto error = cudaFuncSetAttribute(sparse_attention_sm90_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) return static_cast<Status>(error);
  if (const auto error = cudaMemsetAsync(p.next_tile, 0, sizeof(int32_t), cuda(stream))) return static_cast<Status>(error);
  const auto grid = static_cast<unsigned>(std::min<int64_t>(p.args.tiles, p.args.multiprocessors));
  sparse_attention_sm90_kernel<D><<<grid, kThreads, bytes, cuda(stream)>>>(p);
  return launched();
}

}  // namespace

Status launch_sparse_attention_sm90(const SparsePlan& plan, Stream stream) {
  return plan.args.kv.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
