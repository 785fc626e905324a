// A model in every quantised format says what the same weights in float32 say: from the file to the logits, read at once and token by token.
#include "check.h"
#include "cpu/cpu_features.h"
#include "cpu/random_codes.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "model/builders.h"
#include "model/files.h"

using namespace longview;
using builders::Gguf;

namespace {

constexpr uint64_t kHidden = 256, kFfn = 512, kVocabulary = 64;
constexpr uint32_t kLayers = 2;

// Both files of the same llama: with matrices of a type, and with their values.
struct Files {
  Gguf quantised, plain;
};

Files llama(const BlockScales& of) {
  std::mt19937_64 random(static_cast<uint64_t>(of.type));
  Files files;
  double squares = 0, count = 0;
  const auto matrix = [&](const std::string& name, uint64_t cols, uint64_t rows) {
    std::string codes, values;
    for (uint64_t row = 0; row < rows; ++row) {
      const std::vector<std::byte> bytes = random_codes(of, static_cast<int64_t>(cols), random);
      std::vector<float> floats(cols);
      dequantize_row(of.type, bytes.data(), floats.data(), static_cast<int64_t>(cols));
      codes.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      values.append(reinterpret_cast<const char*>(floats.data()), cols * sizeof(float));
      for (const float value : floats) squares += static_cast<double>(value) * value, ++count;
    }
    files.quantised.tensors.push_back({name, {cols, rows}, static_cast<uint32_t>(of.type), codes});
    files.plain.tensors.push_back({name, {cols, rows}, 0, values});
  };
  for (Gguf* gguf : {&files.quantised, &files.plain}) {
    gguf->set_string("general.architecture", "llama").set_u32("llama.block_count", kLayers).set_u32("llama.context_length", 256);
    gguf->set_u32("llama.embedding_length", kHidden).set_u32("llama.feed_forward_length", kFfn).set_u32("llama.attention.head_count", 4).set_u32("llama.attention.head_count_kv", 2);
    gguf->set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f).set_f32("llama.rope.freq_base", 10000);
  }
  matrix("token_embd.weight", kHidden, kVocabulary), matrix("output.weight", kHidden, kVocabulary);
  for (uint32_t i = 0; i < kLayers; ++i) {
    const std::string layer = "blk." + std::to_string(i);
    matrix(layer + ".attn_q.weight", kHidden, kHidden), matrix(layer + ".attn_k.weight", kHidden, kHidden / 2), matrix(layer + ".attn_v.weight", kHidden, kHidden / 2);
    matrix(layer + ".attn_output.weight", kHidden, kHidden), matrix(layer + ".ffn_gate.weight", kHidden, kFfn), matrix(layer + ".ffn_up.weight", kHidden, kFfn), matrix(layer + ".ffn_down.weight", kFfn, kHidden);
  }
  // Such that results are about as large as 1: attention looks at more than one token, and a rounding changes no more than itself.
  const auto scale = static_cast<float>(1 / std::sqrt(squares / count * kHidden));
  for (Gguf* gguf : {&files.quantised, &files.plain}) {
    const auto norm = [&](const std::string& name) {
      std::string bytes;
      for (uint64_t i = 0; i < kHidden; ++i) bytes += builders::bytes_of(scale);
      gguf->tensors.push_back({name, {kHidden}, 0, bytes});
    };
    norm("output_norm.weight");
    for (uint32_t i = 0; i < kLayers; ++i)
      for (const char* name : {".attn_norm.weight", ".ffn_norm.weight"}) norm("blk." + std::to_string(i) + name);
  }
  return files;
}

// Of the largest.
float difference(std::span<const float> a, std::span<const float> wanted) {
  float worst = 0, largest = 0;
  for (size_t i = 0; i < wanted.size(); ++i) worst = std::max(worst, std::fabs(a[i] - wanted[i])), largest = std::max(largest, std::fabs(wanted[i]));
  return worst / largest;
}

// Logits behind tokens that were read at once, and behind two more, one after the other.
std::vector<std::vector<float>> logits(const std::string& path, const EngineOptions& options) {
  std::vector<int32_t> tokens(40);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 37 % kVocabulary);
  Engine engine(path, options);
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  std::vector<std::vector<float>> all;
  const auto keep = [&] { all.emplace_back(context->logits().begin(), context->logits().end()); };
  keep();
  for (const int32_t token : {5, 60}) engine.decode(*context, token, CancelToken()), keep();
  return all;
}

}  // namespace

TEST("weights of every type, as their values in float32") {
  const files::Scratch scratch;
  for (const BlockScales& of : kQuantisedTypes) {
    const Files files = llama(of);
    const std::string quantised = scratch.put("quantised.gguf", files.quantised.build()), plain = scratch.put("plain.gguf", files.plain.build());
    const auto wanted = logits(plain, exact("scalar"));
    for (const cpu::Kernels* kernels : cpu::available_kernels()) {
      EngineOptions fastest;
      fastest.device = DeviceChoice::kCpu;
      fastest.cpu.isa = kernels->isa;
      const auto same = logits(quantised, exact(kernels->isa)), rounded = logits(quantised, fastest);
      for (size_t i = 0; i < wanted.size(); ++i) {
        const float error = difference(same[i], wanted[i]), rounding = difference(rounded[i], wanted[i]);
        if (!(error <= 1e-5f && rounding <= 0.1f)) std::printf("  %s, %s, %zu: %.1e exactly, %.1e by the fastest products\n", format_of(of.type).name, kernels->isa, i, static_cast<double>(error), static_cast<double>(rounding));
        CHECK(error <= 1e-5f);
        CHECK(rounding <= 0.1f);
      }
    }
  }
}

TEST_MAIN()
