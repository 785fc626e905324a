// What the graph needs to know about a model, read from GGUF metadata or a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longview {

// Which dimensions of a head RoPE rotates together: (i, i + dims/2) or (2i, 2i + 1). GGUF files of `llama`
// hold Q and K rows permuted for the adjacent pairing; everything else is half-split.
enum class RopePairing { kHalfSplit, kAdjacent };

struct RopeConfig {
  RopePairing pairing = RopePairing::kHalfSplit;
  int64_t dims = 0;                         // rotated dimensions of a head, from its first; even
  std::vector<double> inverse_frequencies;  // [dims / 2], scaling (llama3, linear, YaRN) already applied
  double attention_scale = 1.0;             // YaRN's factor on cos and sin
};

struct ModelConfig {
  std::string architecture;  // "llama", "qwen2", "qwen3", "mistral": a GGUF name, also for safetensors
  std::string name;          // for people; may be empty
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocabulary = 0;
  int64_t window = 0;  // tokens the model was made for
  std::string note;    // a sentence for people where the window is less than the file says; mostly empty
  float norm_epsilon = 1e-5f;
  RopeConfig rope;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool tied_embeddings = false;

  int64_t kv_dim() const { return kv_heads * head_dim; }
  int64_t q_dim() const { return heads * head_dim; }
};

}  // namespace longview
