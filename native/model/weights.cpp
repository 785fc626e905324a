#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "model/fingerprint.h"
#include "model/model_file.h"
#include "model/quant_formats.h"
#include "model/read_config.h"
#include "model/tensor_names.h"

namespace longview {
namespace {

// Finds the matrices of the graph by name, checks them, and remembers which of the file's tensors were asked
// for.
class Finder {
 public:
  // `made`: where what is not taken as the file has it lives.
  Finder(const ModelFile& file, std::deque<std::vector<std::byte>>& made) : file_(file), made_(made) {}

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
    const int64_t bytes = vector.cols * static_cast<int64_t>(sizeof(float));
    auto* values = reinterpret_cast<float*>(made_.emplace_back(static_cast<size_t>(bytes)).data());
    dequantize_row(vector.type, vector.data, values, vector.cols);
    std::transform(values, values + vector.cols, values, form);
    return {DType::kF32, 1, vector.cols, made_.back().data(), bytes};
  }

  // Of every `group` rows of a matrix `count` from `first` on.
  TensorView from_groups(const TensorView& matrix, int64_t group, int64_t first, int64_t count) {
    const int64_t row = row_bytes(matrix.type, matrix.cols), groups = matrix.rows / group;
    std::vector<std::byte>& rows = made_.emplace_back(static_cast<size_t>(groups * count * row));
    for (int64_t i = 0; i < groups; ++i) std::memcpy(rows.data() + i * count * row, matrix.data + (i * group + first) * row, static_cast<size_t>(count * row));
    return {matrix.type, groups * count, matrix.cols, rows.data(), groups * count * row};
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
  std::deque<std::vector<std::byte>>& made_;
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
std::vector<TensorView> find_experts(Finder& find, const TensorNames& names, const std::string& prefix, const char* name, int64_t count, int64_t rows, int64_t cols) {
  if (!names.experts) return each_slice(find.matrices(prefix + name + ".weight", count, rows, cols), count, rows, 0, rows, cols);
  std::vector<TensorView> found;
  for (int64_t i = 0; i < count; ++i) {
    found.push_back(find.matrix(prefix + names.experts + std::to_string(i) + name + ".weight", rows, cols));
    LONGVIEW_CHECK(found.back().type == found.front().type, kUnsupportedArchitecture, "The experts of the model %s are stored in different types, which Longview does not run.",
                   find.path().c_str());
  }
  return found;
}

// transformers keeps norms of these architectures as what they differ from 1 by, and decays as logarithms; GGUF has them whole, and all others have.
bool as_trained(const ModelConfig& c) { return c.architecture.starts_with("qwen3_5_") || c.architecture == "gemma3_text"; }

TensorView find_norm(Finder& find, const std::string& name, int64_t length, const ModelConfig& c) {
  const TensorView norm = find.vector(name, length);
  return as_trained(c) ? find.formed(norm, [](float x) { return 1 + x; }) : norm;
}

void find_recurrent(Finder& find, const TensorNames& names, const std::string& prefix, const ModelConfig& c, LayerWeights& layer) {
  const auto weight = [&](const char* name) { return prefix + name + ".weight"; };
  const RecurrentConfig& r = c.recurrent;
  LONGVIEW_CHECK(!find.has(prefix + "ssm_in.weight"), kUnsupportedArchitecture, "The model %s was made by an older converter, which left the recurrent layers' inputs in one matrix (ssm_in): choose a newer file of it.",
                 find.path().c_str());
  layer.mixed = find.matrix(weight(names.mixed), r.channels(), c.hidden);
  layer.output_gate = find.matrix(weight(names.output_gate), r.value_dim(), c.hidden);
  if (c.architecture == "qwen3next") {  // of each key head's value heads, beta's rows and then alpha's
    const TensorView both = find.matrix(weight(names.beta_alpha), 2 * r.value_heads, c.hidden);
    const int64_t heads = r.value_heads / r.key_heads;
    layer.beta = find.from_groups(both, 2 * heads, 0, heads);
    layer.alpha = find.from_groups(both, 2 * heads, heads, heads);
  } else {
    layer.alpha = find.matrix(weight(names.alpha), r.value_heads, c.hidden);
    layer.beta = find.matrix(weight(names.beta), r.value_heads, c.hidden);
  }
  layer.taps = find.flat(prefix + names.taps, as_trained(c) ? std::vector<int64_t>{r.channels(), 1, r.taps} : std::vector<int64_t>{r.channels(), r.taps});
  layer.decay = find.vector(prefix + names.decay, r.value_heads);
  if (as_trained(c)) layer.decay = find.formed(layer.decay, [](float x) { return -std::exp(x); });
  layer.decay_bias = find.vector(prefix + names.decay_bias, r.value_heads);
  layer.value_norm = find.vector(prefix + names.value_norm, r.head_dim);
  layer.attention_output = find.matrix(weight(names.recurrent_output), c.hidden, r.value_dim());
}

void find_attention(Finder& find, const TensorNames& names, const std::string& prefix, const ModelConfig& c, LayerWeights& layer) {
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
    if (c.query_scale != 1) layer.q_norm = find.formed(layer.q_norm, [&](float x) { return static_cast<float>(x * c.query_scale); });
  }
  layer.attention_output = find.matrix(weight(names.attention_output), c.hidden, c.q_dim());
  if (c.output_bias) layer.output_bias = find.vector(bias(names.attention_output), c.hidden);
  if (c.attention_sinks) layer.sinks = find.vector(prefix + names.sinks, c.heads);
}

void find_mixture(Finder& find, const TensorNames& names, const std::string& prefix, const ModelConfig& c, LayerWeights& layer) {
  const auto weight = [&](const char* name) { return prefix + name + ".weight"; };
  const auto bias = [&](const char* name) { return prefix + name + ".bias"; };
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
  if (c.expert_biases) {
    layer.router_bias = find.vector(bias(names.router), c.experts);
    layer.gate_biases = find.flat(bias(names.expert_gate), {c.experts, c.ffn});
    layer.up_biases = find.flat(bias(names.expert_up), {c.experts, c.ffn});
    layer.down_biases = find.flat(bias(names.expert_down), {c.experts, c.hidden});
  }
  if (c.shared_ffn == 0) return;
  layer.shared_gate = find.matrix(weight(names.shared_gate), c.shared_ffn, c.hidden);
  layer.shared_up = find.matrix(weight(names.shared_up), c.shared_ffn, c.hidden);
  layer.shared_down = find.matrix(weight(names.shared_down), c.hidden, c.shared_ffn);
  layer.shared_router = find.row(weight(names.shared_router), c.hidden);
}

LayerWeights find_layer(Finder& find, const TensorNames& names, int64_t index, const ModelConfig& c) {
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
    layer.attention_post_norm = find_norm(find, weight(names.attention_post_norm), c.hidden, c);
    layer.ffn_post_norm = find_norm(find, weight(names.ffn_post_norm), c.hidden, c);
  }
  return layer;
}

Weights find_weights(Finder& find, const TensorNames& names, const ModelConfig& c) {
  Weights w;
  w.embedding = find.matrix(names.embedding, c.vocabulary, c.hidden);
  w.output_norm = find_norm(find, names.output_norm, c.hidden, c);
  if (c.logit_scale != 1) w.output_norm = find.formed(w.output_norm, [&](float x) { return static_cast<float>(x * c.logit_scale); });
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
