// Files with mixtures of experts: what of them is read, and what is refused.
#include "base/error.h"
#include "check.h"
#include "model/opened.h"

using namespace longview;
using builders::Gguf;
using builders::HubConfig;
using builders::message;
using builders::open;
using builders::Safetensors;
using builders::tiny_experts_config;
using builders::tiny_experts_gguf;
using builders::tiny_experts_safetensors;

namespace {

const Safetensors experts = tiny_experts_safetensors();

HubConfig with(const HubConfig& changes) {
  HubConfig config = tiny_experts_config();
  for (const auto& [key, value] : changes) config[key] = value;
  return config;
}

}  // namespace

TEST("one tensor of all experts and one for each are the same model") {
  const Model gguf = open(tiny_experts_gguf()), hub = open(tiny_experts_config(), experts);
  for (const Model* model : {&gguf, &hub}) {
    const ModelConfig& c = model->config;
    CHECK(c.experts == 4 && c.experts_used == 2 && c.experts_normalised && c.ffn == 32 && c.qk_norm);
    const LayerWeights& layer = model->weights.layers[0];
    CHECK(layer.gate.empty() && layer.up.empty() && layer.down.empty());
    CHECK(layer.router.rows == 4 && layer.router.cols == 32);
    int64_t views = 0, bytes = 0;
    layer.each_expert([&](const TensorView& view) {
      CHECK(view.rows == 32 && view.cols == 32);
      bytes += view.bytes;
      ++views;
    });
    CHECK(views == 12 && bytes == 12 * 32 * 32 * (model == &gguf ? 4 : 2));
  }
  const LayerWeights& layer = gguf.weights.layers[0];
  for (size_t i = 1; i < 4; ++i) CHECK(layer.expert_ups[i].data == layer.expert_ups[i - 1].data + 32 * 32 * 4);
  CHECK(gguf.parameters == hub.parameters);
}

TEST("the shares of a token's experts add up to 1 where the file says so, as GGUF's do") {
  CHECK(!open(with({{"norm_topk_prob", "false"}}), experts).config.experts_normalised);
  HubConfig silent = tiny_experts_config();
  silent.erase("norm_topk_prob");
  CHECK(!open(silent, experts).config.experts_normalised);  // transformers' own
  HubConfig renamed = tiny_experts_config();  // by transformers 5
  renamed.erase("num_experts");
  renamed["num_local_experts"] = "4";
  CHECK(open(renamed, experts).config.experts == 4);
}

TEST("numbers of experts out of range are refused") {
  for (const uint32_t count : {0u, 1u, 4097u, 0xffffffffu}) CHECK_THROWS(open(tiny_experts_gguf().set_u32("qwen3moe.expert_count", count)), kFileCorrupt);
  for (const uint32_t used : {0u, 5u, 0xffffffffu}) CHECK_THROWS(open(tiny_experts_gguf().set_u32("qwen3moe.expert_used_count", used)), kFileCorrupt);
  CHECK_THROWS(open(tiny_experts_gguf().remove("qwen3moe.expert_used_count")), kFileCorrupt);
  CHECK_THROWS(open(tiny_experts_gguf().remove("qwen3moe.expert_feed_forward_length")), kFileCorrupt);
  for (const char* value : {"0", "-1", "5", "1e15"}) CHECK_THROWS(open(with({{"num_experts_per_tok", value}}), experts), kFileCorrupt);
  for (const char* value : {"0", "-1", "1e15"}) CHECK_THROWS(open(with({{"num_experts", value}}), experts), kFileCorrupt);
}

TEST("an expert that is missing, of another shape or one too many is named") {
  CHECK_THROWS(open(tiny_experts_gguf().drop("blk.0.ffn_gate_inp.weight")), kFileCorrupt);
  CHECK_THROWS(open(tiny_experts_gguf().drop("blk.0.ffn_up_exps.weight")), kFileCorrupt);
  for (const std::vector<uint64_t>& dims : {std::vector<uint64_t>{32, 32}, std::vector<uint64_t>{32, 32, 3}, std::vector<uint64_t>{32, 128}}) {
    Gguf other = tiny_experts_gguf().drop("blk.0.ffn_down_exps.weight").add("blk.0.ffn_down_exps.weight", dims);
    CHECK_THROWS(open(other), kFileCorrupt);
    CHECK(message(other).find("instead of 4 x 32 x 32") != std::string::npos);
  }
  Safetensors fewer = tiny_experts_safetensors();
  std::erase_if(fewer.tensors, [](const auto& tensor) { return tensor.name.find("experts.3.up") != std::string::npos; });
  CHECK(message(tiny_experts_config(), fewer).find("mlp.experts.3.up_proj.weight is missing") != std::string::npos);
  CHECK_THROWS(open(tiny_experts_config(), tiny_experts_safetensors().add("model.layers.0.mlp.experts.4.up_proj.weight", {32, 32})), kUnsupportedArchitecture);
  CHECK_THROWS(open(tiny_experts_gguf().add("blk.0.ffn_gate_shexp.weight", {32, 32})), kUnsupportedArchitecture);  // one that all tokens share
}

TEST("mixtures that the graph does not run are refused, with what asks for them") {
  const auto refuses = [](const std::string& key, const auto&... input) {
    CHECK_THROWS(open(input...), kUnsupportedArchitecture);
    CHECK(message(input...).find(key) != std::string::npos);
  };
  refuses("mlp_only_layers", with({{"mlp_only_layers", "[0]"}}), experts);
  refuses("decoder_sparse_step", with({{"decoder_sparse_step", "2"}}), experts);
  refuses("expert_gating_func", tiny_experts_gguf().set_u32("qwen3moe.expert_gating_func", 2));
  refuses("expert_weights_scale", tiny_experts_gguf().set_f32("qwen3moe.expert_weights_scale", 2.5f));
  CHECK(open(tiny_experts_gguf().set_u32("qwen3moe.expert_gating_func", 1).set_f32("qwen3moe.expert_weights_scale", 1)).config.experts == 4);
  refuses("\"llama\"", builders::tiny_gguf().set_u32("llama.expert_count", 8));
  Safetensors mixed = tiny_experts_safetensors();
  for (auto& tensor : mixed.tensors)
    if (tensor.name.find("experts.2.gate") != std::string::npos) tensor.type = "F32", tensor.bytes.resize(32 * 32 * 4);
  CHECK(message(tiny_experts_config(), mixed).find("different types") != std::string::npos);
}

TEST_MAIN()
