// builders.h's tiny model as a Qwen3.5 of two layers: a recurrent one, of two key heads and four value heads of 16, and one that attends.
#pragma once

#include "model/builders.h"

namespace builders {

inline Gguf tiny_hybrid_gguf(const std::string& arch = "qwen35") {
  Gguf g = tiny_gguf(arch);
  for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm"}) g.drop(std::string("blk.0.") + part + ".weight");
  g.add("blk.0.attn_qkv.weight", {32, 128}).add("blk.0.attn_gate.weight", {32, 64}).add("blk.0.ssm_conv1d.weight", {4, 128}).add("blk.0.ssm_a", {4});
  g.add("blk.0.ssm_alpha.weight", {32, 4}).add("blk.0.ssm_beta.weight", {32, 4}).add("blk.0.ssm_dt.bias", {4}).add("blk.0.ssm_norm.weight", {16}).add("blk.0.ssm_out.weight", {64, 32});
  g.add("blk.1.attn_q.weight", {32, 64}).add("blk.1.attn_k.weight", {32, 16}).add("blk.1.attn_v.weight", {32, 16}).add("blk.1.attn_output.weight", {32, 32});
  g.add("blk.1.attn_q_norm.weight", {16}).add("blk.1.attn_k_norm.weight", {16}).add("blk.1.attn_norm.weight", {32});
  for (const char* layer : {"blk.0.", "blk.1."}) g.add(std::string(layer) + "post_attention_norm.weight", {32});
  for (const char* part : {"ffn_gate", "ffn_up", "ffn_down"}) g.add(std::string("blk.1.") + part + ".weight", {32, 32});
  g.set_u32(arch + ".block_count", 2).set_u32(arch + ".full_attention_interval", 2).set_u32(arch + ".rope.dimension_count", 4);
  g.set_u32(arch + ".ssm.conv_kernel", 4).set_u32(arch + ".ssm.state_size", 16).set_u32(arch + ".ssm.group_count", 2);
  return g.set_u32(arch + ".ssm.time_step_rank", 4).set_u32(arch + ".ssm.inner_size", 64);
}

// Of four experts two for each token, and one of 16 for all.
inline Gguf tiny_hybrid_experts_gguf(const std::string& arch = "qwen35moe") {
  Gguf g = tiny_hybrid_gguf(arch);
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    for (const char* part : {"ffn_gate", "ffn_up", "ffn_down"}) g.drop(layer + part + ".weight").add(layer + part + "_exps.weight", {32, 32, 4});
    g.add(layer + "ffn_gate_inp.weight", {32, 4}).add(layer + "ffn_gate_inp_shexp.weight", {32}).add(layer + "ffn_gate_shexp.weight", {32, 16});
    g.add(layer + "ffn_up_shexp.weight", {32, 16}).add(layer + "ffn_down_shexp.weight", {16, 32});
  }
  g.set_u32(arch + ".expert_feed_forward_length", 32).set_u32(arch + ".expert_shared_feed_forward_length", 16);
  return g.set_u32(arch + ".expert_count", 4).set_u32(arch + ".expert_used_count", 2);
}

// The same as Qwen3-Next: row i of the matrix of beta and alpha is i throughout.
inline Gguf tiny_next_gguf() {
  Gguf g = tiny_hybrid_experts_gguf("qwen3next");
  g.drop("blk.0.ssm_alpha.weight").drop("blk.0.ssm_beta.weight").add("blk.0.ssm_ba.weight", {32, 8});
  std::string& rows = g.tensor("blk.0.ssm_ba.weight").bytes;
  rows.clear();
  for (int i = 0; i < 8 * 32; ++i) rows += bytes_of(static_cast<float>(i / 32));
  return g;
}

inline Safetensors tiny_hybrid_safetensors(bool experts = false) {
  Safetensors s;
  s.add("model.embed_tokens.weight", {8, 32}).add("model.norm.weight", {32});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    s.add(layer + "input_layernorm.weight", {32}).add(layer + "post_attention_layernorm.weight", {32});
    if (!experts) {
      for (const char* part : {"gate_proj", "up_proj", "down_proj"}) s.add(layer + "mlp." + part + ".weight", {32, 32});
      continue;
    }
    s.add(layer + "mlp.gate.weight", {4, 32}).add(layer + "mlp.experts.gate_up_proj", {4, 64, 32}).add(layer + "mlp.experts.down_proj", {4, 32, 32});
    s.add(layer + "mlp.shared_expert.gate_proj.weight", {16, 32}).add(layer + "mlp.shared_expert.up_proj.weight", {16, 32});
    s.add(layer + "mlp.shared_expert.down_proj.weight", {32, 16}).add(layer + "mlp.shared_expert_gate.weight", {1, 32});
  }
  const std::string recurrent = "model.layers.0.linear_attn.", attending = "model.layers.1.self_attn.";
  s.add(recurrent + "in_proj_qkv.weight", {128, 32}).add(recurrent + "in_proj_z.weight", {64, 32}).add(recurrent + "in_proj_a.weight", {4, 32}).add(recurrent + "in_proj_b.weight", {4, 32});
  s.add(recurrent + "conv1d.weight", {128, 1, 4}).add(recurrent + "A_log", {4}).add(recurrent + "dt_bias", {4}).add(recurrent + "norm.weight", {16}).add(recurrent + "out_proj.weight", {32, 64});
  s.add(attending + "q_proj.weight", {64, 32}).add(attending + "k_proj.weight", {16, 32}).add(attending + "v_proj.weight", {16, 32}).add(attending + "o_proj.weight", {32, 32});
  return s.add(attending + "q_norm.weight", {16}).add(attending + "k_norm.weight", {16});
}

inline HubConfig tiny_hybrid_config(bool experts = false) {
  HubConfig config = tiny_config(experts ? "qwen3_5_moe_text" : "qwen3_5_text");
  config["num_hidden_layers"] = "2", config["layer_types"] = R"(["linear_attention","full_attention"])";
  config["linear_num_key_heads"] = "2", config["linear_num_value_heads"] = "4", config["linear_key_head_dim"] = config["linear_value_head_dim"] = "16", config["linear_conv_kernel_dim"] = "4";
  if (experts) config["num_experts"] = "4", config["num_experts_per_tok"] = "2", config["moe_intermediate_size"] = "32", config["shared_expert_intermediate_size"] = "16";
  return config;
}

}  // namespace builders
