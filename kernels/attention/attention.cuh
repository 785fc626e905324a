// How a call is cut into blocks, and the kernels of the architectures behind launch_attention, which has checked the arguments.
#pragma once

#include <algorithm>

#include "kernels/api/attention.h"

namespace longview::kernels {

constexpr int64_t kMostParts = 1024;
// Few rows, whose parts are joined by the kernel that makes them (attention/join.cuh): a block's warps, rows and shared memory for it.
constexpr int kJoinWarps = 4, kJoinThreads = kJoinWarps * 32, kJoinRows = 16, kMostJoinedParts = 512;
constexpr int64_t kJoinSharedBytes = int64_t{40} << 10;
// Two blocks of so many registers a thread leave a multiprocessor what the next product's block takes (256 threads of 80 registers), and
// a third of their own has no room: where one found it, another multiprocessor would be left with one.
constexpr int kJoinRegisters = 176;
static_assert(2 * kJoinThreads * kJoinRegisters + 256 * 80 == 65536);

struct AttentionPlan {
  AttentionArgs args;
  int64_t group, rows;            // query heads of a KV head; T * group
  int64_t tile_rows, tiles;       // of rows; together they are one KV head's
  int64_t parts;                  // of the keys
  float scale;                    // log2(e) / sqrt(D)
  float *output, *maximum, *sum;  // [parts, G, rows, D], [parts, G, rows] twice, where parts > 1
  uint32_t* counters;             // [G, tiles], 0 before and behind the work, where parts > 1
};

// Of a block of the sm_80 kernel: the tile's queries, two stages of 64 keys and values.
constexpr int64_t attention_sm80_shared_bytes(int64_t tile_rows, int64_t head_dim) { return (tile_rows + 4 * 64) * head_dim * 2; }

// Over 8-bit pages: blocks that a multiprocessor is given; of q8 its registers hold no more.
constexpr int64_t kCodeBlocks = 2;
Status launch_attention_q8(const AttentionPlan& plan, Stream stream);
// Of a block's shared memory, for each warp two stages of 32 keys, values and scales.
constexpr int64_t attention_e4m3_shared_bytes(int64_t head_dim) { return std::max(kJoinSharedBytes, kJoinWarps * 2 * (64 * head_dim + 128)); }
Status launch_attention_e4m3(const AttentionPlan& plan, Stream stream);

// Of a block of launch_decode_attention, and blocks that a multiprocessor is given: a block of the next kernel fits beside them.
constexpr int64_t kDecodeSharedBytes = int64_t{64} << 10, kDecodeBlocks = 2;

// One tile of rows.
Status launch_decode_attention(const AttentionPlan& plan, Stream stream);

Status launch_attention_sm80(const AttentionPlan& plan, Stream stream);
// Tiles of 128 rows, not split.
Status launch_attention_sm90(const AttentionPlan& plan, Stream stream);

}  // namespace longview::kernels
