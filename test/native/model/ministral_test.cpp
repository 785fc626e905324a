// Ministral 3 and Devstral Small 2: queries that grow with their position, YaRN by mscale, and a language model that lies in a model of
// pictures and text.
#include <cmath>

#include "base/error.h"
#include "check.h"
#include "model/opened.h"
#include "model/rope.h"

using namespace longview;
using builders::Gguf;
using builders::HubConfig;
using builders::message;
using builders::open;
using builders::Safetensors;
using builders::tiny_config;
using builders::tiny_gguf;
using builders::tiny_safetensors;

namespace {

Gguf ministral_gguf() {
  const std::string arch = "mistral3.", scaling = arch + "rope.scaling.";
  Gguf g = tiny_gguf("mistral3");
  g.set_string(scaling + "type", "yarn").set_f32(scaling + "factor", 4).set_u32(scaling + "original_context_length", 64);
  g.set_f32(scaling + "yarn_beta_fast", 32).set_f32(scaling + "yarn_beta_slow", 1).set_f32(scaling + "yarn_log_multiplier", 1);
  return g.set_f32(arch + "attention.temperature_scale", 0.1f);
}

HubConfig ministral_config(const std::string& scaling = R"("mscale_all_dim":1.0,"llama_4_scaling_beta":0.1)") {
  HubConfig config = tiny_config("ministral3");
  config.erase("rope_theta");
  config.erase("tie_word_embeddings");
  config["rope_parameters"] = R"({"rope_type":"yarn","type":"yarn","rope_theta":10000.0,"factor":4.0,"original_max_position_embeddings":64,"beta_fast":32.0,"beta_slow":1.0,
    "mscale":1.0,)" + scaling + "}";
  return config;
}

// Every tensor of the language model under other names, with a vision tower beside it whose layers are numbered too.
Safetensors within(const std::string& model, const std::string& output, bool tied) {
  Safetensors s = tiny_safetensors();
  for (auto& tensor : s.tensors) tensor.name.replace(0, std::string("model.").size(), model);
  if (!tied) s.add(output, {8, 32});
  return s.add("vision_tower.transformer.layers.0.attention.q_proj.weight", {4, 4}).add("multi_modal_projector.linear_1.weight", {4, 4});
}

std::string wrapped(const HubConfig& text, const std::string& more = "") {
  return R"({"model_type":"mistral3","architectures":["Mistral3ForConditionalGeneration"],)" + more + R"("text_config":)" + builders::text(text) + R"(,"vision_config":{"model_type":"pixtral"}})";
}

}  // namespace

TEST("both formats give the same queries and the same YaRN") {
  const Model gguf = open(ministral_gguf()), hub = open(builders::text(ministral_config()));
  for (const Model* model : {&gguf, &hub}) {
    const RopeConfig& rope = model->config.rope;
    CHECK_NEAR(rope.query_growth, 0.1, 1e-8);
    CHECK(rope.query_span == 64 && rope.attention_scale == 1 && model->config.window == 256);
    for (const int64_t position : {0, 1, 63}) CHECK(rope.query_scale(position) == 1);
    for (const int64_t position : {64, 127}) CHECK_NEAR(rope.query_scale(position), 1 + 0.1 * std::log(2.0), 1e-8);
    CHECK_NEAR(rope.query_scale(1'000'000), 1 + 0.1 * std::log(1 + 15625.0), 1e-7);
  }
  CHECK(gguf.config.rope.pairing == RopePairing::kAdjacent && hub.config.rope.pairing == RopePairing::kHalfSplit);
  CHECK(gguf.config.rope.inverse_frequencies == hub.config.rope.inverse_frequencies);
}

TEST("without the keys it is a plain Mistral") {
  const ModelConfig plain = open(tiny_gguf("mistral3")).config;
  CHECK(plain.rope.query_growth == 0 && plain.rope.query_scale(1'000'000) == 1 && plain.rope.attention_scale == 1);
  // A multiplier of 0, or none, leaves YaRN its own factor.
  const double factor = 1 + 0.1 * std::log(4.0);
  CHECK_NEAR(open(ministral_gguf().set_f32("mistral3.rope.scaling.yarn_log_multiplier", 0)).config.rope.attention_scale, factor, 1e-12);
  CHECK_NEAR(open(ministral_gguf().remove("mistral3.rope.scaling.yarn_log_multiplier")).config.rope.attention_scale, factor, 1e-12);
  CHECK_NEAR(open(builders::text(ministral_config(R"("mscale_all_dim":0.0)"))).config.rope.attention_scale, factor, 1e-12);
  CHECK(open(builders::text(ministral_config(R"("llama_4_scaling_beta":0)"))).config.rope.query_growth == 0);
}

TEST("growth out of range is refused, and of another architecture still") {
  for (const float growth : {-0.1f, NAN, INFINITY, 1000.0f}) CHECK_THROWS(open(ministral_gguf().set_f32("mistral3.attention.temperature_scale", growth)), kFileCorrupt);
  CHECK_THROWS(open(ministral_gguf().set_u32("mistral3.rope.scaling.original_context_length", 0)), kFileCorrupt);
  CHECK_THROWS(open(tiny_gguf().set_f32("llama.attention.temperature_scale", 0.1f)), kUnsupportedArchitecture);
  CHECK_THROWS(open(ministral_gguf().set_f32("mistral3.rope.scaling_beta", 0.1f)), kUnsupportedArchitecture);  // Ollama's other names, for YaRN too
}

TEST("the language model in a model of pictures and text, under both of its names") {
  for (const auto& [model, output] : {std::pair{"language_model.model.", "language_model.lm_head.weight"}, std::pair{"model.language_model.", "lm_head.weight"}})
    for (const bool tied : {true, false}) {
      const Model opened = open(wrapped(ministral_config()), within(model, output, tied));
      CHECK(opened.config.architecture == "ministral3" && opened.config.tied_embeddings == tied && opened.config.rope.query_span == 64);
      CHECK(opened.weights.layers.size() == 1 && !opened.weights.output.empty());
    }
  CHECK(open(wrapped(tiny_config("mistral")), within("language_model.model.", "", true)).config.rope.query_growth == 0);  // Mistral Small 3.1
  CHECK_THROWS(open(wrapped(ministral_config()), within("language_model.model.", "", true).add("language_model.model.layers.0.self_attn.q_norm.weight", {16})), kUnsupportedArchitecture);
}

TEST("what of it cannot be read is said") {
  CHECK(message(R"({"model_type":"mistral3"})").find("text_config") != std::string::npos);
  CHECK(message(wrapped(ministral_config(), R"("quantization_config":{"quant_method":"fp8"},)")).find("\"fp8\"") != std::string::npos);
  CHECK(message(wrapped(tiny_config("gemma4_text"))).find("\"gemma4_text\"") != std::string::npos);
  CHECK(message(wrapped(ministral_config()), within("language_model.model.", "language_model.lm_head.weight", false).add("language_model.model.layers.1.input_layernorm.weight", {32})).find("layers.1.input_layernorm") !=
        std::string::npos);
}

TEST_MAIN()
