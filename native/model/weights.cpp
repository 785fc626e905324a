#include "model/weights.h"

#include "base/error.h"
#include "model/model_file.h"
#include "model/quant_formats.h"
#include "model/read_config.h"

namespace longview {
namespace {

// Finds each matrix of the graph under its name in either format and checks its shape.
class Finder {
 public:
  explicit Finder(const ModelFile& file) : file_(file) {}

  TensorView matrix(const std::string& name, int64_t rows, int64_t cols) const {
    const StoredTensor* found = file_.find(name);
    LONGVIEW_CHECK(found, kFileCorrupt, "The model %s is incomplete: %s is missing.", file_.path().c_str(), name.c_str());
    const TensorView& view = found->view;
    LONGVIEW_CHECK(view.rows == rows && view.cols == cols, kFileCorrupt, "The model %s is damaged: %s is %lld x %lld, not %lld x %lld.",
                   file_.path().c_str(), name.c_str(), static_cast<long long>(view.rows), static_cast<long long>(view.cols),
                   static_cast<long long>(rows), static_cast<long long>(cols));
    return view;
  }

  // Norms and biases are read as plain numbers.
  TensorView vector(const std::string& name, int64_t length) const {
    const TensorView view = matrix(name, 1, length);
    LONGVIEW_CHECK(format_of(view.type).block_elements == 1, kFileCorrupt, "The model %s is damaged: %s is quantised.", file_.path().c_str(), name.c_str());
    return view;
  }

 private:
  const ModelFile& file_;
};

struct Names {
  const char *layer, *attention_norm, *q, *k, *v, *q_norm, *k_norm, *output, *ffn_norm, *gate, *up, *down;
};
constexpr Names kGgufNames{"blk.",          "attn_norm", "attn_q",   "attn_k",   "attn_v", "attn_q_norm",
                           "attn_k_norm", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"};
constexpr Names kHubNames{"model.layers.",     "input_layernorm",  "self_attn.q_proj",         "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_norm",
                          "self_attn.k_norm", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

Weights find_weights(const ModelFile& file, const ModelConfig& c) {
  const bool gguf = file.format() == ModelFile::Format::kGguf;
  const Names& names = gguf ? kGgufNames : kHubNames;
  const Finder find(file);
  Weights w;
  w.embedding = find.matrix(gguf ? "token_embd.weight" : "model.embed_tokens.weight", c.vocabulary, c.hidden);
  w.output_norm = find.vector(gguf ? "output_norm.weight" : "model.norm.weight", c.hidden);
  w.output = c.tied_embeddings ? w.embedding : find.matrix(gguf ? "output.weight" : "lm_head.weight", c.vocabulary, c.hidden);
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string prefix = names.layer + std::to_string(i) + ".";
    const auto weight = [&](const char* name) { return prefix + name + ".weight"; };
    const auto bias = [&](const char* name) { return prefix + name + ".bias"; };
    LayerWeights layer;
    layer.attention_norm = find.vector(weight(names.attention_norm), c.hidden);
    layer.q = find.matrix(weight(names.q), c.q_dim(), c.hidden);
    layer.k = find.matrix(weight(names.k), c.kv_dim(), c.hidden);
    layer.v = find.matrix(weight(names.v), c.kv_dim(), c.hidden);
    if (c.qkv_bias) {
      layer.q_bias = find.vector(bias(names.q), c.q_dim());
      layer.k_bias = find.vector(bias(names.k), c.kv_dim());
      layer.v_bias = find.vector(bias(names.v), c.kv_dim());
    }
    if (c.qk_norm) {
      layer.q_norm = find.vector(weight(names.q_norm), c.head_dim);
      layer.k_norm = find.vector(weight(names.k_norm), c.head_dim);
    }
    layer.attention_output = find.matrix(weight(names.output), c.hidden, c.q_dim());
    layer.ffn_norm = find.vector(weight(names.ffn_norm), c.hidden);
    layer.gate = find.matrix(weight(names.gate), c.ffn, c.hidden);
    layer.up = find.matrix(weight(names.up), c.ffn, c.hidden);
    layer.down = find.matrix(weight(names.down), c.hidden, c.ffn);
    w.layers.push_back(layer);
  }
  return w;
}

// FNV-1a over the sizes, the headers and samples of the data: reading all of a large file would take longer than loading it.
class Fingerprint {
 public:
  void add(const std::byte* data, int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
      const auto byte = static_cast<uint64_t>(data[i]);
      a_ = (a_ ^ byte) * 0x100000001b3ull;
      b_ = (b_ ^ (byte + 0x9eull)) * 0x9e3779b97f4a7c15ull;
      b_ ^= b_ >> 29;
    }
  }
  std::string hex() const { return format("%016llx%016llx", static_cast<unsigned long long>(a_), static_cast<unsigned long long>(b_)); }

 private:
  uint64_t a_ = 0xcbf29ce484222325ull, b_ = 0x2545f4914f6cdd1dull;
};

std::string fingerprint(const ModelFile& file) {
  constexpr int64_t kHead = 1 << 20, kSample = 4096, kSamples = 256;
  Fingerprint print;
  for (const auto& mapped : file.files()) {
    const int64_t size = mapped->size();
    print.add(reinterpret_cast<const std::byte*>(&size), sizeof(size));
    print.add(mapped->data(), std::min(size, kHead));
    for (int64_t i = 0; i < kSamples && size > kHead; ++i) {
      const int64_t at = kHead + (size - kHead) / kSamples * i;
      print.add(mapped->data() + at, std::min(kSample, size - at));
    }
  }
  return print.hex();
}

}  // namespace

Model open_model(const std::string& path) {
  Model model;
  model.file = ModelFile::open(path);
  model.config = read_config(*model.file);
  model.weights = find_weights(*model.file, model.config);
  model.fingerprint = fingerprint(*model.file);
  for (const auto& [name, tensor] : model.file->tensors()) {
    model.parameters += tensor.view.rows * tensor.view.cols;
    model.weight_bytes += tensor.view.bytes;
  }
  return model;
}

}  // namespace longview
