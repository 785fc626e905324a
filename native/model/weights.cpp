#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
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
  // Of experts: their matrices lie in one tensor where `experts` is null, else in one for each, `experts` + number + name. Or gate's and up's
  // of each lie together in one, and down's in another, of names that stand here whole.
  const char *router, *experts, *expert_gate, *expert_up, *expert_down, *experts_gate_up, *experts_down;
  const char *shared_gate, *shared_up, *shared_down, *shared_router;
  // Of a recurrent layer; the last four with all that follows the layer's number.
  const char *mixed, *output_gate, *alpha, *beta, *recurrent_output, *taps, *decay, *decay_bias, *value_norm;
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
    .experts_gate_up = "ffn_gate_up_exps.weight",
    .experts_down = "ffn_down_exps.weight",
    .shared_gate = "ffn_gate_shexp",
    .shared_up = "ffn_up_shexp",
    .shared_down = "ffn_down_shexp",
    .shared_router = "ffn_gate_inp_shexp",
    .mixed = "attn_qkv",
    .output_gate = "attn_gate",
    .alpha = "ssm_alpha",
    .beta = "ssm_beta",
    .recurrent_output = "ssm_out",
    .taps = "ssm_conv1d.weight",
    .decay = "ssm_a",
    .decay_bias = "ssm_dt.bias",
    .value_norm = "ssm_norm.weight",
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
    .experts_gate_up = "mlp.experts.gate_up_proj",
    .experts_down = "mlp.experts.down_proj",
    .shared_gate = "mlp.shared_expert.gate_proj",
    .shared_up = "mlp.shared_expert.up_proj",
    .shared_down = "mlp.shared_expert.down_proj",
    .shared_router = "mlp.shared_expert_gate",
    .mixed = "linear_attn.in_proj_qkv",
    .output_gate = "linear_attn.in_proj_z",
    .alpha = "linear_attn.in_proj_a",
    .beta = "linear_attn.in_proj_b",
    .recurrent_output = "linear_attn.out_proj",
    .taps = "linear_attn.conv1d.weight",
    .decay = "linear_attn.A_log",
    .decay_bias = "linear_attn.dt_bias",
    .value_norm = "linear_attn.norm.weight",
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
    .experts_gate_up = nullptr,
    .experts_down = nullptr,
    .shared_gate = nullptr,
    .shared_up = nullptr,
    .shared_down = nullptr,
    .shared_router = nullptr,
    .mixed = nullptr,
    .output_gate = nullptr,
    .alpha = nullptr,
    .beta = nullptr,
    .recurrent_output = nullptr,
    .taps = nullptr,
    .decay = nullptr,
    .decay_bias = nullptr,
    .value_norm = nullptr,
};

Names names_of(const ModelFile& file, const ModelConfig& config) {
  if (file.format() == ModelFile::Format::kGguf) {
    Names names = kGgufNames;
    if (is_hybrid(config.architecture)) names.ffn_norm = names.attention_post_norm;  // the same word for another place
    return names;
  }
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
  // `made`: where vectors live that are not taken as the file has them.
  Finder(const ModelFile& file, std::deque<std::vector<float>>& made) : file_(file), made_(made) {}

  TensorView matrix(const std::string& name, int64_t rows, int64_t cols) { return find(name, {rows, cols}); }

  // All of `count` in one tensor.
  TensorView matrices(const std::string& name, int64_t count, int64_t rows, int64_t cols) { return find(name, {count, rows, cols}); }

  // Norms and biases: plain numbers.
  TensorView vector(const std::string& name, int64_t length) {
    const TensorView view = find(name, {length});
    if (format_of(view.type).block_elements != 1) throw_corrupt(file_.path(), name + " is quantised");
    return view;
  }

  // The same of another shape.
  TensorView flat(const std::string& name, const std::vector<int64_t>& shape) {
    TensorView view = find(name, shape);
    if (format_of(view.type).block_elements != 1) throw_corrupt(file_.path(), name + " is quantised");
    view.cols *= view.rows;
    view.rows = 1;
    return view;
  }

  // A vector, or a matrix of one row.
  TensorView row(const std::string& name, int64_t length) {
    const StoredTensor* found = file_.find(name);
    return found && found->shape.size() == 1 ? vector(name, length) : flat(name, {1, length});
  }

  // A vector by what `form` gives for each of its numbers.
  template <typename Form>
  TensorView formed(const TensorView& vector, const Form& form) {
    std::vector<float>& values = made_.emplace_back(static_cast<size_t>(vector.cols));
    dequantize_row(vector.type, vector.data, values.data(), vector.cols);
    std::transform(values.begin(), values.end(), values.begin(), form);
    return {DType::kF32, 1, vector.cols, reinterpret_cast<const std::byte*>(values.data()), vector.cols * static_cast<int64_t>(sizeof(float))};
  }

  // A layer of the first `layers` may hold no more than the graph uses: a bias or an expert that is left out would spoil every
  // answer.
  void refuse_unused(const std::string& layer_prefix, int64_t layers) const {
    const auto behind = [&](const std::string& name) { return std::strtoll(name.c_str() + layer_prefix.size(), nullptr, 10) >= layers; };
    for (const auto& [name, tensor] : file_.tensors()) {
      const bool part_of_layer = name.starts_with(layer_prefix) && !behind(name) && !name.ends_with("rotary_emb.inv_freq");
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
  std::deque<std::vector<float>>& made_;
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

// Rows first .. first + rows - 1 of every one of `count` matrices [height, cols] in one tensor.
std::vector<TensorView> each_slice(const TensorView& all, int64_t count, int64_t height, int64_t first, int64_t rows, int64_t cols) {
  std::vector<TensorView> found;
  const int64_t row = row_bytes(all.type, cols);
  for (int64_t i = 0; i < count; ++i) found.push_back({all.type, rows, cols, all.data + (i * height + first) * row, rows * row});
  return found;
}

// One matrix of every expert.
std::vector<TensorView> find_experts(Finder& find, const Names& names, const std::string& prefix, const char* name, int64_t count, int64_t rows, int64_t cols) {
  if (!names.experts) return each_slice(find.matrices(prefix + name + ".weight", count, rows, cols), count, rows, 0, rows, cols);
  std::vector<TensorView> found;
  for (int64_t i = 0; i < count; ++i) {
    found.push_back(find.matrix(prefix + names.experts + std::to_string(i) + name + ".weight", rows, cols));
    LONGVIEW_CHECK(found.back().type == found.front().type, kUnsupportedArchitecture, "The experts of the model %s are stored in different types, which Longview does not run.",
                   find.path().c_str());
  }
  return found;
}

// transformers keeps norms of this architecture as what they differ from 1 by; GGUF has them whole, and all others have.
bool norms_lack_one(const ModelConfig& c) { return c.architecture.starts_with("qwen3_5_"); }

TensorView find_norm(Finder& find, const std::string& name, int64_t length, const ModelConfig& c) {
  const TensorView norm = find.vector(name, length);
  return norms_lack_one(c) ? find.formed(norm, [](float x) { return 1 + x; }) : norm;
}

void find_recurrent(Finder& find, const Names& names, const std::string& prefix, const ModelConfig& c, LayerWeights& layer) {
  const auto weight = [&](const char* name) { return prefix + name + ".weight"; };
  const RecurrentConfig& r = c.recurrent;
  layer.mixed = find.matrix(weight(names.mixed), r.channels(), c.hidden);
  layer.output_gate = find.matrix(weight(names.output_gate), r.value_dim(), c.hidden);
  layer.alpha = find.matrix(weight(names.alpha), r.value_heads, c.hidden);
  layer.beta = find.matrix(weight(names.beta), r.value_heads, c.hidden);
  layer.taps = find.flat(prefix + names.taps, r.tiled ? std::vector<int64_t>{r.channels(), r.taps} : std::vector<int64_t>{r.channels(), 1, r.taps});
  layer.decay = find.vector(prefix + names.decay, r.value_heads);
  if (!r.tiled) layer.decay = find.formed(layer.decay, [](float x) { return -std::exp(x); });  // the file has its logarithm
  layer.decay_bias = find.vector(prefix + names.decay_bias, r.value_heads);
  layer.value_norm = find.vector(prefix + names.value_norm, r.head_dim);
  layer.attention_output = find.matrix(weight(names.recurrent_output), c.hidden, r.value_dim());
}

void find_attention(Finder& find, const Names& names, const std::string& prefix, const ModelConfig& c, LayerWeights& layer) {
  const auto weight = [&](const char* name) { return prefix + name + ".weight"; };
  const auto bias = [&](const char* name) { return prefix + name + ".bias"; };
  const auto split_qkv = [&](const TensorView& all, TensorView& q, TensorView& k, TensorView& v) {
    q = slice(all, 0, c.q_dim());
    k = slice(all, c.q_dim(), c.kv_dim());
    v = slice(all, c.q_dim() + c.kv_dim(), c.kv_dim());
  };
  if (find.has(weight(names.qkv))) {
    const int64_t rows = c.q_dim() + 2 * c.kv_dim();
    split_qkv(find.matrix(weight(names.qkv), rows, c.hidden), layer.q, layer.k, layer.v);
    if (c.qkv_bias) split_qkv(find.vector(bias(names.qkv), rows), layer.q_bias, layer.k_bias, layer.v_bias);
  } else {
    layer.q = find.matrix(weight(names.q), c.q_dim() * (c.attention_gate ? 2 : 1), c.hidden);
    layer.k = find.matrix(weight(names.k), c.kv_dim(), c.hidden);
    layer.v = find.matrix(weight(names.v), c.kv_dim(), c.hidden);
    if (c.qkv_bias) {
      layer.q_bias = find.vector(bias(names.q), c.q_dim());
      layer.k_bias = find.vector(bias(names.k), c.kv_dim());
      layer.v_bias = find.vector(bias(names.v), c.kv_dim());
    }
  }
  if (c.qk_norm) {
    layer.q_norm = find_norm(find, weight(names.q_norm), c.head_dim, c);
    layer.k_norm = find_norm(find, weight(names.k_norm), c.head_dim, c);
  }
  layer.attention_output = find.matrix(weight(names.attention_output), c.hidden, c.q_dim());
}

void find_mixture(Finder& find, const Names& names, const std::string& prefix, const ModelConfig& c, LayerWeights& layer) {
  const auto weight = [&](const char* name) { return prefix + name + ".weight"; };
  const auto experts = [&](const char* name, int64_t rows, int64_t cols) { return find_experts(find, names, prefix, name, c.experts, rows, cols); };
  layer.router = find.matrix(weight(names.router), c.experts, c.hidden);
  if (const std::string both = prefix + names.experts_gate_up; find.has(both)) {
    const TensorView all = find.matrices(both, c.experts, 2 * c.ffn, c.hidden);
    layer.expert_gates = each_slice(all, c.experts, 2 * c.ffn, 0, c.ffn, c.hidden);
    layer.expert_ups = each_slice(all, c.experts, 2 * c.ffn, c.ffn, c.ffn, c.hidden);
    layer.expert_downs = each_slice(find.matrices(prefix + names.experts_down, c.experts, c.hidden, c.ffn), c.experts, c.hidden, 0, c.hidden, c.ffn);
  } else {
    layer.expert_gates = experts(names.expert_gate, c.ffn, c.hidden);
    layer.expert_ups = experts(names.expert_up, c.ffn, c.hidden);
    layer.expert_downs = experts(names.expert_down, c.hidden, c.ffn);
  }
  if (c.shared_ffn == 0) return;
  layer.shared_gate = find.matrix(weight(names.shared_gate), c.shared_ffn, c.hidden);
  layer.shared_up = find.matrix(weight(names.shared_up), c.shared_ffn, c.hidden);
  layer.shared_down = find.matrix(weight(names.shared_down), c.hidden, c.shared_ffn);
  layer.shared_router = find.row(weight(names.shared_router), c.hidden);
}

LayerWeights find_layer(Finder& find, const Names& names, int64_t index, const ModelConfig& c) {
  const std::string prefix = names.layer + std::to_string(index) + ".";
  const auto weight = [&](const char* name) { return prefix + name + ".weight"; };
  LayerWeights layer;
  layer.attention_norm = find_norm(find, weight(names.attention_norm), c.hidden, c);
  if (c.attends(index)) find_attention(find, names, prefix, c, layer);
  else find_recurrent(find, names, prefix, c, layer);
  layer.ffn_norm = find_norm(find, weight(names.ffn_norm), c.hidden, c);
  if (c.experts > 0) {
    find_mixture(find, names, prefix, c, layer);
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
  w.output_norm = find_norm(find, names.output_norm, c.hidden, c);
  w.output = c.tied_embeddings ? w.embedding : find.matrix(names.output, c.vocabulary, c.hidden);
  for (int64_t i = 0; i < c.layers; ++i)
    w.layers.push_back(find_layer(find, names, i, c));
  find.refuse_unused(names.layer, is_hybrid(c.architecture) ? c.layers : std::numeric_limits<int64_t>::max());
  return w;
}

}  // namespace

Model open_model(const std::string& path) try {
  Model model;
  model.file = ModelFile::open(path);
  model.config = read_config(*model.file);
  Finder find(*model.file, model.made);
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
