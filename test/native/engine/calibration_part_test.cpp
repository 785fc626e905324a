// A calibration that is stopped, and what is kept of it in a part file.
#include "engine/calibration_part.h"

#include <cmath>

#include "base/error.h"
#include "check.h"
#include "engine/small_calibration.h"

using namespace longview;
using namespace longview::small_calibration;

TEST("calibration stops when asked to, and leaves the engine as it was") {
  Engine engine(model(), adaptive());
  const std::vector<int32_t> tokens = text(engine);
  CancelToken cancel;
  {
    Calibration calibration(engine, tokens, every_chunk());
    CHECK(calibration.step(cancel) && calibration.step(cancel));
    cancel.cancel();
    CHECK_THROWS(calibration.step(cancel), kCancelled);
    CHECK(calibration.done() == 512 && calibration.total() == static_cast<int64_t>(tokens.size()));
  }
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  CHECK(context->length() == static_cast<int64_t>(tokens.size()));
}

TEST("an interrupted calibration goes on with the layer that it was at") {
  const files::Scratch scratch;
  const std::string part = scratch.path("head.part");
  Engine engine(model(), adaptive());
  const std::vector<int32_t> tokens = text(engine, 3072);
  Calibration whole(engine, tokens, every_chunk(0, scratch.path("whole.part")));
  finish(whole);
  CHECK(!whole.resumed());
  {
    Calibration stopped(engine, tokens, every_chunk(0, part));
    for (int chunk = 0; chunk < 5; ++chunk) stopped.step(CancelToken());
    CHECK(!stopped.resumed());
  }
  Calibration resumed(engine, tokens, every_chunk(0, part));
  CHECK(resumed.resumed());
  finish(resumed);
  for (const ProfileUse& use : {kFast, kBalanced}) CHECK_NEAR(resumed.uncalibrated_density(use), whole.uncalibrated_density(use), 1e-12);
  const HeadProfile expected = whole.profile(kFast, 1), got = resumed.profile(kFast, 1);
  CHECK(expected.plans == got.plans && expected.density == got.density && expected.recall == got.recall);
  CHECK(std::filesystem::exists(part));
  CHECK(Part(part, engine).rows(0) == Part(scratch.path("whole.part"), engine).rows(0));  // nothing was measured again
  resumed.forget_part();
  CHECK(!std::filesystem::exists(part));
}

TEST("what was measured on another text, in another KV format or in other chunks is not gone on with") {
  const files::Scratch scratch;
  const std::string part = scratch.path("head.part");
  Engine engine(model(), adaptive());
  std::vector<int32_t> tokens = text(engine);
  Calibration(engine, tokens, every_chunk(0, part)).step(CancelToken());
  CHECK(Calibration(engine, tokens, every_chunk(0, part)).resumed());
  CHECK(!Calibration(engine, tokens, every_chunk(256, part)).resumed());
  EngineOptions other = adaptive();
  for (const KvFormat format : {KvFormat::kBFloat16, KvFormat::kQ8}) {
    other.kv_format = format;
    Engine otherwise(model(), other);
    CHECK(!Calibration(otherwise, tokens, every_chunk(0, part)).resumed());
  }
  EngineOptions larger = adaptive();
  larger.chunk_tokens = 512;
  Engine in_larger(model(), larger);
  CHECK(!Calibration(in_larger, tokens, every_chunk(0, part)).resumed());
  tokens.back() ^= 1;
  CHECK(!Calibration(engine, tokens, every_chunk(0, part)).resumed());
  CHECK_THROWS(Calibration(engine, tokens, every_chunk(0, scratch.path("missing/head.part"))).step(CancelToken()), kCannotWrite);
}

TEST("a part file comes back as it was, and a damaged one not at all") {
  const files::Scratch scratch;
  const std::string path = scratch.path("head.part");
  std::vector<LayerTrials> layers(2);
  for (LayerTrials& layer : layers) {
    layer = {512, 64, {{1.25, 1e-3, {10, 20, 2.5, 3}}, {0, 2e-3, {20, 20, 3, 3}}}};
  }
  layers[1].measured_to = 256;
  write_calibration_part(path, 7, layers);
  const auto blank = [] {
    std::vector<LayerTrials> out(2);
    for (LayerTrials& layer : out) layer.trials.resize(2);
    return out;
  };
  std::vector<LayerTrials> read = blank();
  CHECK(read_calibration_part(path, 7, read));
  CHECK(read[0].measured_to == 512 && read[1].measured_to == 256 && read[1].rows == 64 && read[0].trials[0].error == 1.25 && read[0].trials[0].seconds == 1e-3);
  CHECK(read[1].trials[0].coverage.visited == 10 && read[1].trials[0].coverage.covered == 2.5 && read[1].trials[1].coverage.probes == 3);
  CHECK(!read_calibration_part(path, 8, read));
  CHECK(!read_calibration_part(scratch.path("none"), 7, read));
  CHECK(!read_calibration_part(scratch.path(), 7, read));
  std::vector<LayerTrials> other(3);
  CHECK(!read_calibration_part(path, 7, other));

  const std::string whole = files::read(path);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    std::vector<LayerTrials> untouched = blank();
    CHECK(!read_calibration_part(scratch.put("damaged", damaged), 7, untouched));
    CHECK(untouched[0].measured_to == 0);
    CHECK(!read_calibration_part(scratch.put("cut", whole.substr(0, at)), 7, untouched));
  }
  CHECK(!read_calibration_part(scratch.put("longer", whole + std::string(8, 'x')), 7, read));
  layers[0].trials[0].error = std::nan("");
  write_calibration_part(path, 7, layers);
  CHECK(!read_calibration_part(path, 7, read));
  layers[0].trials[0].error = 1.25;
  layers[1].rows = -1;
  write_calibration_part(path, 7, layers);
  CHECK(!read_calibration_part(path, 7, read));
}

TEST_MAIN()
