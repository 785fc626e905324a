#include "engine/stop_sequences.h"

#include "check.h"

using namespace longview;

namespace {

using Ids = std::vector<int32_t>;

struct Outcome {
  std::vector<int32_t> answer;
  bool stopped = false;
  int64_t held = 0;
};

// Tokens one by one; after the last the answer is over.
Outcome feed(std::vector<std::vector<int32_t>> sequences, const std::vector<int32_t>& tokens) {
  StopSequences stops(std::move(sequences));
  Outcome out;
  const auto release = [&] {
    for (int32_t token; stops.release(token);) out.answer.push_back(token);
  };
  for (const int32_t token : tokens) {
    out.stopped = stops.push(token);
    release();
    if (out.stopped) break;
  }
  out.held = stops.held();
  if (!out.stopped) {
    stops.finish();
    release();
  }
  return out;
}

}  // namespace

TEST("without sequences every token passes at once") {
  CHECK(feed({}, {1, 2, 3}).answer == Ids({1, 2, 3}));
  CHECK(feed({Ids()}, {1, 2, 3}).answer == Ids({1, 2, 3}));
  StopSequences stops(std::vector<Ids>{{9}});
  int32_t token = 0;
  CHECK(!stops.push(1) && stops.release(token) && token == 1 && stops.held() == 0);
}

TEST("a sequence ends the answer and is no part of it") {
  const Outcome one = feed({{7}, {8}}, {1, 8, 2});
  CHECK(one.stopped && one.answer == Ids({1}) && one.held == 1);
  const Outcome three = feed({{5, 6, 7}}, {1, 5, 6, 7, 2});
  CHECK(three.stopped && three.answer == Ids({1}) && three.held == 3);
}

TEST("a token ends an answer alone where it is a whole sequence, not where it begins or ends one") {
  const StopSequences stops({{8}, {5, 6}, {}});
  CHECK(stops.ends_alone(8) && !stops.ends_alone(5) && !stops.ends_alone(6) && !stops.ends_alone(0));
}

TEST("what only looked like a beginning is given out, in order") {
  const Outcome out = feed({{5, 6, 7}}, {5, 6, 5, 6, 8, 5});
  CHECK(!out.stopped && out.answer == Ids({5, 6, 5, 6, 8, 5}));
  CHECK(out.held == 1);  // the last 5, until the answer was over
}

TEST("a sequence that overlaps with a beginning of itself or of another is found") {
  CHECK(feed({{1, 1, 2}}, {1, 1, 1, 2}).answer == Ids({1}));
  const Outcome inner = feed({{1, 2, 3, 4}, {2, 3}}, {1, 2, 3, 4});
  CHECK(inner.stopped && inner.answer == Ids({1}) && inner.held == 2);
}

TEST_MAIN()
