// A mixture of experts on the GPU against logits computed in float32, by token: in bf16 a router's score that lies beside another's
// sends a token to other experts than in float32, and a tiny model's random weights make of that another token. All the others must be
// as close as those of models without experts are.
#include "beside.h"
#include "check.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;

namespace {

Engine on_gpu(const std::string& path, int64_t chunk) {
  Model model = open_model(path);
  if (const std::string why = why_not_cuda(model.config); !why.empty()) SKIP("no CUDA device: " + why);
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  options.chunk_tokens = chunk;
  return Engine(std::move(model), options);
}

}  // namespace

TEST("a mixture of experts gives the reference's logits, whatever number of tokens is read at a time") {
  for (const auto& [model, reference] : {std::pair{"qwen3moe", "qwen3moe/reference.safetensors"}, std::pair{"qwen3moe.Q8_0.gguf", "qwen3moe.Q8_0.reference.safetensors"}}) {
    const auto expected = files::references(files::fixture(reference));
    const std::vector<int32_t> tokens = expected.at("tokens").values<int32_t>();
    const std::vector<float> logits = expected.at("logits").values<float>();
    // One token, and as many as read their experts' matrices as they are stored; a few more, in tiles; all.
    for (const int64_t chunk : {int64_t{1}, int64_t{4}, int64_t{37}, int64_t{0}}) {
      Engine engine = on_gpu(files::fixture(model), chunk);
      const auto context = engine.create_context();
      const std::vector<float> got = engine.all_logits(*context, tokens);
      const std::vector<double> off = beside::differences(got, logits, tokens.size());
      const size_t count = off.size();
      std::printf("  %s, %d at a time: by token %.4f in the middle, %.4f of nine in ten, %.4f at most\n", model, int(chunk), off[count / 2], off[count * 9 / 10], off[count - 1]);
      CHECK(off[count / 2] <= 0.03);
      CHECK(off[count * 9 / 10] <= 0.06);
      CHECK(off[count - 1] <= 1.0);
    }
  }
}

TEST("tokens that are decoded as one graph follow those that were read") {
  const std::string path = files::fixture("qwen3moe");
  const auto expected = files::references(path + "/reference.safetensors");
  const std::vector<int32_t> tokens = expected.at("tokens").values<int32_t>(), greedy = expected.at("greedy").values<int32_t>();
  Engine engine = on_gpu(path, 0);
  const auto decoded = engine.create_context(), read = engine.create_context();
  engine.prefill(*decoded, tokens, CancelToken());
  std::vector<int32_t> all = tokens;
  all.insert(all.end(), greedy.begin(), greedy.end());
  const std::vector<float> logits = engine.all_logits(*read, all);
  const auto vocabulary = static_cast<size_t>(engine.model().config.vocabulary);
  std::vector<float> got, wanted(logits.end() - static_cast<int64_t>(greedy.size() * vocabulary), logits.end());
  for (const int32_t id : greedy) {
    engine.decode(*decoded, id, CancelToken());
    const std::span<const float> step = decoded->logits();
    got.insert(got.end(), step.begin(), step.end());
  }
  const std::vector<double> off = beside::differences(got, wanted, greedy.size());
  std::printf("  by token %.4f in the middle, %.4f at most\n", off[off.size() / 2], off.back());
  CHECK(off[off.size() / 2] <= 0.03);
}

TEST("more experts than the GPU code takes go to the CPU with a reason") {
  ModelConfig config = open_model(files::fixture("qwen3moe")).config;
  if (const std::string why = why_not_cuda(config); !why.empty()) SKIP("no CUDA device: " + why);
  config.experts = 600;
  CHECK(why_not_cuda(config).find("600 experts") != std::string::npos);
}

TEST_MAIN()
