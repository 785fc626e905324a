// Rotary positions and the KV pages.
//
// A page holds 128 tokens of all layers: for each layer and KV head a K block and behind it a V block of 128 x D bf16 each.
// A block lies as tensor cores read it from shared memory, so that it is copied there as a whole: tiles of 64 dimensions,
// rows of 128 bytes, the 16-byte chunks of a row turned by the token (page_offset). Behind all blocks a page may keep means:
// for each layer and KV head the mean of its 128 keys (after RoPE), then that of its values, D bf16 each, which sparse
// attention reads. Pages are reached through pointers, one for each 128 tokens of a context, so that a pool may grow. A new
// page is filled with zeros, and so is one that another context had: what this one has not written must be finite.
#pragma once

#include "kernels/api/status.h"

namespace longview::kernels {

// Where a token's dimension lies in a block, in elements.
constexpr int64_t page_offset(int64_t token, int64_t dimension) {
  return (dimension / 64 * kPageTokens + token) * 64 + ((dimension / 8 % 8) ^ (token % 8)) * 8 + dimension % 8;
}

// Into how many parts the pages are split where a few rows are multiplied with all of them.
constexpr int64_t key_parts(int64_t pages) { return pages < 32 ? 1 : pages > 256 ? 16 : pages / 16; }

// What a page keeps of a K or V block. kQ8: 128 x D int8 codes, row by row, and behind them the scales of each token's blocks of 32
// dimensions, bf16 [128, D / 32]; a value is its code times its block's scale (native/cpu/q8.h), and D is 64, 128 or 256. Means stay bf16.
// kE4M3: 8-bit floats that lie as operands of 8 bits do (e4m3_key_offset, e4m3_value_offset; D is 64, 128 or 256), and behind them one
// scale, a float32, in kE4M3Tail bytes. The scale is a power of two, chosen by the write that begins the page: its largest magnitude
// is 3.5 to 7 scales, so that later ones may be 64 times as large before they end at the largest code. Means stay bf16.
// kQ4: 128 rows of D / 2 bytes, dimension 2 i in the low and 2 i + 1 in the high bits of byte i; behind them scales as of kQ8, and a reference,
// bf16 [D]. A value is its code less 8, times its block's scale, plus the reference. The code of a block's value farthest from the reference is 0 (of two
// as far, that of the larger one), so that scales are of either sign. Queries and keys are multiplied by
// the orthonormal Walsh-Hadamard matrix of D dimensions once they are rotated, which leaves scores as they are and no dimension with values of
// another size; they lie and are read so. The reference of keys is the mean of those that are written together with their page's first
// one, where they are kLeastReferenceKeys at least or the page is the first; otherwise that of the page before. It is 0 of a first page that a token
// begins alone. Keys that are no numbers, or 2^120 or more, do not count: references are finite. That of values is 0. D is 64, 128 or 256.
enum class PageFormat : int32_t { kBFloat16, kQ8, kE4M3, kQ4 };
constexpr int64_t kQ8Block = 32, kE4M3Tail = 64, kLeastReferenceKeys = 32;

// Where a token's dimension lies in a K block of kE4M3, in bytes: rows of D bytes, a token each, whose 16-byte chunks are turned.
constexpr int64_t e4m3_key_offset(int64_t head_dim, int64_t token, int64_t dimension) {
  const int64_t turn = head_dim >= 128 ? token % 8 : token / 2 % 4;
  return token * head_dim + ((dimension / 16) ^ turn) * 16 + dimension % 16;
}
// In a V block: rows of 128 bytes, a dimension each, a chunk for 16 tokens, in which the pair of tokens 2 t, 2 t + 1 and the pair
// 8 behind it stand side by side: what a thread has of 16 columns of scores, it has of 16 tokens.
constexpr int64_t e4m3_value_offset(int64_t token, int64_t dimension) {
  return dimension * kPageTokens + ((token / 16) ^ (dimension % 8)) * 16 + token % 8 / 2 * 4 + token / 8 % 2 * 2 + token % 2;
}

struct PagedKv {
  void* const* pages;  // [pages of the context], on the device
  int64_t kv_heads, head_dim, layer;
  int64_t layers = 0;  // of a page that keeps means; 0: it keeps none
  PageFormat format = PageFormat::kBFloat16;
};

// In bytes: a K or V block, a page, and where the mean of a layer's and head's keys lies in it; that of the values is 2 * D on.
constexpr int64_t page_block_bytes(PageFormat format, int64_t head_dim) {
  if (format == PageFormat::kE4M3) return kPageTokens * head_dim + kE4M3Tail;
  if (format == PageFormat::kBFloat16) return kPageTokens * head_dim * 2;
  const int64_t scales = head_dim / kQ8Block * 2;
  return format == PageFormat::kQ4 ? kPageTokens * (head_dim / 2 + scales) + head_dim * 2 : kPageTokens * (head_dim + scales);
}
constexpr int64_t page_bytes(PageFormat format, int64_t layers, int64_t kv_heads, int64_t head_dim, bool means) {
  return layers * kv_heads * 2 * (page_block_bytes(format, head_dim) + means * head_dim * 2);
}
constexpr int64_t page_mean_bytes(PageFormat format, int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t layer, int64_t kv_head) {
  return page_bytes(format, layers, kv_heads, head_dim, false) + (layer * kv_heads + kv_head) * 4 * head_dim;
}

// The same of pages in bf16, in elements: of a page, and where the mean of a layer's and head's keys lies in it; that of the values is D elements on.
constexpr int64_t page_elements(int64_t layers, int64_t kv_heads, int64_t head_dim, bool means) {
  return layers * kv_heads * 2 * (kPageTokens + means) * head_dim;
}
constexpr int64_t page_mean_offset(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t layer, int64_t kv_head) {
  return page_elements(layers, kv_heads, head_dim, false) + (layer * kv_heads + kv_head) * 2 * head_dim;
}

// cos and sin of positions first .. first + T - 1, computed in double.
struct RopeTableArgs {
  const double* inverse_frequencies;  // [half], on the device
  float* cosine;                      // [T, half]
  float* sine;                        // [T, half]
  int64_t tokens, half, first_position;
  double scale;
  const int64_t* position = nullptr;  // on the device: stands for first_position, so that recorded work serves other tokens
};
Status launch_rope_table(const RopeTableArgs& args, Stream stream);

// Rotates q and k by the table; k and v go into the pages. Heads of fewer dimensions than the pages' D have zeros behind
// theirs in `rotated` and in the pages, and their queries grow by sqrt(D / head_dim), so that attention, which scales by
// 1/sqrt(D), takes them as they are. Pages of 8 and 4 bits take codes of the rotated keys before these are rounded to bf16. A page that this
// fills gets the means of what it keeps, where it has room for them; a ragged last page has none until it is full. Where pages
// keep fewer bits all pointers are aligned to 16 bytes. A head of V that holds a value that is not finite, or is 2^120 or more, is kept as zeros
// behind a K of NaN: no row that does not see the token meets it, and those that see it become NaN.
struct RopeAppendArgs {
  const void* q;        // bf16 [T, H, head_dim]
  void* rotated;        // bf16 [T, H, D]; may be q where head_dim is D
  const void* k;        // bf16 [T, G, head_dim]
  const void* v;        // bf16 [T, G, head_dim]
  const float* cosine;  // [T, half]
  const float* sine;
  PagedKv kv;
  int64_t tokens, heads, head_dim, half, first_position;  // head_dim is even
  int32_t adjacent;  // pairs (2i, 2i + 1) instead of (i, i + half)
  // On the device, of one token: stands for first_position, which still decides whose page's means are made. It was written before the
  // kernel in front of this one was launched, as were the page table and what began a single token's page, or the page before where the token
  // begins one: they are read before that kernel is over.
  const int64_t* position = nullptr;
  // Not null, of one token whose heads are as wide as the pages' 64, 128 or 256 and rotated by halves of a multiple of D / 32: heads of Q and K
  // are normed by these weights first, as launch_rms_norm_heads does it. Pointers are aligned to 16 bytes then.
  const float* q_norm = nullptr;  // [D]
  const float* k_norm = nullptr;  // [D]
  float epsilon = 0;
  int64_t q_stride = 0;  // with norms: elements from a head of q to the next, a multiple of 8; 0: D. `rotated` is q in the latter case alone
};
Status launch_rope_append(const RopeAppendArgs& args, Stream stream);

// One layer of pages of 8 or 4 bits in bf16, means too where the pages keep them: what prefill attention reads. The copies are pages of that layer
// alone: PagedKv{to, kv_heads, head_dim, 0, means ? 1 : 0}. Whole pages, also a ragged last one.
struct ExpandPagesArgs {
  PagedKv from;
  void* const* to;  // [pages], on the device
  int64_t pages;    // of the context, from the first on
};
Status launch_expand_pages(const ExpandPagesArgs& args, Stream stream);

}  // namespace longview::kernels
