// Bringing a model's weights to the device: what is told of it, and that whoever is told can end it.
#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;

namespace {

const std::string kModel = files::root() + "/media/model/longview-135m-64k.Q5_0.gguf";

}  // namespace

TEST("a loading tells how far it is, and at its end that all weights are there") {
  std::vector<std::pair<int64_t, int64_t>> told;
  EngineOptions options;
  options.on_load = [&](int64_t done, int64_t total) { told.emplace_back(done, total); };
  const Engine engine(kModel, options);
  CHECK(told.size() >= 2);
  for (size_t i = 0; i < told.size(); ++i) {
    CHECK(told[i].second == engine.model().weight_bytes);
    CHECK(told[i].first <= told[i].second);
    if (i > 0) CHECK(told[i].first >= told[i - 1].first);
  }
  CHECK(told.back().first == told.back().second);
}

TEST("a loading ends where whoever is told of it throws") {
  int told = 0;
  EngineOptions options;
  options.on_load = [&](int64_t, int64_t) {
    ++told;
    LONGVIEW_THROW(kCancelled, "Stopped.");
  };
  CHECK_THROWS(Engine(kModel, options), kCancelled);
  CHECK(told == 1);
}

TEST_MAIN()
