// The engine against reference outputs computed in float32 by PyTorch: logits and greedy ids of tiny models, greedy ids of
// real ones.
#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/reference.h"
#include "model/files.h"
#include "model/model_file.h"

using namespace longview;

namespace {

// The references of the safetensors models were made after their RoPE frequencies had been rounded to bfloat16 (casting a
// whole transformers model casts that buffer too); the GGUF ones were not.
Model with_rounded_frequencies(const std::string& path) {
  Model model = open_model(path);
  if (model.file->format() == ModelFile::Format::kSafetensors)
    for (double& frequency : model.config.rope.inverse_frequencies)
      frequency = static_cast<double>(bf16_to_float(float_to_bf16(static_cast<float>(frequency))));
  return model;
}

void check_tiny(const std::string& model, const std::string& reference, Model (*open)(const std::string&) = with_rounded_frequencies) {
  const auto expected = files::references(reference);
  const std::vector<int32_t> tokens = expected.at("tokens").values<int32_t>();
  const std::vector<float> logits = expected.at("logits").values<float>();
  const std::vector<int32_t> greedy = expected.contains("greedy") ? expected.at("greedy").values<int32_t>() : std::vector<int32_t>();
  float largest = 0;
  for (const float x : logits) largest = std::max(largest, std::fabs(x));
  for (const std::string& isa : available_cpu_isas()) {
    Engine engine(open(model), exact(isa));
    const auto context = engine.create_context();
    const std::vector<float> got = engine.all_logits(*context, tokens);
    float worst = 0;
    for (size_t i = 0; i < logits.size(); ++i) worst = std::max(worst, std::fabs(got[i] - logits[i]));
    std::printf("  %s %s: worst %.2e of the largest logit\n", model.substr(model.rfind('/') + 1).c_str(), isa.c_str(), worst / largest);
    CHECK(worst <= 1e-3f * largest);
    context->truncate(static_cast<int64_t>(tokens.size()) - 1);
    engine.prefill(*context, std::span(tokens).last(1), CancelToken());
    for (const int32_t id : greedy) {
      const int32_t next = argmax(context->logits());
      CHECK(next == id);
      engine.decode(*context, next, CancelToken());
    }
  }
}

}  // namespace

TEST("tiny models give the reference's logits and greedy ids on every code path") {
  for (const char* name : {"llama", "llama-d128-gqa4-tied", "llama-rope-1048k", "llama-rope-linear", "llama-rope-llama3", "llama-rope-yarn", "mistral", "qwen2", "qwen3-tied", "qwen3-moe", "qwen3.5-hybrid", "glm", "phi3-longrope"})
    check_tiny(files::shared(std::string("golden/tiny/") + name), files::shared(std::string("golden/tiny/") + name + "/reference.safetensors"));
  for (const char* name : {"llama.F32", "llama.Q8_0", "qwen2.Q4_0", "qwen3-tied.Q5_1"})
    check_tiny(files::shared(std::string("golden/tiny/") + name + ".gguf"), files::shared(std::string("golden/tiny/") + name + ".reference.safetensors"));
}

TEST("the tiny models that are kept with the project do too") {
  check_tiny(files::fixture("llama.Q8_0.gguf"), files::fixture("llama.Q8_0.reference.safetensors"));
  check_tiny(files::fixture("qwen3-tied"), files::fixture("qwen3-tied/reference.safetensors"));
}

TEST("experts, queries that grow with their position, and recurrent layers give the reference's logits and greedy ids, as their publishers store them and as a converter does") {
  for (const std::string name : {"qwen3moe", "ministral3", "qwen35", "qwen35moe"}) {
    check_tiny(files::fixture(name), files::fixture(name + "/reference.safetensors"), open_model);
    check_tiny(files::fixture(name + ".Q8_0.gguf"), files::fixture(name + ".Q8_0.reference.safetensors"), open_model);
  }
  check_tiny(files::fixture("qwen3next.Q8_0.gguf"), files::fixture("qwen3next.Q8_0.reference.safetensors"), open_model);
}

TEST("layers that slide in turns, sinks, and biased experts give them too") {
  check_tiny(files::fixture("gpt_oss.MXFP4.gguf"), files::fixture("gpt_oss.MXFP4.reference.safetensors"), open_model);
}

TEST("layers that slide by frequencies of their own, embeddings that are scaled, and GELU give them too") {
  check_tiny(files::fixture("gemma3"), files::fixture("gemma3/reference.safetensors"), open_model);
  check_tiny(files::fixture("gemma3.Q8_0.gguf"), files::fixture("gemma3.Q8_0.reference.safetensors"), open_model);
}

TEST("scales of embeddings, additions, scores and logits do, which the graph has in other numbers") {
  check_tiny(files::fixture("granite"), files::fixture("granite/reference.safetensors"), open_model);
  check_tiny(files::fixture("granite.Q8_0.gguf"), files::fixture("granite.Q8_0.reference.safetensors"), open_model);
}

TEST("the built-in model gives every greedy id of the reference in float32, from forks of one context") {
  const Json reference = Json::parse(files::read(files::fixture("longview-135m.json")), "the reference");
  Engine engine(files::root() + "/media/model/longview-135m-64k.Q5_0.gguf", exact(""));
  const auto base = engine.create_context();
  engine.prefill(*base, ids(*reference.find("packedTokens")), CancelToken());
  const int64_t prefilled = engine.counters().prefilled_tokens;
  int64_t own = 0;
  for (const Json& question : *reference.find("questions")->array()) {
    const auto context = base->fork();
    const std::vector<int32_t> turn = ids(*question.find("turnTokens"));
    own += static_cast<int64_t>(turn.size());
    engine.prefill(*context, turn, CancelToken());
    for (const int32_t id : ids(*question.find("greedy"))) {
      CHECK(context->choice() == id);
      engine.decode(*context, id, CancelToken(), Next::kChoice);
    }
  }
  CHECK(engine.counters().prefilled_tokens == prefilled + own);
}

TEST("the built-in model gives them too where they are guessed from the prompt") {
  const Json reference = Json::parse(files::read(files::fixture("longview-135m.json")), "the reference");
  Engine engine(files::root() + "/media/model/longview-135m-64k.Q5_0.gguf", exact(""));
  const auto base = engine.create_context();
  engine.prefill(*base, ids(*reference.find("packedTokens")), CancelToken());
  int64_t tokens = 0, passes = 0;
  for (const Json& question : *reference.find("questions")->array()) {
    const auto context = base->fork();
    engine.prefill(*context, ids(*question.find("turnTokens")), CancelToken());
    const std::vector<int32_t> greedy = ids(*question.find("greedy"));
    Generation generation({.most_tokens = static_cast<int64_t>(greedy.size())});
    std::vector<int32_t> answer;
    while (!generation.step(engine, *context, CancelToken(), [&](int32_t token, int64_t) { answer.push_back(token); })) ++passes;
    tokens += static_cast<int64_t>(answer.size());
    CHECK(answer == greedy);
  }
  std::printf("  %lld tokens in %lld passes\n", static_cast<long long>(tokens), static_cast<long long>(passes));
  CHECK(passes * 10 < tokens * 9);
}

TEST("the fast paths agree with the built-in model's reference wherever its margin is above 0.25") {
  const Json reference = Json::parse(files::read(files::fixture("longview-135m.json")), "the reference");
  for (const std::string& isa : available_cpu_isas()) {
    if (isa == "scalar") continue;
    EngineOptions options;
    options.cpu.isa = isa;
    Engine engine(files::root() + "/media/model/longview-135m-64k.Q5_0.gguf", options);
    const auto base = engine.create_context();
    engine.prefill(*base, ids(*reference.find("packedTokens")), CancelToken());
    int agreed = 0, steps = 0;
    for (const Json& question : *reference.find("questions")->array()) {
      const auto context = base->fork();
      engine.prefill(*context, ids(*question.find("turnTokens")), CancelToken());
      const std::vector<int32_t> greedy = ids(*question.find("greedy"));
      const Json::Array& margins = *question.find("greedyMargins")->array();
      for (size_t i = 0; i < greedy.size(); ++i) {
        const bool same = argmax(context->logits()) == greedy[i];
        ++steps;
        agreed += same;
        if (*margins[i].number() > 0.25) CHECK(same);
        engine.decode(*context, greedy[i], CancelToken());
      }
    }
    std::printf("  %s: %d of %d steps\n", isa.c_str(), agreed, steps);
  }
}

TEST_MAIN()
