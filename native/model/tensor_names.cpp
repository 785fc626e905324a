#include "model/tensor_names.h"

#include "model/read_config.h"

namespace longview {
namespace {

const TensorNames kGgufNames{
    .embedding = "token_embd.weight",
    .output_norm = "output_norm.weight",
    .output = "output.weight",
    .layer = "blk.",
    .attention_norm = "attn_norm",
    .q = "attn_q",
    .k = "attn_k",
    .v = "attn_v",
    .qkv = "attn_qkv",
    .q_norm = "attn_q_norm",
    .k_norm = "attn_k_norm",
    .attention_output = "attn_output",
    .attention_post_norm = "post_attention_norm",
    .ffn_norm = "ffn_norm",
    .gate = "ffn_gate",
    .up = "ffn_up",
    .gate_up = "ffn_up",
    .down = "ffn_down",
    .ffn_post_norm = "post_ffw_norm",
    .router = "ffn_gate_inp",
    .experts = nullptr,
    .expert_gate = "ffn_gate_exps",
    .expert_up = "ffn_up_exps",
    .expert_down = "ffn_down_exps",
    .experts_gate_up = "ffn_gate_up_exps.weight",
    .experts_down = "ffn_down_exps.weight",
    .shared_gate = "ffn_gate_shexp",
    .shared_up = "ffn_up_shexp",
    .shared_down = "ffn_down_shexp",
    .shared_router = "ffn_gate_inp_shexp",
    .sinks = "attn_sinks.weight",
    .mixed = "attn_qkv",
    .output_gate = "attn_gate",
    .alpha = "ssm_alpha",
    .beta = "ssm_beta",
    .beta_alpha = "ssm_ba",
    .recurrent_output = "ssm_out",
    .taps = "ssm_conv1d.weight",
    .decay = "ssm_a",
    .decay_bias = "ssm_dt.bias",
    .value_norm = "ssm_norm.weight",
};

// transformers' names, which nearly all models have.
const TensorNames kHubNames{
    .embedding = "model.embed_tokens.weight",
    .output_norm = "model.norm.weight",
    .output = "lm_head.weight",
    .layer = "model.layers.",
    .attention_norm = "input_layernorm",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .qkv = "self_attn.qkv_proj",
    .q_norm = "self_attn.q_norm",
    .k_norm = "self_attn.k_norm",
    .attention_output = "self_attn.o_proj",
    .attention_post_norm = "post_self_attn_layernorm",
    .ffn_norm = "post_attention_layernorm",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .gate_up = "mlp.gate_up_proj",
    .down = "mlp.down_proj",
    .ffn_post_norm = "post_mlp_layernorm",
    .router = "mlp.gate",
    .experts = "mlp.experts.",
    .expert_gate = ".gate_proj",
    .expert_up = ".up_proj",
    .expert_down = ".down_proj",
    .experts_gate_up = "mlp.experts.gate_up_proj",
    .experts_down = "mlp.experts.down_proj",
    .shared_gate = "mlp.shared_expert.gate_proj",
    .shared_up = "mlp.shared_expert.up_proj",
    .shared_down = "mlp.shared_expert.down_proj",
    .shared_router = "mlp.shared_expert_gate",
    .sinks = nullptr,
    .mixed = "linear_attn.in_proj_qkv",
    .output_gate = "linear_attn.in_proj_z",
    .alpha = "linear_attn.in_proj_a",
    .beta = "linear_attn.in_proj_b",
    .beta_alpha = nullptr,
    .recurrent_output = "linear_attn.out_proj",
    .taps = "linear_attn.conv1d.weight",
    .decay = "linear_attn.A_log",
    .decay_bias = "linear_attn.dt_bias",
    .value_norm = "linear_attn.norm.weight",
};

// GLM-4's own code (model_type chatglm); nothing of it lies in separate matrices.
const TensorNames kChatGlmNames{
    .embedding = "transformer.embedding.word_embeddings.weight",
    .output_norm = "transformer.encoder.final_layernorm.weight",
    .output = "transformer.output_layer.weight",
    .layer = "transformer.encoder.layers.",
    .attention_norm = "input_layernorm",
    .q = "self_attention.query",
    .k = "self_attention.key",
    .v = "self_attention.value",
    .qkv = "self_attention.query_key_value",
    .q_norm = "self_attention.query_norm",
    .k_norm = "self_attention.key_norm",
    .attention_output = "self_attention.dense",
    .attention_post_norm = "post_self_attn_layernorm",
    .ffn_norm = "post_attention_layernorm",
    .gate = "mlp.gate",
    .up = "mlp.up",
    .gate_up = "mlp.dense_h_to_4h",
    .down = "mlp.dense_4h_to_h",
    .ffn_post_norm = "post_mlp_layernorm",
    .router = nullptr,
    .experts = nullptr,
    .expert_gate = nullptr,
    .expert_up = nullptr,
    .expert_down = nullptr,
    .experts_gate_up = nullptr,
    .experts_down = nullptr,
    .shared_gate = nullptr,
    .shared_up = nullptr,
    .shared_down = nullptr,
    .shared_router = nullptr,
    .sinks = nullptr,
    .mixed = nullptr,
    .output_gate = nullptr,
    .alpha = nullptr,
    .beta = nullptr,
    .beta_alpha = nullptr,
    .recurrent_output = nullptr,
    .taps = nullptr,
    .decay = nullptr,
    .decay_bias = nullptr,
    .value_norm = nullptr,
};

}  // namespace

TensorNames names_of(const ModelFile& file, const ModelConfig& config) {
  if (file.format() == ModelFile::Format::kGguf) {
    TensorNames names = kGgufNames;
    if (is_hybrid(config.architecture) || config.architecture == "gpt-oss") names.ffn_norm = names.attention_post_norm;  // the same word for another place
    return names;
  }
  if (config.architecture == "chatglm") return kChatGlmNames;
  TensorNames names = kHubNames;
  const TextPart part = text_part(file);
  for (std::string* name : {&names.embedding, &names.output_norm, &names.layer}) name->replace(0, std::string("model.").size(), part.model);
  names.output = part.output;
  if (is_gemma3(config.architecture)) {
    names.attention_post_norm = names.ffn_norm;  // the same word for another place
    names.ffn_norm = "pre_feedforward_layernorm";
    names.ffn_post_norm = "post_feedforward_layernorm";
  }
  return names;
}

}  // namespace longview
