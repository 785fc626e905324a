#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/attention_tile.h"

namespace longview::cpu {
namespace {

// Positions of a tile: the heads of a KV group go together, so three heads make 96 rows. Larger tiles reread K and V less
// often; this one's scores still fit in the second-level cache beside a page.
constexpr int64_t kTilePositions = 64;
// Pages of a part when the rows are too few to keep all threads busy.
constexpr int64_t kPartPages = 8;

}  // namespace

struct Attention::Job {
  const float* q;
  int64_t tokens, heads;
  const CpuAttentionLayer& layer;
  int64_t first_position;
  const CpuKvStorage& storage;
  std::span<const int32_t> page_slots;
  float* out;
  int64_t group, pages, tiles, parts;
  int64_t part_rows;  // rows of one partial result
  float *part_output, *part_maximum, *part_sum;
};

// The rows of one item: a KV head, a range of tokens, a range of pages.
struct Attention::Rows {
  int64_t kv_head, part, first_token, tokens, first_page, end_page;
};

Attention::Attention(const Kernels& kernels, Precision precision, ThreadPool& pool)
    : kernels_(kernels), bf16_(kernels.gemm_bf16 && precision != Precision::kFloat32), pool_(pool), scratch_(static_cast<size_t>(pool.threads())) {}

Attention::Rows Attention::rows_of(const Job& job, int64_t item) const {
  Rows rows{};
  const int64_t kv_heads = job.storage.shape().kv_heads;
  rows.part = item % job.parts;
  rows.kv_head = item / job.parts % kv_heads;
  const int64_t tile = job.tiles - 1 - item / job.parts / kv_heads;  // longest first
  rows.first_token = tile * kTilePositions;
  rows.tokens = std::min(kTilePositions, job.tokens - rows.first_token);
  const int64_t visible = job.first_position + rows.first_token + rows.tokens;
  const int64_t unseen = first_seen(job.first_position + rows.first_token, job.layer.span) / kPageTokens;
  const int64_t pages = pages_of(visible) - unseen;
  rows.first_page = unseen + pages * rows.part / job.parts;
  rows.end_page = unseen + pages * (rows.part + 1) / job.parts;
  return rows;
}

void Attention::run(const float* q, int64_t tokens, int64_t heads, const CpuAttentionLayer& layer, const CpuKvStorage& storage, std::span<const int32_t> page_slots,
                    int64_t first_position, float* out) {
  const int64_t kv_heads = storage.shape().kv_heads, d = storage.shape().head_dim, width = storage.value_width();
  Job job{q, tokens, heads, layer, first_position, storage, page_slots, out, heads / kv_heads, 0, 0, 1, 0, nullptr, nullptr, nullptr};
  const int64_t seen = first_position + tokens;
  job.pages = pages_of(layer.span > 0 ? std::min(seen, layer.span + std::min(tokens, kTilePositions)) : seen);
  job.tiles = (tokens + kTilePositions - 1) / kTilePositions;
  if (job.tiles * kv_heads < 4 * pool_.threads()) job.parts = std::max<int64_t>(1, (job.pages + kPartPages - 1) / kPartPages);
  job.part_rows = std::min(tokens, kTilePositions) * job.group;
  const int64_t items = job.tiles * kv_heads * job.parts;
  if (job.parts > 1) {
    job.part_output = partial_.get<float>(items * job.part_rows * (width + 2));
    job.part_maximum = job.part_output + items * job.part_rows * width;
    job.part_sum = job.part_maximum + items * job.part_rows;
  }
  pool_.parallel_for(items, [&](int64_t item, int thread) { tile(job, item, thread); });
  if (job.parts == 1) return;

  // Merge the parts of each row by their maxima.
  pool_.parallel_for(job.tiles * kv_heads, [&](int64_t base, int) {
    const Rows rows = rows_of(job, base * job.parts);
    for (int64_t r = 0; r < rows.tokens * job.group; ++r) {
      float maximum = -std::numeric_limits<float>::infinity();
      for (int64_t p = 0; p < job.parts; ++p) maximum = std::max(maximum, job.part_maximum[(base * job.parts + p) * job.part_rows + r]);
      float* row = job.out + (rows.first_token + r / job.group) * heads * d + (rows.kv_head * job.group + r % job.group) * d;
      std::memset(row, 0, static_cast<size_t>(d) * sizeof(float));
      float sum = 0;
      for (int64_t p = 0; p < job.parts; ++p) {
        const int64_t at = (base * job.parts + p) * job.part_rows + r;
        const float factor = std::exp2(job.part_maximum[at] - maximum);
        sum += factor * job.part_sum[at];
        const float* part = job.part_output + at * width;
        for (int64_t i = 0; i < d; ++i) row[i] += factor * part[i];
      }
      sum += sink_weight(layer.sinks, rows.kv_head * job.group + r % job.group, maximum);
      for (int64_t i = 0; i < d; ++i) row[i] /= sum;
    }
  });
}

void Attention::tile(const Job& job, int64_t item, int thread) {
  const Rows rows = rows_of(job, item);
  const int64_t count = rows.tokens * job.group, width = job.storage.value_width();
  AttentionTile tile(kernels_, bf16_ && job.storage.narrow(), {job.storage, job.page_slots, job.layer.index, rows.kv_head},
                     {job.q, job.heads, rows.kv_head * job.group, job.group, rows.first_token, rows.tokens, job.first_position + rows.first_token},
                     scratch_[static_cast<size_t>(thread)]);
  tile.limit(0, job.layer.span);
  tile.visit(rows.first_page * kPageTokens, rows.end_page * kPageTokens);
  tile.flush();
  if (job.parts == 1) return tile.write(job.out, job.layer.sinks);
  const int64_t at = item * job.part_rows;
  std::memcpy(job.part_output + at * width, tile.output(), static_cast<size_t>(count * width) * sizeof(float));
  std::memcpy(job.part_maximum + at, tile.maximum(), static_cast<size_t>(count) * sizeof(float));
  std::memcpy(job.part_sum + at, tile.sum(), static_cast<size_t>(count) * sizeof(float));
}

}  // namespace longview::cpu
