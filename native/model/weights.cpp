#include "model/weights.h"

#include <new>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "model/fingerprint.h"
#include "model/model_file.h"
#include "model/quant_formats.h"
#include "model/read_config.h"

namespace longview {
namespace {

// Names of the graph's matrices in a format. Those of a layer stand between `layer` + its number and
// ".weight" or ".bias".
struct Names {
  std::string embedding, output_norm, output, layer;
  const char *attention_norm, *q, *k, *v, *qkv, *q_norm, *k_norm, *attention_output, *attention_post_norm;
  const char *ffn_norm, *gate, *up, *gate_up, *down, *ffn_post_norm;
  // Of experts: their matrices lie in one tensor where `experts` is null, else in one for each, `experts` + number + name.
  const char *router, *experts, *expert_gate, *expert_up, *expert_down;
};

const Names kGgufNames{
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
};

// transformers' names, which nearly all models have.
const Names kHubNames{
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
};

// GLM-4's own code (model_type chatglm); nothing of it lies in separate matrices.
const Names kChatGlmNames{
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
};

Names names_of(const ModelFile& file, const ModelConfig& config) {
  if (file.format() == ModelFile::Format::kGguf) return kGgufNames;
  if (config.architecture == "chatglm") return kChatGlmNames;
  Names names = kHubNames;
  const TextPart part = text_part(file);
  for (std::string* name : {&names.embedding, &names.output_norm, &names.layer}) name->replace(0, std::string("model.").size(), part.model);
  names.output = part.output;
  return names;
}

// Finds the matrices of the graph by name, checks them, and remembers which of the file's tensors were asked
// for.
class Finder {
 public:
  explicit Finder(const ModelFile& file) : file_(file) {}

  TensorView matrix(const std::string& name, int64_t rows, int64_t cols) { return find(name, {rows, cols}); }

  // All of `count` in one tensor.
  TensorView matrices(const std::string& name, int64_t count, int64_t rows, int64_t cols) { return find(name, {count, rows, cols}); }

  // Norms and biases: plain numbers.
  TensorView vector(const std::string& name, int64_t length) {
    const TensorView view = find(name, {length});
    if (format_of(view.type).block_elements != 1) throw_corrupt(file_.path(), name + " is quantised");
    return view;
  }

  // A layer may hold no more than the graph uses: a bias or an expert that is left out would spoil every
  // answer.
  void refuse_unused(const std::string& layer_prefix) const {
    for (const auto& [name, tensor] : file_.tensors()) {
      const bool part_of_layer = name.starts_with(layer_prefix) && !name.ends_with("rotary_emb.inv_freq");
      LONGVIEW_CHECK(!part_of_layer || used_.contains(name), kUnsupportedArchitecture,
                     "The model %s has a tensor %s, which this architecture does not have in Longview.",
                     file_.path().c_str(), printable(name).c_str());
    }
  }

  const std::string& path() const { return file_.path(); }
  bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  int64_t parameters() const { return parameters_; }
  int64_t bytes() const { return bytes_; }

 private:
  TensorView find(const std::string& name, const std::vector<int64_t>& shape) {
    const StoredTensor* found = file_.find(name);
    LONGVIEW_CHECK(found, kFileCorrupt, "The model %s is incomplete: the tensor %s is missing.",
                   file_.path().c_str(), name.c_str());
    if (found->shape != shape)
      throw_corrupt(file_.path(),
                    name + " has the shape " + text(found->shape) + " instead of " + text(shape));
    LONGVIEW_CHECK(!found->view.empty(), kUnsupportedQuantization,
                   "The model %s stores %s as %s, which Longview cannot read. It reads %s: choose a file in "
                   "one of these.",
                   file_.path().c_str(), name.c_str(), printable(found->stored_type).c_str(),
                   readable_types().c_str());
    if (used_.insert(name).second) {
      parameters_ += found->view.rows * found->view.cols;
      bytes_ += found->view.bytes;
    }
    return found->view;
  }

  static std::string text(const std::vector<int64_t>& shape) {
    std::string out;
    for (const int64_t extent : shape) out += (out.empty() ? "" : " x ") + std::to_string(extent);
    return out.empty() ? "of a single number" : out;
  }

  const ModelFile& file_;
  std::set<std::string, std::less<>> used_;
  int64_t parameters_ = 0, bytes_ = 0;
};

// Rows first .. first + count - 1; of a vector, elements.
TensorView slice(const TensorView& whole, int64_t first, int64_t count) {
  TensorView part = whole;
  const bool vector = whole.rows == 1;
  const int64_t stride = row_bytes(whole.type, vector ? 1 : whole.cols);
  (vector ? part.cols : part.rows) = count;
  part.data = whole.data + first * stride;
  part.bytes = count * stride;
  return part;
}

// One matrix of every expert.
std::vector<TensorView> find_experts(Finder& find, const Names& names, const std::string& prefix, const char* name, int64_t count, int64_t rows, int64_t cols) {
  std::vector<TensorView> found;
  if (!names.experts) {
    const TensorView all = find.matrices(prefix + name + ".weight", count, rows, cols);
    const int64_t bytes = rows * row_bytes(all.type, cols);
    for (int64_t i = 0; i < count; ++i) found.push_back({all.type, rows, cols, all.data + i * bytes, bytes});
    return found;
  }
  for (int64_t i = 0; i < count; ++i) {
    found.push_back(find.matrix(prefix + names.experts + std::to_string(i) + name + ".weight", rows, cols));
    LONGVIEW_CHECK(found.back().type == found.front().type, kUnsupportedArchitecture, "The experts of the model %s are stored in different types, which Longview does not run.",
                   find.path().c_str());
  }
  return found;
}

LayerWeights find_layer(Finder& find, const Names& names, const std::string& prefix, const ModelConfig& c) {
  const auto weight = [&](const char* name) { return prefix + name + ".weight"; };
  const auto bias = [&](const char* name) { return prefix + name + ".bias"; };
  const auto split_qkv = [&](const TensorView& all, TensorView& q, TensorView& k, TensorView& v) {
    q = slice(all, 0, c.q_dim());
    k = slice(all, c.q_dim(), c.kv_dim());
    v = slice(all, c.q_dim() + c.kv_dim(), c.kv_dim());
  };
  LayerWeights layer;
  layer.attention_norm = find.vector(weight(names.attention_norm), c.hidden);
  if (find.has(weight(names.qkv))) {
    const int64_t rows = c.q_dim() + 2 * c.kv_dim();
    split_qkv(find.matrix(weight(names.qkv), rows, c.hidden), layer.q, layer.k, layer.v);
    if (c.qkv_bias) split_qkv(find.vector(bias(names.qkv), rows), layer.q_bias, layer.k_bias, layer.v_bias);
  } else {
    layer.q = find.matrix(weight(names.q), c.q_dim(), c.hidden);
    layer.k = find.matrix(weight(names.k), c.kv_dim(), c.hidden);
    layer.v = find.matrix(weight(names.v), c.kv_dim(), c.hidden);
    if (c.qkv_bias) {
      layer.q_bias = find.vector(bias(names.q), c.q_dim());
      layer.k_bias = find.vector(bias(names.k), c.kv_dim());
      layer.v_bias = find.vector(bias(names.v), c.kv_dim());
    }
  }
  if (c.qk_norm) {
    layer.q_norm = find.vector(weight(names.q_norm), c.head_dim);
    layer.k_norm = find.vector(weight(names.k_norm), c.head_dim);
  }
  layer.attention_output = find.matrix(weight(names.attention_output), c.hidden, c.q_dim());
  layer.ffn_norm = find.vector(weight(names.ffn_norm), c.hidden);
  if (c.experts > 0) {
    const auto experts = [&](const char* name, int64_t rows, int64_t cols) { return find_experts(find, names, prefix, name, c.experts, rows, cols); };
    layer.router = find.matrix(weight(names.router), c.experts, c.hidden);
    layer.expert_gates = experts(names.expert_gate, c.ffn, c.hidden);
    layer.expert_ups = experts(names.expert_up, c.ffn, c.hidden);
    layer.expert_downs = experts(names.expert_down, c.hidden, c.ffn);
    return layer;
  }
  if (c.fused_gate_up) {
    const TensorView both = find.matrix(weight(names.gate_up), 2 * c.ffn, c.hidden);
    layer.gate = slice(both, 0, c.ffn);
    layer.up = slice(both, c.ffn, c.ffn);
  } else {
    layer.gate = find.matrix(weight(names.gate), c.ffn, c.hidden);
    layer.up = find.matrix(weight(names.up), c.ffn, c.hidden);
  }
  layer.down = find.matrix(weight(names.down), c.hidden, c.ffn);
  if (c.post_norms) {
    layer.attention_post_norm = find.vector(weight(names.attention_post_norm), c.hidden);
    layer.ffn_post_norm = find.vector(weight(names.ffn_post_norm), c.hidden);
  }
  return layer;
}

Weights find_weights(Finder& find, const Names& names, const ModelConfig& c) {
  Weights w;
  w.embedding = find.matrix(names.embedding, c.vocabulary, c.hidden);
  w.output_norm = find.vector(names.output_norm, c.hidden);
  w.output = c.tied_embeddings ? w.embedding : find.matrix(names.output, c.vocabulary, c.hidden);
  for (int64_t i = 0; i < c.layers; ++i)
    w.layers.push_back(find_layer(find, names, names.layer + std::to_string(i) + ".", c));
  find.refuse_unused(names.layer);
  return w;
}

}  // namespace

Model open_model(const std::string& path) try {
  Model model;
  model.file = ModelFile::open(path);
  model.config = read_config(*model.file);
  Finder find(*model.file);
  model.weights = find_weights(find, names_of(*model.file, model.config), model.config);
  model.parameters = find.parameters();
  model.weight_bytes = find.bytes();
  model.fingerprint = fingerprint(*model.file);
  return model;
} catch (const std::bad_alloc&) {
  LONGVIEW_THROW(kOutOfMemory, "There is not enough memory to read the header of the model %s.",
                 path.c_str());
}

}  // namespace longview
