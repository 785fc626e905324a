// Sparse prefill attention on sm_90: persistent blocks take one tile after the other. Of the first warpgroup, one thread copies
// K and V of the blocks that the tile visits, three warps prepare the next tile: its bits and its queries. Two warpgroups of 64
// rows multiply, as in dense attention. Pages that few tiles share come from further away than those of dense attention, hence
// a stage more.
#include "kernels/attention/rows_sm90.cuh"
#include "kernels/index/sparse.cuh"

namespace longview::kernels {
namespace {

constexpr int kStages = 3, kSlots = 2, kLoaders = 96;
constexpr int kLoaderBarrier = 3;  // of the named barriers

// A tile on its way through a block.
struct Slot {
  Tile tile;
  int index;    // of the tile
  int visited;  // pages; 0: there are no more tiles
  int count;    // of blocks: the pages, and blocks of means
};

struct Control {
  uint64_t kv[4 * kStages], slot_full[kSlots], slot_empty[kSlots], queries_full, queries_empty;
  Slot slots[kSlots];
};

// Queries, stages of K and V, control, bits. The tiles of the tensor cores begin at multiples of 1,024, as the whole does.
template <int D>
struct Shared {
  static constexpr uint32_t kQueryBytes = kRows * D * 2;
  static constexpr uint32_t kControl = kQueryBytes + KvStages<D, kStages>::kBytes;
  static constexpr uint32_t kBits = kControl + sizeof(Control);
  static int64_t bytes(const SparsePlan& p) { return kBits + kSlots * p.words * 4; }
};
static_assert(Shared<128>::kBits + kSlots * kMostSparsePages / 8 <= 227 * 1024);

__device__ inline void sync_loaders() { asm volatile("bar.sync %0, %1;" ::"n"(kLoaderBarrier), "n"(kLoaders) : "memory"); }

template <int D>
__global__ void __launch_bounds__(kThreads, 1) sparse_attention_sm90_kernel(const SparsePlan p) {
  extern __shared__ __align__(1024) char shared_bytes[];
  auto& control = *reinterpret_cast<Control*>(shared_bytes + Shared<D>::kControl);
  auto* all_bits = reinterpret_cast<uint32_t*>(shared_bytes + Shared<D>::kBits);
  const uint32_t queries = ptx::shared_address(shared_bytes);
  const KvStages<D, kStages> stages(queries + Shared<D>::kQueryBytes, ptx::shared_address(control.kv));
  const uint32_t slot_full = ptx::shared_address(control.slot_full), slot_empty = ptx::shared_address(control.slot_empty);
  const uint32_t queries_full = ptx::shared_address(&control.queries_full), queries_empty = ptx::shared_address(&control.queries_empty);
  if (threadIdx.x == 0) {
    stages.init();
    for (uint32_t i = 0; i < kSlots; ++i) {
      ptx::mbarrier_init(slot_full + 8 * i, kLoaders);
      ptx::mbarrier_init(slot_empty + 8 * i, 1 + 2 * 128);  // the copying thread and all that multiply
    }
    ptx::mbarrier_init(queries_full, kLoaders);
    ptx::mbarrier_init(queries_empty, kReaders);
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
        Slot& slot = control.slots[at];
        ptx::mbarrier_wait(slot_empty + 8 * at, (turn / kSlots & 1) ^ 1);
        if (thread == 0) {
          slot.index = atomicAdd(p.next_tile, 1);
          slot.visited = slot.count = 0;
          if (slot.index < p.args.tiles) {
            slot.tile = find_tile(p, slot.index);
            slot.count = slot.tile.mean_blocks();
          }
        }
        sync_loaders();
        const int index = slot.index;
        if (index >= p.args.tiles) {
          ptx::mbarrier_arrive(slot_full + 8 * at);
          return;
        }
        const Tile tile = slot.tile;
        uint32_t* bits = all_bits + at * p.words;
        int visited = 0;
        for (int word = thread; word < p.words; word += kLoaders) visited += __popc(bits[word] = p.bits[index * p.words + word]);
        visited = __reduce_add_sync(0xffffffffu, visited);
        if (thread % 32 == 0) {
          atomicAdd(&slot.visited, visited);
          atomicAdd(&slot.count, visited);
        }
        ptx::mbarrier_arrive(slot_full + 8 * at);

        ptx::mbarrier_wait(queries_empty, (turn & 1) ^ 1);
        load_queries<D>(p, tile, queries, thread, kLoaders);
        ptx::cp_async_commit();
        ptx::cp_async_wait<0>();
        ptx::fence_proxy_async();
        ptx::mbarrier_arrive(queries_full);
      }
    }
    if (threadIdx.x != 0) return;
    uint32_t number = 0;  // of blocks brought
    const __nv_bfloat16* before = nullptr;
    for (uint32_t turn = 0;; ++turn) {
      const uint32_t at = turn % kSlots;
      ptx::mbarrier_wait(slot_full + 8 * at, turn / kSlots & 1);
      const Slot& slot = control.slots[at];
      if (slot.visited == 0) break;
      BlockWalk walk(slot.tile, all_bits + at * p.words, slot.visited);
      for (int i = 0; i < slot.count; ++i, ++number) {
        const int block = walk.next(), kv_head = slot.tile.group.kv_head;
        const __nv_bfloat16* from = block >= 0 ? page_block<D>(p.args.kv, block, kv_head) : mean_block<D>(p, ~block, kv_head);
        stages.bring_keys(number, from);
        if (number > 0) stages.bring_values(number - 1, before);
        before = from;
      }
      ptx::mbarrier_arrive(slot_empty + 8 * at);
    }
    if (number > 0) stages.bring_values(number - 1, before);
    return;
  }

  ptx::registers_up<232>();
  const int lane = threadIdx.x % 32, row_in_tile = warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  RowsSm90<D, kStages> rows;
  uint32_t number = 0;
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t at = turn % kSlots;
    ptx::mbarrier_wait(slot_full + 8 * at, turn / kSlots & 1);
    const Slot& slot = control.slots[at];
    const Tile& tile = slot.tile;
    const uint32_t* bits = all_bits + at * p.words;
    const int count = slot.count;
    if (slot.visited == 0) return;
    BlockWalk walk(tile, bits, slot.visited);
    const auto hide = [&] {
      const int block = walk.next();
      if (block < 0) return hide_visited(rows.score, tile, bits, ~block * kKeys, p.scale);
      const int begin = block * kKeys, heads = tile.group.heads, row = tile.first_row + row_in_tile, sink = tile.group.sink;
      const int window = tile.group.limited ? tile.group.window : kLargestPosition;
      const bool diagonal = begin + kKeys > tile.first_position + 1, border = begin + kKeys > sink && begin <= tile.last_position - window;
      if (!diagonal && !border) return;
      const int first = static_cast<int>(p.args.first_position) - begin, limit0 = first + row / heads, limit1 = first + (row + 8) / heads;
      if (diagonal) hide_behind(rows.score, limit0, limit1);
      if (border) hide_between(rows.score, sink - begin, limit0 - window, limit1 - window);
    };
    const auto done = [&] {
      if (lane == 0) ptx::mbarrier_arrive(queries_empty);
    };
    ptx::mbarrier_wait(queries_full, turn & 1);
    rows.run(stages, queries + warpgroup * 64 * 128, kTileBytes, number, count, p.scale, hide, done);
    number += count;
    const auto place = [&](int row) {
      const int heads = tile.group.heads;
      return row < tile.first_row + tile.rows ? static_cast<__nv_bfloat16*>(p.args.out) + (static_cast<int64_t>(row / heads) * p.args.heads + tile.group.first_head + row % heads) * D : nullptr;
    };
    __nv_bfloat16 *to0 = place(tile.first_row + row_in_tile), *to1 = place(tile.first_row + row_in_tile + 8);
    ptx::mbarrier_arrive(slot_empty + 8 * at);
    rows.store(to0, to1);
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
