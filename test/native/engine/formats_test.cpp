// The same weights under other files' names: GLM and Phi-3 as their other formats have them give the same logits, and
// LongRoPE's two sets of frequencies go by the length of the whole input.
#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "model/builders.h"
#include "model/files.h"

using namespace longview;
using builders::Gguf;
using builders::Safetensors;
using Tensors = std::map<std::string, files::Reference>;

namespace {

const files::Scratch scratch;

EngineOptions exact() {
  EngineOptions options;
  options.cpu.precision = Precision::kFloat32;
  options.kv_format = KvFormat::kFloat32;
  return options;
}

std::vector<int32_t> tokens_of(const std::string& golden) {
  return files::references(files::shared("golden/tiny/" + golden + "/reference.safetensors")).at("tokens").values<int32_t>();
}

std::vector<float> logits_of(Model model, const std::vector<int32_t>& tokens) {
  Engine engine(std::move(model), exact());
  return engine.all_logits(*engine.create_context(), tokens);
}

float difference(std::span<const float> a, std::span<const float> b) {
  float worst = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::fabs(a[i] - b[i]));
    largest = std::max(largest, std::fabs(a[i]));
  }
  return worst / largest;
}

files::Reference stacked(const Tensors& tensors, const std::vector<std::string>& names) {
  files::Reference all = tensors.at(names[0]);
  all.shape[0] = 0;
  all.bytes.clear();
  for (const std::string& name : names) {
    all.shape[0] += tensors.at(name).shape[0];
    all.bytes += tensors.at(name).bytes;
  }
  return all;
}

// As a converter writes it: matrices as they are (bfloat16), vectors in float32.
void add(Gguf& gguf, const std::string& name, const files::Reference& tensor) {
  std::string bytes = tensor.bytes;
  if (tensor.shape.size() == 1) {
    bytes.clear();
    for (const uint16_t value : tensor.values<uint16_t>()) bytes += builders::bytes_of(bf16_to_float(value));
  }
  gguf.tensors.push_back({name, {tensor.shape.rbegin(), tensor.shape.rend()}, tensor.shape.size() == 1 ? 0u : 30u, bytes});
}

void add(Safetensors& file, const std::string& name, const files::Reference& tensor) {
  file.tensors.push_back({name, tensor.type, tensor.shape, tensor.bytes});
}

// Q, K and V become one, under the names of `layer` (its prefix taken away already).
template <typename File>
void add_glm(File& file, const Tensors& from, const std::string& hub, const std::string& prefix, const std::map<std::string, std::string>& names) {
  for (const auto& [suffix, to] : names)
    for (const char* kind : {".weight", ".bias"}) {
      const std::vector<std::string> parts = suffix == "qkv" ? std::vector<std::string>{hub + "self_attn.q_proj" + kind, hub + "self_attn.k_proj" + kind, hub + "self_attn.v_proj" + kind}
                                                             : std::vector<std::string>{hub + suffix + kind};
      if (from.contains(parts[0])) add(file, prefix + to + kind, stacked(from, parts));
    }
}

Gguf header(const std::string& arch, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t d, int64_t dims, float epsilon, float theta) {
  Gguf gguf;
  const auto number = [&](const char* key, int64_t value) { gguf.set_u32(arch + "." + key, static_cast<uint32_t>(value)); };
  gguf.set_string("general.architecture", arch);
  number("block_count", 2), number("context_length", 4096), number("embedding_length", hidden), number("feed_forward_length", 256);
  number("attention.head_count", heads), number("attention.head_count_kv", kv_heads), number("attention.key_length", d);
  number("attention.value_length", d), number("rope.dimension_count", dims);
  gguf.set_f32(arch + ".attention.layer_norm_rms_epsilon", epsilon).set_f32(arch + ".rope.freq_base", theta);
  return gguf;
}

Model phi3() {
  return open_model(files::shared("golden/tiny/phi3-longrope"));
}

}  // namespace

TEST("GLM by its own code's names and as GGUF gives the logits of transformers' file") {
  const std::string path = files::shared("golden/tiny/glm");
  const std::vector<int32_t> tokens = tokens_of("glm");
  const Tensors from = files::references(path + "/model.safetensors");
  const std::vector<float> wanted = logits_of(open_model(path), tokens);

  Safetensors own;
  add(own, "transformer.embedding.word_embeddings.weight", from.at("model.embed_tokens.weight"));
  add(own, "transformer.encoder.final_layernorm.weight", from.at("model.norm.weight"));
  add(own, "transformer.output_layer.weight", from.at("lm_head.weight"));
  own.add("transformer.rotary_pos_emb.inv_freq", {16});
  Gguf gguf = header("chatglm", 128, 4, 2, 64, 32, 1.5625e-7f, 1e8f);
  add(gguf, "token_embd.weight", from.at("model.embed_tokens.weight"));
  add(gguf, "output_norm.weight", from.at("model.norm.weight"));
  add(gguf, "output.weight", from.at("lm_head.weight"));
  for (int i = 0; i < 2; ++i) {
    const std::string n = std::to_string(i) + ".", hub = "model.layers." + n;
    add_glm(own, from, hub, "transformer.encoder.layers." + n,
            {{"input_layernorm", "input_layernorm"}, {"qkv", "self_attention.query_key_value"}, {"self_attn.o_proj", "self_attention.dense"}, {"post_attention_layernorm", "post_attention_layernorm"},
             {"mlp.gate_up_proj", "mlp.dense_h_to_4h"}, {"mlp.down_proj", "mlp.dense_4h_to_h"}});
    add_glm(gguf, from, hub, "blk." + n,
            {{"input_layernorm", "attn_norm"}, {"qkv", "attn_qkv"}, {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"}, {"mlp.gate_up_proj", "ffn_up"}, {"mlp.down_proj", "ffn_down"}});
  }
  scratch.put("config.json", R"({"model_type": "chatglm", "num_layers": 2, "hidden_size": 128, "ffn_hidden_size": 256, "num_attention_heads": 4,
    "multi_query_attention": true, "multi_query_group_num": 2, "kv_channels": 64, "seq_length": 4096, "layernorm_epsilon": 1.5625e-07,
    "padded_vocab_size": 320, "add_qkv_bias": true, "add_bias_linear": false, "rmsnorm": true, "post_layer_norm": true, "rope_ratio": 10000})");
  CHECK(logits_of(open_model(scratch.put("model.safetensors", own.build())), tokens) == wanted);
  CHECK(difference(wanted, logits_of(open_model(scratch.put("chatglm.gguf", gguf.build())), tokens)) <= 1e-6f);  // epsilon and theta are float32 there
}

TEST("Phi-3 as GGUF gives the logits of transformers' file") {
  const std::vector<int32_t> tokens = tokens_of("phi3-longrope");
  const Tensors from = files::references(files::shared("golden/tiny/phi3-longrope/model.safetensors"));
  Gguf gguf = header("phi3", 384, 4, 4, 96, 96, 1e-5f, 10000.0f);
  gguf.set_u32("phi3.rope.scaling.original_context_length", 256);
  gguf.set_f32("phi3.rope.scaling.attn_factor", static_cast<float>(std::sqrt(1 + std::log(16.0) / std::log(256.0))));
  for (const bool far : {false, true}) {
    const std::string name = far ? "rope_factors_long.weight" : "rope_factors_short.weight";
    gguf.add(name, {48});
    for (size_t i = 0; i < 48; ++i) {
      const float factor = 1.0f + (far ? 0.5f : 0.01f) * static_cast<float>(i);
      std::memcpy(gguf.tensor(name).bytes.data() + 4 * i, &factor, 4);
    }
  }
  add(gguf, "token_embd.weight", from.at("model.embed_tokens.weight"));
  add(gguf, "output_norm.weight", from.at("model.norm.weight"));
  add(gguf, "output.weight", from.at("lm_head.weight"));
  for (int i = 0; i < 2; ++i)
    for (const auto& [suffix, to] : std::map<std::string, std::string>{{"input_layernorm", "attn_norm"}, {"self_attn.qkv_proj", "attn_qkv"}, {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
                                                                       {"mlp.gate_up_proj", "ffn_up"}, {"mlp.down_proj", "ffn_down"}})
      add(gguf, "blk." + std::to_string(i) + "." + to + ".weight", from.at("model.layers." + std::to_string(i) + "." + suffix + ".weight"));
  const std::string path = scratch.put("phi3.gguf", gguf.build());
  CHECK(difference(logits_of(phi3(), tokens), logits_of(open_model(path), tokens)) <= 1e-5f);
  // Without the factor it follows from the two windows.
  gguf.remove("phi3.rope.scaling.attn_factor");
  CHECK_NEAR(open_model(scratch.put("phi3.gguf", gguf.build())).config.rope.attention_scale, phi3().config.rope.attention_scale, 1e-12);
}

TEST("LongRoPE goes by the length of the whole input, back and forth") {
  const std::vector<int32_t> tokens = tokens_of("phi3-longrope");
  const std::span<const int32_t> all(tokens);
  Engine engine(phi3(), exact());
  const auto at_once = [&](size_t count) {
    const auto context = engine.create_context();
    engine.prefill(*context, all.first(count), CancelToken());
    return std::vector<float>(context->logits().begin(), context->logits().end());
  };
  const auto context = engine.create_context();
  engine.prefill(*context, all.first(250), CancelToken());
  const auto fork = context->fork();
  for (size_t i = 250; i < 260; ++i) {
    engine.decode(*context, tokens[i], CancelToken());
    const std::vector<float> wanted = at_once(i + 1);
    CHECK(difference(wanted, context->logits()) <= 1e-5f);
  }
  // The fork kept the short set; with the long one its logits are others.
  engine.decode(*fork, tokens[250], CancelToken());
  CHECK(difference(at_once(251), fork->logits()) <= 1e-5f);
  const std::vector<float> wrong = [&] {
    Model model = phi3();
    model.config.rope.inverse_frequencies = model.config.rope.long_inverse_frequencies;
    Engine other(std::move(model), exact());
    const auto long_context = other.create_context();
    other.prefill(*long_context, all.first(251), CancelToken());
    return std::vector<float>(long_context->logits().begin(), long_context->logits().end());
  }();
  CHECK(difference(wrong, fork->logits()) > 1e-2f);

  context->truncate(200);
  engine.prefill(*context, all.subspan(200, 20), CancelToken());
  CHECK(difference(at_once(220), context->logits()) <= 1e-5f);
  CancelToken cancel;
  cancel.cancel();
  CHECK_THROWS(engine.prefill(*context, all.subspan(220), cancel), kCancelled);
  CHECK(context->length() == 220);
  engine.prefill(*context, all.subspan(220), CancelToken());
  CHECK(difference(at_once(300), context->logits()) <= 1e-5f);
  // What was computed anew has given its pages back: beside full ones, which the index keeps, two ragged tails are left.
  CHECK(engine.pool().used() - engine.index().size() == 2);
}

TEST("LongRoPE's choice holds for scores, the first of them too") {
  const std::vector<int32_t> tokens = tokens_of("phi3-longrope");
  Engine engine(phi3(), exact());
  const auto context = engine.create_context(), whole = engine.create_context();
  engine.prefill(*context, std::span(tokens).first(250), CancelToken());
  const auto scored = std::span(tokens).subspan(250, 50);
  std::vector<TokenScore> scores(scored.size());
  CHECK(engine.score_chunk(*context, scored, scores, CancelToken()) == 50);
  const std::vector<float> logits = engine.all_logits(*whole, std::span(tokens).first(300));
  const auto vocabulary = static_cast<size_t>(engine.model().config.vocabulary);
  for (size_t i = 0; i < scores.size(); ++i) CHECK_NEAR(scores[i].nll, score_token(std::span(logits).subspan((249 + i) * vocabulary, vocabulary), scored[i]).nll, 1e-4);
}

TEST("LongRoPE takes no pages of the other set, from memory or from disk") {
  const std::string folder = files::fixture("phi3");
  const std::vector<int32_t> tokens = files::references(folder + "/reference.safetensors").at("tokens").values<int32_t>();
  const std::span<const int32_t> all(tokens);
  Engine engine(open_model(folder), exact());
  const auto whole = engine.create_context(), context = engine.create_context(), none = engine.create_context();
  engine.prefill(*whole, all, CancelToken());
  engine.prefill(*context, all.first(40), CancelToken());
  const auto fork = context->fork();
  CHECK(engine.cache_identity(*fork).root == engine.cache_identity(*none).root && engine.cache_identity(*fork).root != engine.cache_identity(*whole).root);
  CHECK(engine.adopt(*context, all.subspan(40)) == 0);
  CHECK(engine.cache_identity(*context).root == engine.cache_identity(*fork).root);
  engine.prefill(*context, all.subspan(40), CancelToken());
  CHECK(difference(whole->logits(), context->logits()) <= 1e-5f);
  CHECK(engine.cache_identity(*context).root == engine.cache_identity(*whole).root && engine.cache_identity(*whole->fork()).root == engine.cache_identity(*whole).root);
}

TEST("norms behind attention and FFN, and both sets of LongRoPE, as transformers computes them") {
  for (const char* name : {"glm4", "phi3"}) {
    const std::string folder = files::fixture(name);
    const auto expected = files::references(folder + "/reference.safetensors");
    const std::vector<int32_t> tokens = expected.at("tokens").values<int32_t>();
    const auto close = [&](const char* logits, size_t count) {
      const float error = difference(expected.at(logits).values<float>(), logits_of(open_model(folder), {tokens.begin(), tokens.begin() + static_cast<int64_t>(count)}));
      std::printf("  %s %zu tokens: worst %.1e of the largest logit\n", name, count, error);
      CHECK(error <= 1e-4f);
    };
    close("logits", tokens.size());
    close("logits_short", 40);
  }
}

TEST_MAIN()
