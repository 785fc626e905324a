// How a call is cut into blocks, and the kernels of the architectures behind launch_attention, which has checked the arguments.
#pragma once

#include <algorithm>

#include "kernels/api/attention.h"

namespace longview::kernels {

constexpr int64_t kMostParts = 1024;
// Few rows, whose parts are joined by the kernel that makes them (attention/join.cuh): a block's warps, rows and shared memory for it.
constexpr int kJoinWarps = 4, kJoinThreads = kJoinWarps * 32, kJoinRows = 16, kMostJoinedParts = 512;
constexpr int64_t kJoinSharedBytes = int64_t{40} << 10;
// Of wider heads than 128: the block's warps have a row's dimensions, maximum and sum each.
constexpr int64_t join_shared_bytes(int64_t head_dim) { return std::max(kJoinSharedBytes, kJoinWarps * kJoinRows * (head_dim + 2) * 4); }
// Blocks that a multiprocessor is given, and registers of a thread: they leave what the next product's block takes (256 threads of 80
// registers), and a third of their own has no room: where one found it, another multiprocessor would be left with one.
constexpr int64_t kJoinBlocks = 2;
constexpr int kJoinRegisters = 176;
static_assert(kJoinBlocks * kJoinThreads * kJoinRegisters + 256 * 80 == 65536);
// Two blocks of heads of 256 take all registers: the next product's wait.
constexpr int join_registers(int64_t head_dim) { return head_dim <= 128 ? kJoinRegisters : 255; }

struct AttentionPlan {
  AttentionArgs args;
  int64_t group, rows;            // query heads of a KV head; T * group
  int64_t tile_rows, tiles;       // of rows; together they are one KV head's
  int64_t parts;                  // of the keys
  float scale;                    // log2(e) / sqrt(D)
  float *output, *maximum, *sum;  // [parts, G, rows, D], [parts, G, rows] twice, where parts > 1
  uint32_t* counters;             // [G, tiles], 0 before and behind the work, where parts > 1
};

// Of a block of the sm_80 kernel: the tile's queries, two stages of keys and values. Fewer keys of heads of 256, so that 64 rows fit the 99 KiB
// that compute capability 8.6, 8.9 and 12.0 give a block; 128 take 128 KiB, which 8.0 and 9.0 have.
constexpr int attention_sm80_keys(int64_t head_dim) { return head_dim > 128 ? 32 : 64; }
constexpr int64_t attention_sm80_shared_bytes(int64_t tile_rows, int64_t head_dim) { return (tile_rows + 4 * attention_sm80_keys(head_dim)) * head_dim * 2; }
// Whether a block of the calling thread's device has room for 128 rows.
bool holds_128_rows(int64_t head_dim);
static_assert(attention_sm80_shared_bytes(64, 256) <= 99 << 10 && attention_sm80_shared_bytes(128, 128) <= 99 << 10);

// Over pages of 8 or 4 bits: rows of a tile, of which a thread has eight's results in 64 registers where heads have 256 dimensions; and of a block's
// shared memory, for each warp two stages (one of such heads) of 32 keys, values and scales, of q4 pages the keys' reference too.
constexpr int code_rows(int64_t head_dim) { return head_dim <= 128 ? kJoinRows : kJoinRows / 2; }
constexpr int code_stages(int64_t head_dim) { return head_dim <= 128 ? 2 : 1; }
constexpr int64_t attention_q8_shared_bytes(int64_t head_dim) { return std::max(join_shared_bytes(head_dim), kJoinWarps * code_stages(head_dim) * (64 * head_dim + 4 * head_dim)); }
constexpr int64_t attention_e4m3_shared_bytes(int64_t head_dim) { return std::max(join_shared_bytes(head_dim), kJoinWarps * code_stages(head_dim) * (64 * head_dim + 128)); }
constexpr int64_t attention_q4_shared_bytes(int64_t head_dim) { return std::max(join_shared_bytes(head_dim), kJoinWarps * code_stages(head_dim) * (32 * head_dim + 6 * head_dim)); }
Status launch_attention_q8(const AttentionPlan& plan, Stream stream);
Status launch_attention_q4(const AttentionPlan& plan, Stream stream);
Status launch_attention_e4m3(const AttentionPlan& plan, Stream stream);

// Of a block of launch_decode_attention.
constexpr int64_t decode_shared_bytes(int64_t head_dim) { return std::max(int64_t{64} << 10, join_shared_bytes(head_dim)); }

// Two blocks and the next product's (gemm/matvec_row_staged: 80 KiB of weights, and 4,096 elements of x in bf16) fit the 228 KiB of a
// multiprocessor of compute capability 9.0, each with 1 KiB of the system's and 128 bytes of its own: else the product's weights would come
// when attention is over.
static_assert(kJoinBlocks * (std::max(attention_q8_shared_bytes(128), decode_shared_bytes(128)) + 1152) + (80 << 10) + 4096 * 2 + 1152 <= 228 << 10);

// One tile of rows.
Status launch_decode_attention(const AttentionPlan& plan, Stream stream);

Status launch_attention_sm80(const AttentionPlan& plan, Stream stream);
// Tiles of 128 rows, not split. e4m3 pages have heads of 64 or 128.
Status launch_attention_sm90(const AttentionPlan& plan, Stream stream);

}  // namespace longview::kernels
