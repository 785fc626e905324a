// Vertical-slash (MInference): the last 64 tokens of the chunk say for each head which columns of keys and which diagonals
// (distances between token and key) hold the mass. Three steps: the rows' softmax sums, by parts of the keys; sums of the
// weights over columns and over diagonals; the largest of these.
#pragma once

#include <algorithm>

#include "kernels/index/row_sums.cuh"
#include "kernels/index/select.cuh"

namespace longview::kernels {

constexpr int kForcedColumns = 30, kForcedColumnsInChunks = 130, kForcedDiagonals = 100;  // always chosen: the first, the nearest
constexpr int kWeightStride = kBlockKeys + 4;                                             // of a row of weights in shared memory
constexpr int kSelectThreads = 1024;

// Heads whose sums are in the workspace at a time.
inline int64_t slash_batch(const SparsePlan& p) { return slash_batch(p.pages, p.args.slash_groups); }
__device__ inline float* slash_sums(const SparsePlan& p, int batch_head, int is_diagonal) { return p.sums + (2 * static_cast<int64_t>(batch_head) + is_diagonal) * p.pages * kBlockKeys; }

// Rows of queries in shared memory. No more than there are of heads of 256, whose 128 rows would leave no room for the weights: what the
// warps behind them multiply, whatever lies there, is of no use and goes nowhere.
template <int D>
constexpr int slash_query_rows = D <= 128 ? kTileRows : kSlashTokens;

// A head (of the groups from first_group on) and a part of the keys a block. kWeights: the second step, else the first.
template <int D, class Machine, bool kWeights>
__global__ void __launch_bounds__(kIndexThreads, 1) slash_kernel(const SparsePlan p, int first_group) {
  constexpr uint32_t kBlockBytes = IndexShared<D, Machine>::kBlockBytes;
  extern __shared__ char shared_bytes[];
  char* base = aligned_shared(shared_bytes);
  constexpr int kPieces = kernels::kPieces<D>, kDims = kPieceDims<D>, kQueryRows = slash_query_rows<D>;
  const uint32_t queries = ptx::shared_address(base), keys = queries + kQueryRows * D * 2;
  auto* weights = reinterpret_cast<float*>(base + kQueryRows * D * 2 + Machine::kStages * kBlockBytes);
  const HeadGroup group = p.args.groups[first_group + blockIdx.y];
  const int tokens = static_cast<int>(p.args.tokens), count = min(tokens, kSlashTokens), first = static_cast<int>(p.args.first_position) + tokens - count;
  const int pages = static_cast<int>(p.pages), parts = static_cast<int>(p.probe_parts), part = static_cast<int>(blockIdx.x), begin = pages * part / parts, end = pages * (part + 1) / parts;

  const auto* q = static_cast<const __nv_bfloat16*>(p.args.q);
  for (int item = threadIdx.x; item < kQueryRows * (D / 8); item += kIndexThreads) {
    const int row = item / (D / 8), chunk = item % (D / 8);
    const int64_t token = tokens - count + min(row, count - 1);
    ptx::cp_async_16(block_address<kQueryRows>(queries, row, chunk), q + (token * p.args.heads + group.first_head) * D + chunk * 8, row < count);
  }
  Machine machine;
  machine.begin();
  const auto source = [&](int i) { return begin + i / kPieces < end ? page_block<D>(p.args.kv, begin + i / kPieces, group.kv_head) + i % kPieces * (kBlockKeys * kDims) : nullptr; };
  for (int i = 0; i < Machine::kStages; ++i) machine.load(keys + i * kBlockBytes, source(i), kBlockBytes, i);
  machine.wait_queries();

  const int lane = threadIdx.x % 32, row0 = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4, row1 = row0 + 8;
  const int position[2] = {first + min(row0, count - 1), first + min(row1, count - 1)};
  const auto sums_of = [&](int of_part, int row) { return p.probes + ((static_cast<int64_t>(of_part) * p.args.heads + group.first_head) * kProbeTokens + row) * 2; };
  float offset[2] = {-INFINITY, -INFINITY};  // what makes weights of scores; rows that do not exist have none
  if constexpr (kWeights)
    for (int r = 0; r < 2; ++r) {
      const int row = row0 + 8 * r;
      if (row >= count) continue;
      float maximum = -INFINITY, sum = 0;
      for (int i = 0; i < parts; ++i) maximum = fmaxf(maximum, sums_of(i, row)[0]);
      for (int i = 0; i < parts; ++i) sum += sums_of(i, row)[1] * ptx::exp2(sums_of(i, row)[0] - maximum);
      offset[r] = -maximum - __log2f(sum);
    }

  RowSums rows;
  float score[64];
  for (int page = begin; page < end; ++page) {
    const int first_key = page * kBlockKeys;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int i = (page - begin) * kPieces + piece;
      const uint32_t block = keys + i % Machine::kStages * kBlockBytes;
      machine.wait(i);
      machine.template multiply<kDims>(score, queries + piece * kQueryRows * kDims * 2, block, piece > 0);
      __syncthreads();
      machine.load(block, source(i + Machine::kStages), kBlockBytes, i);
    }
    hide_future(score, page, position[0], position[1]);
    if constexpr (!kWeights) {
      rows.add(score, p.scale);
      continue;
    }
    if (row0 < kSlashTokens)
#pragma unroll
      for (int j = 0; j < 64; ++j) weights[(row0 + j / 2 % 2 * 8) * kWeightStride + j / 4 * 8 + lane % 4 * 2 + j % 2] = ptx::exp2(fmaf(score[j], p.scale, offset[j / 2 % 2]));
    __syncthreads();
    if (threadIdx.x < kBlockKeys) {
      float sum = 0;
      for (int row = 0; row < kSlashTokens; ++row) sum += weights[row * kWeightStride + threadIdx.x];
      slash_sums(p, static_cast<int>(blockIdx.y), 0)[first_key + threadIdx.x] = sum;
    }
    if (threadIdx.x < kBlockKeys + kSlashTokens - 1) {
      // Keys row + ahead of the page. A diagonal crosses two pages at most, so that their order does not matter.
      const int ahead = static_cast<int>(threadIdx.x) - (kSlashTokens - 1), distance = first - first_key - ahead;
      float sum = 0;
      for (int row = max(0, -ahead); row < min(kSlashTokens, kBlockKeys - ahead); ++row) sum += weights[row * kWeightStride + row + ahead];
      if (distance >= 0 && sum > 0) atomicAdd(slash_sums(p, static_cast<int>(blockIdx.y), 1) + distance, sum);
    }
  }
  if constexpr (!kWeights) {
    rows.join(p.scale);
    if (lane % 4 != 0) return;
    for (int r = 0; r < 2; ++r) {
      if (row0 + 8 * r >= count) continue;
      float* to = sums_of(part, row0 + 8 * r);
      to[0] = rows.maximum[r] * p.scale;
      to[1] = rows.sum[r];
    }
  }
}

// The largest columns (blockIdx.x = 0), as bits of the pages that hold one, or diagonals, as bits of distances.
static __global__ void __launch_bounds__(kSelectThreads) select_slash_kernel(const SparsePlan p, int first_group) {
  __shared__ int histogram[256];
  const HeadGroup group = p.args.groups[first_group + blockIdx.y];
  const bool diagonals = blockIdx.x == 1;
  const int n = static_cast<int>(p.args.first_position + p.args.tokens), forced = diagonals ? kForcedDiagonals : p.args.first_position > 0 ? kForcedColumnsInChunks : kForcedColumns;
  const float* sums = slash_sums(p, static_cast<int>(blockIdx.y), diagonals);
  const auto value = [&](int i) { return ordered_bits(i < forced ? INFINITY : sums[i]); };
  const Cut cut = largest_cut(value, n, max(diagonals ? group.diagonals : group.columns, forced), histogram);
  const int lane = threadIdx.x % 32, warp = static_cast<int>(threadIdx.x) / 32, warps = kSelectThreads / 32;
  if (diagonals) {
    uint32_t* to = p.diagonal_bits + group.first_head * p.pages * 4;
    for (int word = warp; word < p.pages * 4; word += warps) {
      const int i = word * 32 + lane;
      const uint32_t set = __ballot_sync(0xffffffffu, i < n && cut.keeps(value(i), i));
      if (lane == 0) to[word] = set;
    }
    return;
  }
  uint32_t* to = p.column_bits + group.first_head * p.words;
  for (int word = warp; word < p.words; word += warps) {
    uint32_t set = 0;
    for (int bit = 0; bit < 32; ++bit) {
      bool any = false;
      for (int i = (word * 32 + bit) * kBlockKeys + lane; i < min((word * 32 + bit + 1) * kBlockKeys, n); i += 32) any |= cut.keeps(value(i), i);
      set |= static_cast<uint32_t>(__any_sync(0xffffffffu, any)) << bit;
    }
    if (lane == 0) to[word] = set;
  }
}

template <int D, class Machine>
Status launch_vertical_slash(const SparsePlan& p, Stream stream) {
  constexpr int kBytes = slash_query_rows<D> * D * 2 + Machine::kStages * IndexShared<D, Machine>::kBlockBytes + kSlashTokens * kWeightStride * 4 + 1024;
  static_assert(kBytes <= (Machine::kStages == 1 ? 99 : 227) * 1024);
  if (const Status error = allow_shared(slash_kernel<D, Machine, false>, kBytes)) return error;
  if (const Status error = allow_shared(slash_kernel<D, Machine, true>, kBytes)) return error;
  const int64_t batch = slash_batch(p), end = p.args.slash_group + p.args.slash_groups;
  for (int64_t group = p.args.slash_group; group < end; group += batch) {
    const auto heads = static_cast<unsigned>(std::min(batch, end - group));
    const dim3 grid(static_cast<unsigned>(p.probe_parts), heads);
    if (const Status error = clear(p.sums, heads * 2 * p.pages * kBlockKeys * sizeof(float), stream)) return error;
    slash_kernel<D, Machine, false><<<grid, kIndexThreads, kBytes, cuda(stream)>>>(p, static_cast<int>(group));
    slash_kernel<D, Machine, true><<<grid, kIndexThreads, kBytes, cuda(stream)>>>(p, static_cast<int>(group));
    select_slash_kernel<<<dim3(2, heads), kSelectThreads, 0, cuda(stream)>>>(p, static_cast<int>(group));
    if (const Status status = launched()) return status;
  }
  return kOk;
}

// Whether the tile's tokens meet one of their head's columns or diagonals in this page. Each diagonal is a block of 64 keys for
// each 64 tokens: keys first - distance .. + 63, from 0 on. MInference grows a run of overlapping blocks by whole blocks, so that it
// may end up to 63 keys behind its last block: these count too.
__device__ inline bool meets_slash(const SparsePlan& p, const Tile& t, int page) {
  const uint32_t *columns = p.column_bits + t.group.first_head * p.words, *diagonals = p.diagonal_bits + t.group.first_head * p.pages * 4;
  if (columns[page / 32] >> page % 32 & 1) return true;
  const int middle = t.first_position - page * kBlockKeys, most = static_cast<int>(p.pages) * kBlockKeys - 1;
  const int reach = (t.rows > kSlashTokens ? 2 : 1) * kSlashTokens - 1;
  const int low = max(middle - (kBlockKeys - 1), 0), high = min(min(middle + reach + kSlashTokens - 1, t.first_position + reach), most);
  for (int word = low / 32; word <= high / 32; ++word) {
    uint32_t set = diagonals[word];
    if (word == low / 32) set &= 0xffffffffu << low % 32;
    if (word == high / 32) set &= 0xffffffffu >> (31 - high % 32);
    if (set) return true;
  }
  return false;
}

}  // namespace longview::kernels
