// What is guessed from a prompt, against a search without shortcuts.
#include "engine/prompt_lookup.h"

#include <algorithm>
#include <random>

#include "check.h"

using namespace longview;

namespace {

constexpr int64_t kMost = 7;

std::vector<int32_t> plain_guess(std::vector<int32_t> tokens, int32_t next, size_t least) {
  const size_t count = tokens.size();
  tokens.push_back(next);
  size_t longest = 0, end = 0;
  for (size_t place = 0; place < count; ++place) {
    size_t length = 0;
    while (length < 32 && length <= place && tokens[place - length] == tokens[count - length]) ++length;
    if (length >= longest) longest = length, end = place;
  }
  if (longest < least) return {};
  const size_t wanted = std::min<size_t>(2 * longest, kMost);
  for (size_t i = 1; i <= wanted; ++i) tokens.push_back(tokens[end + i]);
  return {tokens.end() - static_cast<std::ptrdiff_t>(wanted), tokens.end()};
}

std::vector<int32_t> guess_of(PromptLookup& lookup, const std::vector<int32_t>& tokens, int32_t next) {
  const auto found = lookup.guess(tokens, next, 2, kMost);
  return {found.begin(), found.end()};
}

}  // namespace

TEST("guesses are what followed the longest sequence before, the last of equals, wherever it lies") {
  std::mt19937_64 random(1);
  int64_t some = 0;
  for (const uint64_t words : {1, 2, 5, 40, 1000})
    for (size_t count = 0; count < 400; count += count < 70 ? 1 : 13)
      for (int round = 0; round < 4; ++round) {
        std::vector<int32_t> tokens(count);
        for (int32_t& token : tokens) token = static_cast<int32_t>(random() % words);
        if (count > 60)  // a passage that is quoted
          for (size_t i = 0, from = random() % (count - 50), length = 1 + random() % 50; i < length; ++i) tokens[count - length + i] = tokens[from + i];
        const auto next = static_cast<int32_t>(random() % words);
        PromptLookup lookup;
        const std::vector<int32_t> wanted = plain_guess(tokens, next, 2);
        CHECK(guess_of(lookup, tokens, next) == wanted);
        some += !wanted.empty();
      }
  CHECK(some > 500);
}

TEST("a quoted passage is found at the beginning of a million tokens") {
  std::vector<int32_t> tokens(1'000'000);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(100 + i % 50'021);
  for (int32_t i = 0; i < 12; ++i) tokens[static_cast<size_t>(i)] = 7 + i;
  tokens.insert(tokens.end(), {1, 7, 8});
  PromptLookup lookup;
  CHECK((guess_of(lookup, tokens, 9) == std::vector<int32_t>{10, 11, 12, 13, 14, 15}));
}

TEST("where guesses are wrong altogether, each second in a row asks for a longer sequence, up to six tokens, until one is right") {
  PromptLookup lookup;
  int64_t shortest = 2;
  const auto found = [&](int64_t length) {  // a sequence of so many, another behind it, and the sequence again
    std::vector<int32_t> tokens{100};
    for (int32_t i = 0; i < length; ++i) tokens.push_back(i);
    tokens.insert(tokens.end(), {50, 51});
    for (int32_t i = 0; i + 1 < length; ++i) tokens.push_back(i);
    return !lookup.guess(tokens, static_cast<int32_t>(length - 1), shortest, kMost).empty();
  };
  for (int64_t wrong = 0; wrong < 12; ++wrong) {
    const int64_t least = std::min<int64_t>(2 + wrong / 2, 6);
    CHECK(!found(least - 1) && found(least));
    lookup.learn(0);
  }
  lookup.learn(1);
  CHECK(found(2));
  shortest = 4;
  CHECK(!found(3) && found(4));
}

TEST_MAIN()
