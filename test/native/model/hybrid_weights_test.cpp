// Qwen3.5 in both formats: which layers are recurrent, what is taken in another form than the file has it, and what is refused.
#include <cmath>

#include "base/error.h"
#include "check.h"
#include "model/hybrid_builders.h"
#include "model/opened.h"
#include "model/quant_formats.h"

using namespace longview;
using builders::Gguf;
using builders::HubConfig;
using builders::message;
using builders::open;
using builders::Safetensors;
using builders::tiny_hybrid_config;
using builders::tiny_hybrid_experts_gguf;
using builders::tiny_hybrid_gguf;
using builders::tiny_hybrid_safetensors;

namespace {

HubConfig with(const HubConfig& changes, bool experts = false) {
  HubConfig config = tiny_hybrid_config(experts);
  for (const auto& [key, value] : changes) config[key] = value;
  return config;
}

std::vector<float> values(const TensorView& vector) {
  std::vector<float> out(static_cast<size_t>(vector.cols));
  dequantize_row(vector.type, vector.data, out.data(), vector.cols);
  return out;
}

bool says(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST("both formats are the same model, but for the order of value heads and the form of small vectors") {
  const Model gguf = open(tiny_hybrid_gguf()), hub = open(tiny_hybrid_config(), tiny_hybrid_safetensors());
  for (const Model* model : {&gguf, &hub}) {
    const ModelConfig& c = model->config;
    const RecurrentConfig& r = c.recurrent;
    CHECK(c.layers == 2 && c.attention_layers() == 1 && !c.attends(0) && c.attends(1) && c.attention_layer(0) == 1);
    CHECK(r.key_heads == 2 && r.value_heads == 4 && r.head_dim == 16 && r.taps == 4 && r.channels() == 128 && r.tiled == (model == &gguf));
    CHECK(c.qk_norm && c.attention_gate && c.rope.dims == 4);
    const LayerWeights &recurrent = model->weights.layers[0], &attending = model->weights.layers[1];
    CHECK(recurrent.q.empty() && recurrent.mixed.rows == 128 && recurrent.output_gate.rows == 64 && recurrent.taps.rows == 1 && recurrent.taps.cols == 512);
    CHECK(attending.mixed.empty() && attending.q.rows == 64 && attending.attention_output.cols == 32 && recurrent.attention_output.cols == 64);
    // All weights are zero: of norms in safetensors, what they differ from 1 by; of A, its logarithm.
    const bool differs = model == &hub;
    for (const TensorView* norm : {&recurrent.attention_norm, &recurrent.ffn_norm, &attending.q_norm, &attending.k_norm, &model->weights.output_norm}) CHECK(values(*norm)[0] == (differs ? 1.0f : 0.0f));
    CHECK(values(recurrent.value_norm)[0] == 0.0f);
    CHECK(values(recurrent.decay)[3] == (differs ? -1.0f : 0.0f));
  }
  CHECK(gguf.parameters == hub.parameters);
}

TEST("layers that guess ahead are left out, and what else is unknown is not") {
  Gguf ahead = tiny_hybrid_gguf();
  ahead.set_u32("qwen35.block_count", 3).set_u32("qwen35.nextn_predict_layers", 1).add("blk.2.nextn.eh_proj.weight", {64, 32}).add("blk.2.attn_q.weight", {32, 64});
  CHECK(open(ahead).config.layers == 2);
  CHECK(says(message(tiny_hybrid_gguf().add("blk.1.attn_q.bias", {64})), "attn_q.bias"));
  CHECK(says(message(tiny_hybrid_gguf().add("blk.0.attn_k.weight", {32, 16})), "blk.0.attn_k.weight"));
  CHECK(says(message(tiny_hybrid_gguf().drop("blk.0.ssm_a")), "ssm_a is missing"));
  Gguf narrow = tiny_hybrid_gguf();
  narrow.drop("blk.0.ssm_conv1d.weight").add("blk.0.ssm_conv1d.weight", {3, 128});
  CHECK(says(message(narrow), "128 x 3 instead of 128 x 4"));
}

TEST("the pattern of recurrent layers is read, and another one refused") {
  HubConfig silent = tiny_hybrid_config();
  silent.erase("layer_types");
  silent["full_attention_interval"] = "2";
  CHECK(open(silent, tiny_hybrid_safetensors()).config.attention_layers() == 1);
  const Safetensors tensors = tiny_hybrid_safetensors();
  CHECK(says(message(with({{"layer_types", R"(["full_attention","linear_attention"])"}}), tensors), "another pattern"));
  CHECK(says(message(with({{"layer_types", R"(["linear_attention"])"}}), tensors), "not as many as its layers"));
  CHECK(says(message(with({{"layer_types", R"(["linear_attention","linear_attention"])"}}), tensors), "out of range"));
  CHECK(says(message(with({{"layer_types", R"(["mamba","full_attention"])"}}), tensors), "mamba"));
  CHECK(says(message(with({{"layer_types", "null"}, {"full_attention_interval", "0"}}), tensors), "out of range"));
  CHECK(says(message(with({{"num_hidden_layers", "3"}, {"layer_types", R"(["linear_attention","full_attention","linear_attention"])"}}), tensors), "last layer"));
  CHECK(says(message(tiny_hybrid_gguf().set_u32("qwen35.full_attention_interval", 1)), "attn_qkv.weight has the shape"));
  CHECK_THROWS(open(tiny_hybrid_gguf().set_u32("qwen35.full_attention_interval", 0)), kFileCorrupt);
}

TEST("sizes of recurrent heads are checked before memory is taken by them") {
  const Safetensors tensors = tiny_hybrid_safetensors();
  const std::pair<const char*, const char*> changes[] = {{"linear_num_key_heads", "0"}, {"linear_num_value_heads", "3"}, {"linear_num_value_heads", "1000000000"}, {"linear_conv_kernel_dim", "0"},
                                                         {"linear_key_head_dim", "0"}};
  for (const auto& [key, value] : changes) CHECK(!message(with({{key, value}}), tensors).empty());
  CHECK_THROWS(open(with({{"linear_value_head_dim", "32"}}), tensors), kUnsupportedArchitecture);
  CHECK_THROWS(open(with({{"linear_conv_kernel_dim", "3"}}), tensors), kUnsupportedArchitecture);
  CHECK_THROWS(open(with({{"linear_key_head_dim", "256"}, {"linear_value_head_dim", "256"}}), tensors), kUnsupportedArchitecture);
  CHECK_THROWS(open(with({{"attn_output_gate", "false"}}), tensors), kUnsupportedArchitecture);
  CHECK_THROWS(open(tiny_hybrid_gguf().set_u32("qwen35.ssm.inner_size", 65)), kFileCorrupt);
  CHECK_THROWS(open(tiny_hybrid_gguf().set_u32("qwen35.ssm.time_step_rank", 0)), kFileCorrupt);
  CHECK_THROWS(open(tiny_hybrid_gguf().remove("qwen35.ssm.state_size")), kFileCorrupt);
}

TEST("an expert that all share is read, and gates and ups that lie together are taken apart without a copy") {
  const Model gguf = open(tiny_hybrid_experts_gguf()), hub = open(tiny_hybrid_config(true), tiny_hybrid_safetensors(true));
  for (const Model* model : {&gguf, &hub}) {
    CHECK(model->config.experts == 4 && model->config.experts_used == 2 && model->config.experts_normalised && model->config.ffn == 32 && model->config.shared_ffn == 16);
    const LayerWeights& layer = model->weights.layers[0];
    CHECK(layer.shared_gate.rows == 16 && layer.shared_down.cols == 16 && layer.shared_router.rows == 1 && layer.shared_router.cols == 32);
    CHECK(layer.expert_gates.size() == 4 && layer.expert_ups[3].rows == 32);
  }
  const LayerWeights& layer = hub.weights.layers[1];
  CHECK(layer.expert_ups[0].data == layer.expert_gates[0].data + 32 * 32 * 2);
  CHECK(layer.expert_gates[1].data == layer.expert_ups[0].data + 32 * 32 * 2);
  CHECK(gguf.parameters == hub.parameters);
  Gguf fused = tiny_hybrid_experts_gguf();
  for (const std::string at : {"blk.0.", "blk.1."}) fused.drop(at + "ffn_gate_exps.weight").drop(at + "ffn_up_exps.weight").add(at + "ffn_gate_up_exps.weight", {32, 64, 4});
  CHECK(open(fused).parameters == gguf.parameters);
  CHECK(says(message(tiny_hybrid_experts_gguf().drop("blk.1.ffn_gate_inp_shexp.weight")), "ffn_gate_inp_shexp.weight is missing"));
  CHECK(says(message(tiny_hybrid_experts_gguf().set_u32("qwen35moe.expert_shared_feed_forward_length", 0)), "shared expert"));
  CHECK(open(tiny_hybrid_experts_gguf().set_u32("qwen35moe.expert_used_count", 4)).config.experts_used == 4);
}

TEST("the language model inside a model of pictures and text is found") {
  Safetensors inside = tiny_hybrid_safetensors();
  for (auto& tensor : inside.tensors) tensor.name.replace(0, std::string("model.").size(), "model.language_model.");
  inside.add("model.visual.blocks.0.attn.qkv.weight", {4, 4}).add("mtp.layers.0.self_attn.q_proj.weight", {64, 32});
  const std::string config = R"({"model_type":"qwen3_5","vision_config":{"model_type":"qwen3_5_vision"},"text_config":)" + builders::text(tiny_hybrid_config()) + "}";
  CHECK(open(config, inside).config.attention_layers() == 1);
  CHECK(says(message(std::string(R"({"model_type":"qwen3_5"})"), inside), "no text_config"));
}

TEST("Qwen3-Next has beta and alpha by key head in one matrix, whose rows are taken apart") {
  const Gguf gguf = builders::tiny_next_gguf();  // of two key heads with two value heads each: b0 b1 a0 a1, b2 b3 a2 a3
  const Model model = open(gguf);
  CHECK(!model.config.recurrent.tiled && model.config.attention_gate && model.config.shared_ffn == 16);
  const LayerWeights& layer = model.weights.layers[0];
  const auto first_column = [](const TensorView& matrix) {
    std::vector<float> all(static_cast<size_t>(matrix.rows * matrix.cols)), firsts;
    for (int64_t row = 0; row < matrix.rows; ++row) {
      dequantize_row(matrix.type, matrix.data + row * matrix.cols * 4, all.data(), matrix.cols);
      firsts.push_back(all[0]);
    }
    return firsts;
  };
  CHECK((first_column(layer.beta) == std::vector<float>{0, 1, 4, 5}));
  CHECK((first_column(layer.alpha) == std::vector<float>{2, 3, 6, 7}));
  CHECK(says(message(Gguf(gguf).add("blk.0.ssm_in.weight", {32, 192})), "older converter"));
  CHECK(says(message(Gguf(gguf).drop("blk.0.ssm_ba.weight")), "blk.0.ssm_ba.weight is missing"));
}

TEST_MAIN()
