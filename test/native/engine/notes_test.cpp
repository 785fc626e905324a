// What an engine says of itself: all that is not as one would expect, not the first of it alone.
#include <cstdlib>

#include "check.h"
#include "engine/engine.h"
#include "model/builders.h"
#include "model/files.h"
#include "sparse/prefill_plan.h"

using namespace longview;

namespace {

const files::Scratch scratch;

bool says(const Engine& engine, const std::string& what) { return engine.device().note.find(what) != std::string::npos; }

}  // namespace

TEST("why there is no GPU, what the window is less by, and why a profile is passed over") {
  setenv("LONGVIEW_CUDA_LIBRARY", scratch.path("none.so").c_str(), 1);
  const std::string file = scratch.put("model.gguf", builders::tiny_experts_gguf().set_u32("qwen3moe.attention.sliding_window", 64).build());
  EngineOptions options;
  options.device = DeviceChoice::kAuto;
  options.prefill = {PrefillMode::kAuto, PrefillTarget::kBalanced, "", {scratch.path()}};
  const Model model = open_model(file);
  scratch.put(profile_name({model.fingerprint, model.config.layers, model.config.heads, "cpu"}, {PrefillMode::kAuto, PrefillTarget::kBalanced}), "{}");
  const Engine engine(file, options);
  CHECK(says(engine, "no GPU code"));
  CHECK(engine.window() == 64 && says(engine, "64 tokens instead of 256"));
  CHECK(says(engine, "is no head profile"));
  options.device = DeviceChoice::kCpu;
  options.prefill = {};
  CHECK(Engine(files::fixture("llama.Q8_0.gguf"), options).device().note.empty());
}

TEST_MAIN()
