// Sparse prefill attention by mma.sync: a tile a block, its keys in tiles of 64 (of heads of 256: 32) through two stages of cp.async.
#include "kernels/attention/attention.cuh"
#include "kernels/attention/rows_sm80.cuh"
#include "kernels/common/sink.cuh"
#include "kernels/index/sparse.cuh"

namespace longview::kernels {
namespace {

// Rows of a block: a tile's 128, or half of them where a block of threads is given too little shared memory for those of heads of 256, or
// halves of tiles still leave multiprocessors idle.
template <int D, int kWarps>
__global__ void __launch_bounds__(kWarps * 32) sparse_attention_sm80_kernel(const SparsePlan p) {
  constexpr int kThreads = kWarps * 32, kBlockRows = kWarps * 16, kBlocksOfTile = kTileRows / kBlockRows, kKeys = attention_sm80_keys(D), kParts = kBlockKeys / kKeys;
  constexpr uint32_t kKeyBytes = kKeys * D * 2, kStageBytes = 2 * kKeyBytes;
  extern __shared__ __align__(128) char shared_bytes[];
  __shared__ int counted;
  const uint32_t queries = ptx::shared_address(shared_bytes), stages = queries + kBlockRows * D * 2;
  const Tile t = find_tile(p, static_cast<int>(blockIdx.x / kBlocksOfTile));
  const uint32_t* bits = p.bits + blockIdx.x / kBlocksOfTile * p.words;
  const int first_row = blockIdx.x % kBlocksOfTile * kBlockRows;  // of the tile
  const int heads = t.group.heads, warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  const auto* q = static_cast<const __nv_bfloat16*>(p.args.q);
  for (int item = threadIdx.x; item < kBlockRows * (D / 8); item += kThreads) {
    const int row = item / (D / 8), chunk = item % (D / 8), at = t.first_row + first_row + row;
    const bool valid = first_row + row < t.rows;
    const int64_t offset = valid ? (static_cast<int64_t>(at / heads) * p.args.heads + t.group.first_head + at % heads) * D + chunk * 8 : 0;
    ptx::cp_async_16(queries + swizzled<D>(row, chunk), q + offset, valid);
  }
  if (threadIdx.x == 0) counted = 0;
  __syncthreads();
  for (int word = threadIdx.x; word < p.words; word += kThreads) atomicAdd(&counted, __popc(bits[word]));
  __syncthreads();
  const int visited = counted, count = (visited + t.mean_blocks()) * kParts;

  // Parts of pages, the last page first, then of blocks of means: ~ block. One ahead of what is multiplied.
  PageWalk walk(bits, t.pages);
  int coming = 0;
  const auto load = [&](int i) {
    if (i % kParts == 0) coming = i / kParts < visited ? walk.next() : ~(t.first_candidate / kBlockKeys + i / kParts - visited);
    const __nv_bfloat16* keys = coming >= 0 ? page_block<D>(p.args.kv, coming, t.group.kv_head) : mean_block<D>(p, ~coming, t.group.kv_head);
    const int first = i % kParts * kKeys, valid = coming >= 0 ? t.last_position + 1 - coming * kBlockKeys - first : kKeys;
    load_keys<D, kThreads, kKeys, D <= 128 ? 8 : 2>(stages + i % 2 * kStageBytes, keys, first, valid);
  };
  load(0);
  ptx::cp_async_commit();

  const int row0 = t.first_row + first_row + warp * 16 + lane / 4, row1 = row0 + 8;
  const int position[2] = {static_cast<int>(p.args.first_position) + row0 / heads, static_cast<int>(p.args.first_position) + row1 / heads};
  const int sink = t.group.sink, window = t.group.limited ? t.group.window : kLargestPosition;
  RowsSm80<D, kKeys> rows;
  for (int i = 0; i < count; ++i) {
    const int block = coming;
    if (i + 1 < count) load(i + 1);
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    __syncthreads();
    if (i == 0) rows.load(queries, warp * 16);
    const uint32_t keys = stages + i % 2 * kStageBytes;
    rows.multiply_keys(keys);
    const int part = i % kParts * kKeys, begin = block * kBlockKeys + part;
    if (block < 0) {
      const float* gains = gains_of(p, t.group.kv_head);
      const int first = ~block * kBlockKeys + part;
      add_biases(rows.score, p.scale, p.scale, [&](int key) {
        const float2 gain = __ldg(reinterpret_cast<const float2*>(gains + first + key));
        float2 bias;
        stand_in_biases(t, bits, first + key, {gain.x, gain.y}, reinterpret_cast<float(&)[2]>(bias));
        return bias;
      });
    } else {
      if (begin + kKeys > t.first_position + 1) hide_behind(rows.score, position[0] - begin, position[1] - begin);
      if (begin + kKeys > sink && begin <= t.last_position - window) hide_between(rows.score, sink - begin, position[0] - window - begin, position[1] - window - begin);
    }
    rows.soften(p.scale);
    rows.multiply_values(keys + kKeyBytes);
    __syncthreads();
  }

  rows.join();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = r == 0 ? row0 : row1;
    if (row >= t.first_row + t.rows) continue;
    if constexpr (D == kSinkHeadDim) rows.sum[r] += sink_weight(p.args.sinks, t.group.first_head + row % heads, rows.maximum[r] * p.scale);
    rows.store(r, static_cast<__nv_bfloat16*>(p.args.out) + (static_cast<int64_t>(row / heads) * p.args.heads + t.group.first_head + row % heads) * D);
  }
}

template <int D, int kWarps = 8>
Status launch(const SparsePlan& p, Stream stream) {
  constexpr int64_t kBytes = attention_sm80_shared_bytes(kWarps * 16, D);
  if (const Status error = allow_shared(sparse_attention_sm80_kernel<D, kWarps>, kBytes)) return error;
  sparse_attention_sm80_kernel<D, kWarps><<<static_cast<unsigned>(p.args.tiles * (8 / kWarps)), kWarps * 32, kBytes, cuda(stream)>>>(p);
  return launched();
}

}  // namespace

Status launch_sparse_attention_sm80(const SparsePlan& plan, Stream stream) {
  const int64_t d = plan.args.kv.head_dim;
  if (d <= 128) return d == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
  return holds_128_rows(d) && 2 * plan.args.tiles > plan.args.multiprocessors ? launch<256>(plan, stream) : launch<256, 4>(plan, stream);
}

}  // namespace longview::kernels
