// How a call is cut into blocks, and the kernels of the architectures behind launch_attention, which has checked the arguments.
#pragma once

#include "kernels/api/attention.h"

namespace longview::kernels {

constexpr int64_t kMostParts = 1024, kMostDecodeParts = 512;
constexpr int64_t kDecodeRows = 16;  // of a KV head, at most, for launch_decode_attention

struct AttentionPlan {
  AttentionArgs args;
  int64_t group, rows;            // query heads of a KV head; T * group
  int64_t tile_rows, tiles;       // of rows; together they are one KV head's
  int64_t parts;                  // of the keys
  float scale;                    // log2(e) / sqrt(D)
  float *output, *maximum, *sum;  // [parts, G, rows, D], [parts, G, rows] twice, where parts > 1
  uint32_t* counters;             // [G], 0 before and behind the work, where parts > 1
};

// Of a block of the sm_80 kernel: the tile's queries, two stages of 64 keys and values.
constexpr int64_t attention_sm80_shared_bytes(int64_t tile_rows, int64_t head_dim) { return (tile_rows + 4 * 64) * head_dim * 2; }

// Tiles of 16 rows over 8-bit pages, and blocks of them that a multiprocessor holds, by their registers.
constexpr int64_t kCodeRows = 16, kCodeBlocks = 8;
Status launch_attention_q8(const AttentionPlan& plan, Stream stream);
// The same over e4m3 pages; of a block's shared memory, three stages of 32 keys, values and scales.
constexpr int64_t attention_e4m3_shared_bytes(int64_t head_dim) { return 3 * (64 * head_dim + 128); }
Status launch_attention_e4m3(const AttentionPlan& plan, Stream stream);

// Of a block of launch_decode_attention, and blocks that a multiprocessor is given: a block of the next kernel fits beside them.
constexpr int64_t kDecodeSharedBytes = int64_t{64} << 10, kDecodeBlocks = 2;

// One tile of at most kDecodeRows rows.
Status launch_decode_attention(const AttentionPlan& plan, Stream stream);

Status launch_attention_sm80(const AttentionPlan& plan, Stream stream);
// The rows' results of all parts to one.
Status launch_merge(const AttentionPlan& plan, Stream stream);
// Tiles of 128 rows, not split.
Status launch_attention_sm90(const AttentionPlan& plan, Stream stream);

}  // namespace longview::kernels
