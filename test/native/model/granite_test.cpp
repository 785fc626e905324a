// Granite: a llama whose embeddings, additions, scores and logits are scaled.
#include "base/error.h"
#include "check.h"
#include "model/opened.h"

using namespace longview;
using builders::Gguf;
using builders::HubConfig;
using builders::message;
using builders::open;

namespace {

Gguf tiny_granite_gguf() {
  Gguf g = builders::tiny_gguf("granite");
  for (builders::GgufTensor& tensor : g.tensors)
    if (tensor.name == "output_norm.weight") tensor.bytes.replace(0, 4, builders::bytes_of(3.0f));
  return g.set_f32("granite.embedding_scale", 12).set_f32("granite.residual_scale", 0.25f).set_f32("granite.attention.scale", 0.0625f).set_f32("granite.logit_scale", 8);
}

HubConfig config_of(const HubConfig& changes = {}) {
  HubConfig config = builders::tiny_config("granite");
  config["embedding_multiplier"] = "12.0", config["residual_multiplier"] = "0.25", config["attention_multiplier"] = "0.0625", config["logits_scaling"] = "8.0";
  for (const auto& [key, value] : changes) config[key] = value;
  return config;
}

// Heads of 16: a scale of 1/4 is the usual one.
void check_scales(const ModelConfig& c, double scores) {
  CHECK(c.embedding_scale == 48 && c.logit_scale == 0.125);
  CHECK_NEAR(c.norm_epsilon, 16e-5, 1e-9);
  CHECK_NEAR(c.rope.attention_scale * c.rope.attention_scale, scores * 4, 1e-9);
}

}  // namespace

TEST("its scales become numbers of a graph that has none") {
  const Model model = open(tiny_granite_gguf());
  check_scales(model.config, 0.0625);
  CHECK(model.config.rope.pairing == RopePairing::kAdjacent);
  CHECK(load<float>(model.weights.output_norm.data) == 3.0f / 8);
  check_scales(open(config_of()).config, 0.0625);
  CHECK(open(config_of()).config.rope.pairing == RopePairing::kHalfSplit);
}

TEST("what a file leaves out is what its tools have for it") {
  const ModelConfig gguf = open(builders::tiny_gguf("granite")).config, hub = open(builders::tiny_config("granite")).config;
  CHECK(gguf.embedding_scale == 1 && gguf.logit_scale == 1 && hub.embedding_scale == 1 && hub.logit_scale == 1);
  CHECK_NEAR(gguf.rope.attention_scale, 1, 1e-12);
  CHECK_NEAR(hub.rope.attention_scale, 2, 1e-12);  // scores as they are
}

TEST("scales out of range, and those of other architectures, are refused") {
  for (const char* key : {"embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"})
    for (const char* value : {"0", "-1", "1e9"}) CHECK_THROWS(open(config_of({{key, value}})), kFileCorrupt);
  CHECK_THROWS(open(tiny_granite_gguf().set_f32("granite.residual_scale", 0)), kFileCorrupt);
  CHECK_THROWS(open(tiny_granite_gguf().set_f32("granite.residual_scale", NAN)), kFileCorrupt);
  CHECK_THROWS(open(builders::tiny_gguf().set_f32("llama.residual_scale", 0.25f)), kUnsupportedArchitecture);
  CHECK_THROWS(open(tiny_granite_gguf().set_u32("granite.expert_count", 8)), kUnsupportedArchitecture);
  CHECK(message(config_of({{"rope_parameters", R"({"partial_rotary_factor": 0.5})"}})).find("parts of its heads") != std::string::npos);
  // What is left of the norms' epsilon has to be one.
  CHECK_THROWS(open(config_of({{"rms_norm_eps", "0.1"}, {"residual_multiplier", "0.1"}})), kFileCorrupt);
}

TEST_MAIN()
