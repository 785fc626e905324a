#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

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
  int64_t tokens, heads, layer, first_position;
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
  const int64_t pages = (visible + kPageTokens - 1) / kPageTokens;
  rows.first_page = pages * rows.part / job.parts;
  rows.end_page = pages * (rows.part + 1) / job.parts;
  return rows;
}

void Attention::run(const float* q, int64_t tokens, int64_t heads, int64_t layer, const CpuKvStorage& storage, std::span<const int32_t> page_slots,
                    int64_t first_position, float* out) {
  const int64_t kv_heads = storage.shape().kv_heads, d = storage.shape().head_dim, width = storage.value_width();
  Job job{q, tokens, heads, layer, first_position, storage, page_slots, out, heads / kv_heads, 0, 0, 1, 0, nullptr, nullptr, nullptr};
  job.pages = (first_position + tokens + kPageTokens - 1) / kPageTokens;
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
        if (job.part_maximum[at] == -std::numeric_limits<float>::infinity()) continue;
        const float factor = std::exp2(job.part_maximum[at] - maximum);
        sum += factor * job.part_sum[at];
        const float* part = job.part_output + at * width;
        for (int64_t i = 0; i < d; ++i) row[i] += factor * part[i];
      }
      for (int64_t i = 0; i < d; ++i) row[i] /= sum;
    }
  });
}

void Attention::tile(const Job& job, int64_t item, int thread) {
  const Rows rows = rows_of(job, item);
  const int64_t d = job.storage.shape().head_dim, width = job.storage.value_width(), count = rows.tokens * job.group;
  const bool stored_bf16 = job.storage.shape().format == KvFormat::kBFloat16;
  const bool bf16 = bf16_ && stored_bf16;
  // Scratch: queries, scores, output, maxima, sums; bf16 weights, or K and V of a page as floats.
  const int64_t d_padded = d + 32, extra = bf16 ? count * kPageTokens / 2 : stored_bf16 ? kPageTokens * (d + width) : 0;
  float* queries = scratch_[static_cast<size_t>(thread)].get<float>(count * (d_padded + kPageTokens + width + 2) + extra);
  float* scores = queries + count * d_padded;
  float* output = scores + count * kPageTokens;
  float* maximum = output + count * width;
  float* sum = maximum + count;
  float* more = sum + count;
  auto* queries_bf16 = reinterpret_cast<uint16_t*>(queries);
  auto* weights_bf16 = reinterpret_cast<uint16_t*>(more);

  // Scores come out in log2 units: 1/sqrt(d) and log2(e) are folded into the queries.
  const float scale = static_cast<float>(std::numbers::log2e / std::sqrt(static_cast<double>(d)));
  for (int64_t r = 0; r < count; ++r) {
    const float* row = job.q + (rows.first_token + r / job.group) * job.heads * d + (rows.kv_head * job.group + r % job.group) * d;
    if (bf16) kernels_.to_bf16(row, queries_bf16 + r * d_padded, d, scale);
    else
      for (int64_t i = 0; i < d; ++i) queries[r * d_padded + i] = row[i] * scale;
  }
  std::memset(output, 0, static_cast<size_t>(count * width) * sizeof(float));
  std::fill(maximum, maximum + count, -std::numeric_limits<float>::infinity());
  std::fill(sum, sum + count, 0.0f);

  const int64_t first = job.first_position + rows.first_token;
  for (int64_t page = rows.first_page; page < rows.end_page; ++page) {
    const int32_t slot = job.page_slots[static_cast<size_t>(page)];
    const std::byte* keys = job.storage.keys(slot, job.layer, rows.kv_head);
    const std::byte* values = job.storage.values(slot, job.layer, rows.kv_head);
    const int64_t begin = page * kPageTokens;
    // Tokens of the page that any row sees, in whole steps of the products.
    const int64_t tokens = std::min(kPageTokens, round_up(first + rows.tokens - begin, 32));
    if (bf16) {
      kernels_.gemm_bf16(count, tokens, d, queries_bf16, d_padded, reinterpret_cast<const uint32_t*>(keys), kPageTokens, scores, kPageTokens, false);
    } else {
      const float* k = reinterpret_cast<const float*>(keys);
      if (stored_bf16) {
        kernels_.widen_pairs(reinterpret_cast<const uint32_t*>(keys), d / 2, kPageTokens, kPageTokens, more, kPageTokens);
        k = more;
      }
      kernels_.gemm_f32(count, tokens, d, queries, d_padded, k, kPageTokens, scores, kPageTokens, false);
    }
    if (begin + tokens > first + 1) {  // the diagonal crosses this page
      for (int64_t r = 0; r < count; ++r) {
        const int64_t seen = std::clamp<int64_t>(first + r / job.group + 1 - begin, 0, tokens);
        std::fill(scores + r * kPageTokens + seen, scores + r * kPageTokens + tokens, -std::numeric_limits<float>::infinity());
      }
    }
    for (int64_t r = 0; r < count; ++r) kernels_.softmax_step(scores + r * kPageTokens, tokens, maximum + r, sum + r, output + r * width, width);
    if (bf16) {
      for (int64_t r = 0; r < count; ++r) kernels_.to_bf16(scores + r * kPageTokens, weights_bf16 + r * kPageTokens, tokens, 1.0f);
      kernels_.gemm_bf16(count, width, tokens, weights_bf16, kPageTokens, reinterpret_cast<const uint32_t*>(values), width, output, width, true);
    } else {
      const float* v = reinterpret_cast<const float*>(values);
      if (stored_bf16) {
        float* widened = more + kPageTokens * d;
        kernels_.widen_pairs(reinterpret_cast<const uint32_t*>(values), kPageTokens / 2, width, width, widened, width);
        v = widened;
      }
      kernels_.gemm_f32(count, width, tokens, scores, kPageTokens, v, width, output, width, true);
    }
  }

  if (job.parts > 1) {
    const int64_t at = item * job.part_rows;
    std::memcpy(job.part_output + at * width, output, static_cast<size_t>(count * width) * sizeof(float));
    std::memcpy(job.part_maximum + at, maximum, static_cast<size_t>(count) * sizeof(float));
    std::memcpy(job.part_sum + at, sum, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  for (int64_t r = 0; r < count; ++r) {
    float* row = job.out + (rows.first_token + r / job.group) * job.heads * d + (rows.kv_head * job.group + r % job.group) * d;
    for (int64_t i = 0; i < d; ++i) row[i] = output[r * width + i] / sum[r];
  }
}

}  // namespace longview::cpu
