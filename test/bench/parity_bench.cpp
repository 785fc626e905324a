// The engine beside transformers on a model of real size: build/native/parity_bench FOLDER [--fp8], as test/bench/llama8b.py wrote it.
// Relative error of the logits and agreement of first choices, against transformers in float32 and in bf16; and how
// fast the model is loaded.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;

namespace {

struct Comparison {
  const char* name;
  std::vector<int32_t> first;
  std::vector<float> logits;
  double difference = 0, norm = 0;
  int64_t same = 0;
};

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::printf("usage: parity_bench FOLDER [--fp8]\n");
    return 2;
  }
  const auto reference = files::references(std::string(argv[1]) + "/reference.safetensors");
  const auto tokens = reference.at("tokens").values<int32_t>(), rows = reference.at("rows").values<int32_t>();
  Comparison comparisons[] = {{"transformers in float32", reference.at("first_f32").values<int32_t>(), reference.at("logits_f32").values<float>()},
                              {"transformers in bf16", reference.at("first_bf16").values<int32_t>(), reference.at("logits_bf16").values<float>()}};
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  if (argc > 2 && std::string(argv[2]) == "--fp8") options.gpu.weights = GpuWeights::kFp8;
  const auto begin = std::chrono::steady_clock::now();
  Engine engine(argv[1], options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const auto bytes = static_cast<double>(std::filesystem::file_size(std::string(argv[1]) + "/model.safetensors"));
  std::printf("loaded %.2f GB in %.2f s, %.2f GB/s\n", bytes / 1e9, seconds, bytes / 1e9 / seconds);
  const auto vocabulary = static_cast<size_t>(engine.model().config.vocabulary);
  const auto context = engine.create_context();
  constexpr size_t kBlock = 512;
  size_t row = 0;
  for (size_t begin = 0; begin < tokens.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, tokens.size() - begin);
    const std::vector<float> logits = engine.all_logits(*context, std::span(tokens).subspan(begin, count));
    for (size_t t = 0; t < count; ++t) {
      const std::span<const float> got = std::span(logits).subspan(t * vocabulary, vocabulary);
      const int32_t first = argmax(got);
      const bool compared = row < rows.size() && static_cast<size_t>(rows[row]) == begin + t;
      for (Comparison& c : comparisons) {
        c.same += first == c.first[begin + t];
        if (!compared) continue;
        for (size_t i = 0; i < vocabulary; ++i) {
          const double wanted = c.logits[row * vocabulary + i];
          c.difference += std::pow(got[i] - wanted, 2);
          c.norm += wanted * wanted;
        }
      }
      row += compared;
    }
  }
  std::printf("%s, %lld layers, %zu tokens\n", engine.device().name.c_str(), static_cast<long long>(engine.model().config.layers), tokens.size());
  for (const Comparison& c : comparisons)
    std::printf("against %s: relative error of %zu rows of logits %.2e, first choices %.2f %%\n", c.name, row, std::sqrt(c.difference / c.norm), 100.0 * static_cast<double>(c.same) / static_cast<double>(tokens.size()));
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
