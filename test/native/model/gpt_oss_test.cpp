// gpt-oss: layers that slide in turns, sinks, biases of everything, and experts whose halves are bounded.
#include "base/error.h"
#include "check.h"
#include "model/opened.h"
#include "model/rope.h"

using namespace longview;
using builders::Gguf;
using builders::message;
using builders::open;
using builders::tiny_config;
using builders::tiny_gpt_oss_gguf;

TEST("what its file says, and what only its architecture does") {
  const Model model = open(tiny_gpt_oss_gguf());
  const ModelConfig& c = model.config;
  CHECK(c.experts == 4 && c.experts_used == 2 && c.experts_normalised && c.expert_biases && c.clamped_experts);
  CHECK(c.sliding.span == 64 && c.sliding.interval == 2 && c.window == 32 * 64);
  CHECK(c.qkv_bias && c.output_bias && c.attention_sinks && !c.qk_norm && c.rope.pairing == RopePairing::kHalfSplit);
  const LayerWeights& layer = model.weights.layers[0];
  CHECK(layer.sinks.rows == 1 && layer.sinks.cols == 2 && layer.output_bias.cols == 32 && layer.ffn_norm.cols == 32 && layer.attention_post_norm.empty());
  CHECK(layer.router_bias.cols == 4 && layer.gate_biases.cols == 4 * 32 && layer.up_biases.rows == 1 && layer.down_biases.cols == 4 * 32);
}

TEST("YaRN's range is not rounded to whole dimensions") {
  RopeScaling rounded, whole;
  for (RopeScaling* scaling : {&rounded, &whole}) {
    scaling->type = "yarn";
    scaling->theta = 10000;
    scaling->settings.factor = 32;
    scaling->settings.original_window = 64;
    scaling->settings.beta_fast = 32;
    scaling->settings.beta_slow = 1;
  }
  whole.settings.truncate = false;
  RopeConfig a, b;
  a.dims = b.dims = 16;
  build_rope(rounded, "", a);
  build_rope(whole, "", b);
  CHECK(a.inverse_frequencies != b.inverse_frequencies);
  CHECK(open(tiny_gpt_oss_gguf()).config.rope.inverse_frequencies == b.inverse_frequencies);
}

TEST("what is missing or of another shape is named") {
  for (const std::string name : {"attn_sinks.weight", "attn_output.bias", "attn_k.bias", "ffn_gate_inp.bias", "ffn_up_exps.bias", "ffn_down_exps.bias", "post_attention_norm.weight"}) {
    CHECK_THROWS(open(tiny_gpt_oss_gguf().drop("blk.0." + name)), kFileCorrupt);
    Gguf other = tiny_gpt_oss_gguf();
    other.tensor("blk.0." + name).dims = {7};
    CHECK_THROWS(open(other), kFileCorrupt);
  }
  CHECK(message(tiny_gpt_oss_gguf().drop("blk.0.attn_sinks.weight")).find("attn_sinks.weight is missing") != std::string::npos);
  CHECK_THROWS(open(tiny_gpt_oss_gguf().set_u32("gpt-oss.expert_gating_func", 2)), kUnsupportedArchitecture);
  CHECK(open(tiny_gpt_oss_gguf().set_u32("gpt-oss.expert_gating_func", 3)).config.experts == 4);
}

TEST("of safetensors another file is asked for") {
  try {
    open(tiny_config("gpt_oss"));
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code == ErrorCode::kUnsupportedArchitecture && std::string(error.what()).find("GGUF") != std::string::npos);
  }
}

TEST_MAIN()
