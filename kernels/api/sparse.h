// Sparse prefill attention: an index of the pages that each tile of queries visits, a measure of what they cover, what stands for
// the others, and attention over all of it. The four are queued one behind the other; nothing comes back to the host in between.
//
// A tile is 128 rows of the query heads that share one plan: row r is token r / heads of the chunk, head first_head +
// r % heads. Its index is one bit a page. What a tile always visits: the pages that hold one of the first `sink` keys, one of
// the `window` keys up to its first row, or a key that not all of its rows see. Of the pages between, its candidates, it
// visits what the rule keeps; the others may stand in the softmax as one key each, their means (FlashPrefill V2,
// arXiv 2608.19758): score q . mean K + log(128), value mean V. launch_sparse_stand_ins puts better ones in their place.
#pragma once

#include "kernels/api/cache.h"

namespace longview::kernels {

// Where a context has no more pages than that (65,536 tokens), masses are taken from four means of a page, of 32 keys each. Beyond,
// these would cost more time than they save.
constexpr int64_t kMostFinePages = 512;
constexpr int64_t kFineMeans = 4;
constexpr int64_t means_of_page(int64_t pages) { return pages <= kMostFinePages ? kFineMeans : 1; }

constexpr int64_t kMostSparsePages = 8448;  // of a context: 1.08 million tokens, whose masses still fit the 99 KiB of sm_86 and sm_89

// How the candidates are chosen. A page's mass is the weight of its mean keys (means_of_page) in the softmax over the mean keys of all
// pages that the tile sees whole, mean over the tile's rows.
enum class PageRule : int32_t {
  kNone,      // no candidate is visited
  kRelative,  // every page whose mass is at least `threshold` times the largest one's
  kShare,     // every page with a mass of at least `threshold`
  kMass,      // the largest pages, until at most `threshold` of the mass is left over
  // MInference's, of one head: whole pages, so that at least what they name is visited.
  kSlash,   // pages that hold one of the head's `columns`, or a key of its `diagonals`, by the chunk's last 64 tokens
  kBlocks,  // pages that hold one of the `blocks` key blocks of 64 whose mean scores best with the mean of 64 queries
};

// Query heads of one KV head with one plan. A dense head: window at least the context's length.
struct HeadGroup {
  int32_t first_head, heads, kv_head;
  int32_t first_tile;    // tiles of the groups before this one
  int32_t sink, window;  // tokens
  PageRule rule;
  float threshold;
  int32_t limited;  // not 0: within the visited pages a row sees only the first `sink` keys and its last `window` (A-shape)
  int32_t means;    // not 0: candidates that are not visited enter as means
  int32_t columns, diagonals, blocks;  // budgets of kSlash and kBlocks, as native/sparse/pattern.h has them
};

// What a query head visited, sums over rows, added to by every index and coverage.
struct HeadCounters {
  double visited;  // keys, and means that stand for pages
  double causal;   // keys that the rows could see
  double covered;  // over the probed rows: exact softmax mass of the visited keys
  double probes;   // rows probed
};

// T queries at first_position .. + T - 1, as of AttentionArgs. Pages keep means (kv.layers > 0).
struct SparseArgs {
  const void* q;  // bf16 [T, H, D], aligned to 16 bytes, as is out
  void* out;      // bf16 [T, H, D]
  PagedKv kv;
  int64_t tokens, heads, first_position;
  const HeadGroup* groups;  // [group_count], on the device; together they hold every head once
  int64_t group_count, tiles;
  HeadCounters* counters;   // [H], on the device; may be null
  void* workspace;          // sparse_layout(args).bytes, aligned to 128 bytes
  int32_t multiprocessors;
  int32_t architecture = 0;  // 80: the kernels of sm_80 on any device, for tests; 0: the device's best
  int64_t slash_group = 0, slash_groups = 0;  // where groups with kSlash lie, one behind the other, and how many
  int64_t block_groups = 0;                   // groups with kBlocks
  const float* sinks = nullptr;  // as of AttentionArgs, where D is kSinkHeadDim; what is chosen and counted goes by the keys alone
};
// The one head size whose kernels have registers left for sinks, and models with sinks have.
constexpr int64_t kSinkHeadDim = 64;
// Tiles of a group: ceil(T * heads / 128).
constexpr int64_t kSparseTileRows = 128;
constexpr int64_t sparse_tiles(int64_t tokens, int64_t heads) { return (tokens * heads + kSparseTileRows - 1) / kSparseTileRows; }

// What lies where in the workspace, in bytes. Of a group's tiles the one with the last rows comes first.
struct SparseLayout {
  int64_t pages, mean_blocks;  // of the context; ceil(pages / 128)
  int64_t words;               // of 32 bits, of a tile's bits
  int64_t probe_parts;         // of the keys
  int64_t bits;                // uint32 [tiles, words]; before it the means, bf16 [G, mean_blocks, 2, 128 * D], in the layout of pages
  int64_t probes;              // float [probe_parts, H, kProbeTokens, 3]: maximum, sum, and sum over visited keys
  int64_t next_tile;           // int32
  int64_t gains;               // float [G, mean_blocks * 128]: what a page's stand-in weighs more than 128 keys, in log2; NaN where its keys are
  int64_t probe_offsets;       // float [H, kProbeTokens]: a probe's softmax weights are 2^(score in log2 units + offset)
  int64_t key_weights;         // float [stand_in_batch, pages * 128]: of the probes, summed
  int64_t column_bits;         // uint32 [H, words]: pages with a chosen column; with kSlash alone, as the next two
  int64_t diagonal_bits;       // uint32 [H, pages * 4]: chosen distances
  int64_t sums;                // float [slash_batch, 2, pages * 128]: of columns and diagonals
  int64_t pooled;              // float [pool_batch, D, 2 * pages]: mean keys of 64 tokens; with kBlocks alone
  int64_t fine_means;          // bf16 [G, means_of_page * mean_blocks, 128 * D], K alone; where there are several for each page
  int64_t narrow_means;        // [G, mean_blocks, 2] blocks of the means in e4m3, as those of e4m3 pages; with these alone
  int64_t bytes;
};
constexpr int64_t kProbeTokens = 64;
// How many of `count`, each of so many bytes, go into `mebibytes`; one at least.
constexpr int64_t batch_within(int64_t mebibytes, int64_t bytes, int64_t count) {
  const int64_t fit = (mebibytes << 20) / bytes;
  return fit < 1 ? 1 : fit < count ? fit : count;
}
// Heads whose columns and diagonals are summed at a time, KV heads whose keys are pooled at a time, and whose stand-ins are made at a time.
constexpr int64_t slash_batch(int64_t pages, int64_t groups) { return batch_within(32, pages * kPageTokens * 8, groups); }
constexpr int64_t pool_batch(int64_t pages, int64_t head_dim, int64_t kv_heads) { return batch_within(4, pages * head_dim * 8, kv_heads); }
constexpr int64_t stand_in_batch(int64_t pages, int64_t kv_heads) { return batch_within(4, pages * kPageTokens * 4, kv_heads); }
// Whether a head may look at means: MInference's do not.
constexpr bool has_means(const SparseArgs& args) { return args.slash_groups + args.block_groups < args.group_count; }
constexpr SparseLayout sparse_layout(const SparseArgs& args) {
  SparseLayout l{};
  l.pages = (args.first_position + args.tokens + kPageTokens - 1) / kPageTokens;
  l.mean_blocks = (l.pages + kPageTokens - 1) / kPageTokens;
  l.words = l.mean_blocks * 4;
  l.probe_parts = key_parts(l.pages);
  const int64_t with_means = has_means(args) ? args.kv.kv_heads : 0;
  l.bits = with_means * l.mean_blocks * 2 * kPageTokens * args.kv.head_dim * 2;
  l.probes = l.bits + args.tiles * l.words * 4;
  l.next_tile = l.probes + l.probe_parts * args.heads * kProbeTokens * 3 * 4;
  l.gains = l.next_tile + 128;
  l.probe_offsets = l.gains + with_means * l.mean_blocks * kPageTokens * 4;
  l.key_weights = l.probe_offsets + args.heads * kProbeTokens * 4;
  l.column_bits = l.key_weights + (with_means > 0 ? stand_in_batch(l.pages, with_means) * l.pages * kPageTokens * 4 : 0);
  l.diagonal_bits = l.column_bits + (args.slash_groups > 0 ? args.heads * l.words * 4 : 0);
  l.sums = l.diagonal_bits + (args.slash_groups > 0 ? args.heads * l.pages * 16 : 0);
  l.pooled = l.sums + (args.slash_groups > 0 ? slash_batch(l.pages, args.slash_groups) * l.pages * kPageTokens * 8 : 0);
  l.fine_means = l.pooled + (args.block_groups > 0 ? pool_batch(l.pages, args.kv.head_dim, args.kv.kv_heads) * args.kv.head_dim * l.pages * 8 : 0);
  l.fine_means = (l.fine_means + 127) / 128 * 128;
  l.narrow_means = l.fine_means + (means_of_page(l.pages) > 1 ? with_means * means_of_page(l.pages) * l.mean_blocks * kPageTokens * args.kv.head_dim * 2 : 0);
  l.bytes = l.narrow_means + (args.kv.format == PageFormat::kE4M3 ? with_means * l.mean_blocks * 2 * page_block_bytes(PageFormat::kE4M3, args.kv.head_dim) : 0);
  return l;
}

// Whether the device's tensor cores multiply the codes of e4m3 pages here: compute capability 9.0, heads of 64 or 128, none of MInference's. Elsewhere
// these launches take pages in bf16 (launch_expand_pages).
bool sparse_multiplies_e4m3(const SparseArgs& args);
// Fills the workspace: the means of the context in blocks of 128 pages, finer ones where pages are chosen by these, and for each tile its bits.
Status launch_sparse_index(const SparseArgs& args, Stream stream);
// Attention by the index that the workspace holds.
Status launch_sparse_attention(const SparseArgs& args, Stream stream);
// Probes 64 tokens of the chunk: adds to counters the exact mass of what the index made their rows visit.
Status launch_sparse_coverage(const SparseArgs& args, Stream stream);
// Behind index and coverage: in the place of its means a page gets the means of its keys and values weighed by the probes' attention, of
// all heads of the KV head, where they see it whole; and a gain (1/56 to 7.5 times 128 keys), by which the probes find in the page what
// they really find there. Pages that no probe sees whole, or in which none finds anything, keep their means.
Status launch_sparse_stand_ins(const SparseArgs& args, Stream stream);

}  // namespace longview::kernels
