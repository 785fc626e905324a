// Small models made in memory, whole or wrong on purpose.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace builders {

template <typename T>
std::string bytes_of(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}

// --- GGUF
// ---------------------------------------------------------------------------------------------------------

inline std::string gguf_string(const std::string& text) {
  return bytes_of<uint64_t>(text.size()) + text;
}

struct GgufValue {
  std::string key;
  uint32_t type;
  std::string bytes;
};

struct GgufTensor {
  std::string name;
  std::vector<uint64_t> dims;  // innermost first, as the file has them
  uint32_t type = 0;
  std::string bytes;
};

struct Gguf {
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<GgufValue> values;
  std::vector<GgufTensor> tensors;

  // Replaces a value of the same key.
  Gguf& set(const std::string& key, uint32_t type, const std::string& bytes) {
    remove(key);
    values.push_back({key, type, bytes});
    return *this;
  }
  Gguf& set_u32(const std::string& key, uint32_t value) { return set(key, 4, bytes_of(value)); }
  Gguf& set_f32(const std::string& key, float value) { return set(key, 6, bytes_of(value)); }
  Gguf& set_string(const std::string& key, const std::string& value) {
    return set(key, 8, gguf_string(value));
  }
  Gguf& set_i32s(const std::string& key, const std::vector<int32_t>& items) {
    std::string all = bytes_of<uint32_t>(5) + bytes_of<uint64_t>(items.size());
    for (const int32_t item : items) all += bytes_of(item);
    return set(key, 9, all);
  }
  Gguf& set_strings(const std::string& key, const std::vector<std::string>& items) {
    std::string all = bytes_of<uint32_t>(8) + bytes_of<uint64_t>(items.size());
    for (const std::string& item : items) all += gguf_string(item);
    return set(key, 9, all);
  }
  Gguf& remove(const std::string& key) {
    std::erase_if(values, [&](const GgufValue& value) { return value.key == key; });
    return *this;
  }

  Gguf& add(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type = 0,
            uint64_t size = 0) {
    uint64_t elements = 1;
    for (const uint64_t extent : dims) elements *= extent;
    tensors.push_back({name, dims, type, std::string(size ? size : elements * 4, '\0')});
    return *this;
  }
  Gguf& drop(const std::string& name) {
    std::erase_if(tensors, [&](const GgufTensor& tensor) { return tensor.name == name; });
    return *this;
  }
  GgufTensor& tensor(const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const GgufTensor& t) { return t.name == name; });
  }

  std::string build() const {
    const auto padded = [&](std::string text) {
      text.resize((text.size() + alignment - 1) / alignment * alignment, '\0');
      return text;
    };
    std::string header =
        "GGUF" + bytes_of(version) + bytes_of<uint64_t>(tensors.size()) + bytes_of<uint64_t>(values.size());
    for (const GgufValue& value : values)
      header += gguf_string(value.key) + bytes_of(value.type) + value.bytes;
    std::string data;
    for (const GgufTensor& tensor : tensors) {
      header += gguf_string(tensor.name) + bytes_of<uint32_t>(static_cast<uint32_t>(tensor.dims.size()));
      for (const uint64_t extent : tensor.dims) header += bytes_of(extent);
      header += bytes_of(tensor.type) + bytes_of<uint64_t>(data.size());
      data = padded(data + tensor.bytes);
    }
    return padded(header) + data;
  }
};

// One layer, hidden 32, two heads of 16 over one KV head, eight tokens, all weights zero.
inline Gguf tiny_gguf(const std::string& arch = "llama") {
  Gguf g;
  g.set_string("general.architecture", arch).set_string("general.name", "Tiny");
  g.set_u32(arch + ".block_count", 1)
      .set_u32(arch + ".context_length", 256)
      .set_u32(arch + ".embedding_length", 32);
  g.set_u32(arch + ".feed_forward_length", 32).set_u32(arch + ".attention.head_count", 2);
  g.set_u32(arch + ".attention.head_count_kv", 1).set_f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
  g.set_f32(arch + ".rope.freq_base", 10000)
      .set_strings("tokenizer.ggml.tokens", {"a", "b", "c", "d", "e", "f", "g", "h"});
  g.add("token_embd.weight", {32, 8}).add("output_norm.weight", {32});
  for (const char* norm : {"attn_norm", "ffn_norm"}) g.add(std::string("blk.0.") + norm + ".weight", {32});
  g.add("blk.0.attn_q.weight", {32, 32})
      .add("blk.0.attn_k.weight", {32, 16})
      .add("blk.0.attn_v.weight", {32, 16});
  g.add("blk.0.attn_output.weight", {32, 32}).add("blk.0.ffn_gate.weight", {32, 32});
  g.add("blk.0.ffn_up.weight", {32, 32}).add("blk.0.ffn_down.weight", {32, 32});
  return g;
}

// The same with fused matrices, as Phi-3 and GLM have them; `glm4` with its norms behind attention and FFN.
inline Gguf tiny_fused_gguf(const std::string& arch) {
  Gguf g = tiny_gguf(arch);
  for (const char* part : {"attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"}) g.drop(std::string("blk.0.") + part + ".weight");
  g.add("blk.0.attn_qkv.weight", {32, 64}).add("blk.0.ffn_up.weight", {32, 64});
  if (arch == "glm4") g.add("blk.0.post_attention_norm.weight", {32}).add("blk.0.post_ffw_norm.weight", {32});
  return g;
}

// The same as qwen3moe: four experts in the place of the FFN, two for each token.
inline Gguf tiny_experts_gguf() {
  Gguf g = tiny_gguf("qwen3moe");
  for (const char* part : {"ffn_gate", "ffn_up", "ffn_down"}) g.drop(std::string("blk.0.") + part + ".weight");
  for (const char* part : {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"}) g.add(std::string("blk.0.") + part + ".weight", {32, 32, 4});
  g.add("blk.0.ffn_gate_inp.weight", {32, 4}).add("blk.0.attn_q_norm.weight", {16}).add("blk.0.attn_k_norm.weight", {16});
  g.set_u32("qwen3moe.feed_forward_length", 96).set_u32("qwen3moe.expert_feed_forward_length", 32);
  return g.set_u32("qwen3moe.expert_count", 4).set_u32("qwen3moe.expert_used_count", 2);
}

// The same as gpt-oss: four experts of 32, two for each token, and biases of everything.
inline Gguf tiny_gpt_oss_gguf() {
  Gguf g = tiny_gguf("gpt-oss");
  for (const char* part : {"ffn_gate", "ffn_up", "ffn_down", "ffn_norm"}) g.drop(std::string("blk.0.") + part + ".weight");
  g.add("blk.0.post_attention_norm.weight", {32}).add("blk.0.attn_sinks.weight", {2});
  g.add("blk.0.attn_q.bias", {32}).add("blk.0.attn_k.bias", {16}).add("blk.0.attn_v.bias", {16}).add("blk.0.attn_output.bias", {32});
  g.add("blk.0.ffn_gate_inp.weight", {32, 4}).add("blk.0.ffn_gate_inp.bias", {4});
  for (const char* part : {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"})
    g.add(std::string("blk.0.") + part + ".weight", {32, 32, 4}).add(std::string("blk.0.") + part + ".bias", {32, 4});
  g.set_u32("gpt-oss.expert_count", 4).set_u32("gpt-oss.expert_used_count", 2).set_u32("gpt-oss.expert_feed_forward_length", 32);
  g.set_u32("gpt-oss.attention.sliding_window", 64).set_u32("gpt-oss.attention.key_length", 16);
  const std::string scaling = "gpt-oss.rope.scaling.";
  return g.set_string(scaling + "type", "yarn").set_f32(scaling + "factor", 32).set_u32(scaling + "original_context_length", 64);
}

// The same as gemma3: three layers of which the last sees everything, the others 64 tokens.
inline Gguf tiny_gemma3_gguf() {
  Gguf g = tiny_gguf("gemma3");
  const std::vector<GgufTensor> layer(g.tensors.begin() + 2, g.tensors.end());
  for (const int i : {1, 2})
    for (const GgufTensor& tensor : layer) {
      g.tensors.push_back(tensor);
      g.tensors.back().name = "blk." + std::to_string(i) + tensor.name.substr(5);
    }
  for (const std::string prefix : {"blk.0.", "blk.1.", "blk.2."}) {
    for (const char* norm : {"post_attention_norm", "post_ffw_norm"}) g.add(prefix + norm + ".weight", {32});
    for (const char* norm : {"attn_q_norm", "attn_k_norm"}) g.add(prefix + norm + ".weight", {16});
  }
  g.set_u32("gemma3.block_count", 3).set_u32("gemma3.attention.sliding_window", 64).set_u32("gemma3.attention.sliding_window_pattern", 3).set_u32("gemma3.attention.key_length", 16);
  return g.set_f32("gemma3.rope.freq_base", 1e6f).set_string("gemma3.rope.scaling.type", "linear").set_f32("gemma3.rope.scaling.factor", 8);
}

// --- safetensors
// --------------------------------------------------------------------------------------------------

struct HubTensor {
  std::string name, type;
  std::vector<int64_t> shape;
  std::string bytes;
};

struct Safetensors {
  std::vector<HubTensor> tensors;

  Safetensors& add(const std::string& name, const std::vector<int64_t>& shape,
                   const std::string& type = "BF16") {
    size_t elements = 1;
    for (const int64_t extent : shape) elements *= static_cast<size_t>(extent);
    tensors.push_back({name, type, shape, std::string(elements * (type == "F32" ? 4 : 2), '\0')});
    return *this;
  }

  static std::string list(const std::vector<int64_t>& values) {
    std::string out = "[";
    for (const int64_t value : values) out.append(out.size() > 1 ? "," : "").append(std::to_string(value));
    return out += "]";
  }
  static std::string with_header(const std::string& header, const std::string& data) {
    return bytes_of<uint64_t>(header.size()) + header + data;
  }

  std::string build() const {
    std::string header = R"({"__metadata__":{"format":"pt"})", data;
    for (const HubTensor& tensor : tensors) {
      const auto begin = static_cast<int64_t>(data.size());
      data += tensor.bytes;
      header += ",\"" + tensor.name + R"(":{"dtype":")" + tensor.type + R"(","shape":)" + list(tensor.shape) +
                R"(,"data_offsets":)" + list({begin, static_cast<int64_t>(data.size())}) + "}";
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return with_header(header, data);
  }
};

// The same model as tiny_gguf, with bfloat16 weights.
inline Safetensors tiny_safetensors() {
  Safetensors s;
  s.add("model.embed_tokens.weight", {8, 32}).add("model.norm.weight", {32});
  const std::string layer = "model.layers.0.";
  s.add(layer + "input_layernorm.weight", {32}).add(layer + "post_attention_layernorm.weight", {32});
  s.add(layer + "self_attn.q_proj.weight", {32, 32}).add(layer + "self_attn.k_proj.weight", {16, 32});
  s.add(layer + "self_attn.v_proj.weight", {16, 32}).add(layer + "self_attn.o_proj.weight", {32, 32});
  s.add(layer + "mlp.gate_proj.weight", {32, 32}).add(layer + "mlp.up_proj.weight", {32, 32});
  s.add(layer + "mlp.down_proj.weight", {32, 32});
  return s;
}

// The same with fused matrices, as Phi-3 has them.
inline Safetensors tiny_fused_safetensors() {
  Safetensors s = tiny_safetensors();
  std::erase_if(s.tensors, [](const HubTensor& tensor) {
    for (const char* part : {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"})
      if (tensor.name.find(part) != std::string::npos) return true;
    return false;
  });
  s.add("model.layers.0.self_attn.qkv_proj.weight", {64, 32});
  return s.add("model.layers.0.mlp.gate_up_proj.weight", {64, 32});
}

// The same as Qwen3-MoE, as tiny_experts_gguf().
inline Safetensors tiny_experts_safetensors() {
  Safetensors s = tiny_safetensors();
  std::erase_if(s.tensors, [](const HubTensor& tensor) { return tensor.name.find("mlp.") != std::string::npos; });
  const std::string layer = "model.layers.0.";
  s.add(layer + "mlp.gate.weight", {4, 32}).add(layer + "self_attn.q_norm.weight", {16}).add(layer + "self_attn.k_norm.weight", {16});
  for (int i = 0; i < 4; ++i)
    for (const char* part : {".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"}) s.add(layer + "mlp.experts." + std::to_string(i) + part, {32, 32});
  return s;
}

// Members of a config.json, each as JSON text.
using HubConfig = std::map<std::string, std::string>;

inline HubConfig tiny_config(const std::string& type = "llama") {
  return {{"model_type", "\"" + type + "\""}, {"num_hidden_layers", "1"},      {"hidden_size", "32"},
          {"intermediate_size", "32"},        {"num_attention_heads", "2"},    {"num_key_value_heads", "1"},
          {"max_position_embeddings", "256"}, {"rms_norm_eps", "1e-05"},       {"vocab_size", "8"},
          {"hidden_act", "\"silu\""},         {"tie_word_embeddings", "true"}, {"rope_theta", "10000.0"}};
}

inline HubConfig tiny_experts_config() {
  HubConfig config = tiny_config("qwen3_moe");
  config["num_experts"] = "4", config["num_experts_per_tok"] = "2", config["moe_intermediate_size"] = "32", config["intermediate_size"] = "96", config["norm_topk_prob"] = "true";
  return config;
}

inline std::string text(const HubConfig& config) {
  std::string out;
  for (const auto& [key, value] : config) out += (out.empty() ? "" : ",\n  ") + ("\"" + key + "\": " + value);
  return "{\n  " + out + "\n}\n";
}

}  // namespace builders
