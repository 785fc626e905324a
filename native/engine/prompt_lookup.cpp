#include "engine/prompt_lookup.h"

#include <algorithm>

namespace longview {
namespace {

// Prose repeats a few words without quoting: each second failure in a row asks for a token more.
constexpr int64_t kFailuresOfToken = 2, kMostLeast = 6;
constexpr int64_t kPair = 2;            // which is looked for
constexpr int64_t kLongestMatch = 32;  // longer ones are alike
constexpr int64_t kBlock = 64;         // tokens that are looked at without a branch

// Whether one of kBlock tokens from `at` on is `last`, behind `before`.
bool has_pair(const int32_t* at, int32_t before, int32_t last) {
  int32_t found = 0;
  for (int64_t i = 0; i < kBlock; ++i) found |= (at[i] == last) & (at[i - 1] == before);
  return found != 0;
}

}  // namespace

std::span<const int32_t> PromptLookup::guess(std::span<const int32_t> tokens, int32_t next, int64_t least, int64_t most) {
  guesses_.clear();
  const auto count = static_cast<int64_t>(tokens.size());
  if (count < kPair) return {};
  const int32_t* t = tokens.data();
  const int32_t before = t[count - 1];
  int64_t longest = 0, end = 0;  // of the match, and where it ends
  const auto look_at = [&](int64_t place) {
    if (t[place] != next || t[place - 1] != before) return;
    int64_t length = kPair;
    while (length < kLongestMatch && place >= length && t[place - length] == t[count - length]) ++length;
    if (length > longest) longest = length, end = place;
  };
  int64_t place = count - 1;  // from the last one down, each behind another
  for (; place > kBlock && longest < kLongestMatch; place -= kBlock) {
    if (!has_pair(t + place - kBlock + 1, before, next)) continue;
    for (int64_t i = place; i > place - kBlock; --i) look_at(i);
  }
  for (; place > 0 && longest < kLongestMatch; --place) look_at(place);
  if (longest < std::min(least + wrong_in_a_row_ / kFailuresOfToken, kMostLeast)) return {};
  // What repeats itself at the end goes on so.
  for (int64_t from = end + 1; from <= end + std::min(2 * longest, most); ++from)
    guesses_.push_back(from < count ? t[from] : from == count ? next : guesses_[static_cast<size_t>(from - count - 1)]);
  return guesses_;
}

}  // namespace longview
