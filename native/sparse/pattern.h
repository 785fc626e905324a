// What a query head attends to while a prompt is read: dense, one of MInference's three patterns (arXiv 2407.02490), or
// adaptive, by the energies of block means (after FlashPrefill V2, arXiv 2608.19758).
//
// All positions are absolute; a row always sees itself and never what comes after it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace longview {

enum class Pattern : uint8_t { kDense, kAShape, kVerticalSlash, kBlockSparse, kAdaptive };

// How an adaptive head chooses among the blocks of keys that all rows of a tile see. The estimated mass of a block is the
// weight of its mean key in the softmax over the means of all such blocks, as a mean over the tile's rows; on a GPU, in contexts of up to
// 65,536 tokens, that of four means of 32 keys (kernels/api/sparse.h). On the CPU it is more by
// what the spread of the block's keys adds to the mean of their weights, and the mass is the mean of it and of what a few rows nearby
// find that look at every key (cpu/mass_samples.h); these also say how much more than its mean a block weighs that is not visited.
enum class AdaptiveRule : uint8_t {
  kRelative,  // every block whose mass is at least `threshold` times the largest one's
  kShare,     // every block that holds at least `threshold` of the mass; in long contexts less (adaptive.h, at_length)
  kMass,      // the largest blocks, until at most `threshold` of the mass is left over
};

// One query head's pattern and budget. Only the members of its pattern count. Budgets may exceed the context: then the
// head attends to all there is.
struct HeadPlan {
  Pattern pattern = Pattern::kDense;
  int32_t sink = 0;       // a_shape, adaptive: keys at the very beginning
  int32_t window = 0;     // a_shape: the last keys up to each row, itself included; adaptive: the last keys before a tile
  int32_t columns = 0;    // vertical_slash: keys that every row sees
  int32_t diagonals = 0;  // vertical_slash: distances between row and key
  int32_t blocks = 0;     // block_sparse: key blocks of 64 for each 64 rows
  AdaptiveRule rule = AdaptiveRule::kShare;
  float threshold = 0;    // adaptive; 0 keeps every block

  bool operator==(const HeadPlan&) const = default;
};

// What the heads of one layer visited, sums over rows.
struct HeadCoverage {
  double visited = 0;   // keys, and means that stand for a block of keys
  double causal = 0;    // keys that a dense head visits
  double covered = 0;   // over the probe rows: the mass that sparse attention puts where dense attention puts it, the sum of
                        // min(p, p_sparse) over visited keys and over blocks that stand in by their means
  int64_t probes = 0;   // rows that were probed

  HeadCoverage& operator+=(const HeadCoverage& other) {
    visited += other.visited;
    causal += other.causal;
    covered += other.covered;
    probes += other.probes;
    return *this;
  }
  HeadCoverage operator-(const HeadCoverage& other) const { return {visited - other.visited, causal - other.causal, covered - other.covered, probes - other.probes}; }
};

// "dense", "a_shape", "vertical_slash", "block_sparse", "adaptive".
const char* name(Pattern pattern);
std::optional<Pattern> pattern_of(std::string_view name);
const char* name(AdaptiveRule rule);
std::optional<AdaptiveRule> adaptive_rule_of(std::string_view name);

// MInference's own budgets for heads that no profile names, and ours.
HeadPlan default_plan(Pattern pattern);

// Thresholds of adaptive heads that were not calibrated, by what is asked for: a block is visited when it holds this share of a
// tile's mass. A GPU's blocks are pages of 128 keys; a CPU's are of 32, and it knows their masses better.
struct Shares {
  float fast, balanced;
};
constexpr Shares kGpuShares = {0.003f, 0.0015f}, kCpuShares = {0.002f, 0.0008f};

// Late layers, the last third: what attention makes of a token there is seen only through K and V of the few layers behind. They err
// unpunished: with 50 times the share the built-in model foresees answers as well as before, while ten times the share in any five of
// the other layers costs twice the loss or more (test/bench/HISTORY.md).
constexpr bool is_late(int64_t layer, int64_t layers) { return 3 * layer >= 2 * layers; }
constexpr float kLateShare = 0.05f;
constexpr double kLateWeight = 0.02;  // of an error there, beside one of the layers before

// Keys and means visited, of the keys that a dense head visits; 1 where nothing was counted.
inline double density_of(const HeadCoverage& coverage) { return coverage.causal > 0 ? coverage.visited / coverage.causal : 1; }

}  // namespace longview
