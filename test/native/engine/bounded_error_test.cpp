// What an engine does with what probe rows find: heads that see too little of their attention get more, and in the end all.
#include <algorithm>

#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "model/files.h"
#include "model/model_file.h"

using namespace longview;

namespace {

constexpr int64_t kChunk = 64;  // one tile of a_shape, whose last row is probed; 16 probes make a verdict

// Every head sees the first `sink` keys and the last `window`, in MInference's format.
std::string a_shape_profile(const ModelConfig& config, int64_t sink, int64_t window) {
  std::string text;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    text += layer == 0 ? "[{" : ", {";
    for (int64_t head = 0; head < config.heads; ++head) text += format("%s\"%lld\": [\"stream_llm\", %lld, %lld, 1.0]", head == 0 ? "" : ", ", static_cast<long long>(head), static_cast<long long>(sink), static_cast<long long>(window));
    text += "}";
  }
  return text + "]";
}

// Keys that an a_shape head visits for a chunk's rows.
double visited(int64_t first, int64_t sink, int64_t window) {
  double keys = 0;
  for (int64_t position = first; position < first + kChunk; ++position) keys += static_cast<double>(std::min(position + 1, sink + window));
  return keys;
}

}  // namespace

TEST("heads that see too little of their attention see four times as much with the next chunk, and at last everything") {
  constexpr int64_t kSink = 16, kWindow = 16, kVerdict = 16;
  files::Scratch scratch;
  EngineOptions options;
  options.chunk_tokens = kChunk;
  options.prefill.mode = PrefillMode::kAdaptive;
  {
    const Engine engine(files::fixture("llama.Q8_0.gguf"), options);
    files::write(scratch.path("heads.json"), a_shape_profile(engine.model().config, kSink, kWindow));
  }
  options.prefill.profile = scratch.path("heads.json");
  Engine engine(files::fixture("llama.Q8_0.gguf"), options);
  Context context(engine);
  const ModelConfig& config = engine.model().config;
  const auto heads = static_cast<double>((config.layers - 1) * config.heads);  // the last layer does not attend but for results
  CHECK(engine.window() >= (3 * kVerdict + 1) * kChunk);
  std::vector<int32_t> tokens(kChunk);
  HeadCoverage before;
  for (int64_t chunk = 0; chunk <= 3 * kVerdict; ++chunk) {
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((static_cast<int64_t>(i) * 37 + chunk * 101) % config.vocabulary);
    engine.prefill(context, tokens, CancelToken(), true);
    const HeadCoverage seen = engine.counters().coverage - before;
    before = engine.counters().coverage;
    const int64_t raises = chunk / kVerdict;
    CHECK_NEAR(seen.visited, heads * (raises == 3 ? visited(chunk * kChunk, 0, 1 << 20) : visited(chunk * kChunk, kSink, kWindow << (2 * raises))), 0.5);
    if (raises == 3) CHECK_NEAR(seen.visited, seen.causal, 0.5);
    else CHECK_NEAR(seen.probes, heads, 0.5);
  }
}

TEST("what was tried on a reading that stopped counts for no other") {
  files::Scratch scratch;
  EngineOptions options;
  options.chunk_tokens = kChunk;
  options.prefill.mode = PrefillMode::kAdaptive;
  {
    const Engine engine(files::fixture("llama.Q8_0.gguf"), options);
    files::write(scratch.path("heads.json"), a_shape_profile(engine.model().config, 16, 16));
  }
  options.prefill.profile = scratch.path("heads.json");
  Engine engine(files::fixture("llama.Q8_0.gguf"), options);
  const ModelConfig& config = engine.model().config;
  const std::vector<int32_t> tokens(kChunk, 7);
  const auto read = [&] {
    const HeadCoverage before = engine.counters().coverage;
    Context context(engine);
    engine.prefill(context, tokens, CancelToken(), true);
    return engine.counters().coverage - before;
  };
  const HeadCoverage alone = read();
  const Activation tried = engine.backend().allocate(kChunk, config.heads * config.head_dim);
  const std::vector<HeadPlan> plans(static_cast<size_t>(config.heads), {.pattern = Pattern::kAShape, .sink = 16, .window = 16});
  engine.observe_attention([&](const Forward::Attention& a) {
    engine.backend().attention_sparse(a.q, engine.kv_shape(), config.heads, a.layer, a.pages, a.first_position, plans, tried);
    LONGVIEW_CHECK(false, kCancelled, "Stopped.");
  });
  Context stopped(engine);
  CHECK_THROWS(engine.prefill(stopped, tokens, CancelToken()), kCancelled);
  engine.observe_attention({});
  const HeadCoverage again = read();
  CHECK(again.visited == alone.visited && again.causal == alone.causal && again.probes == alone.probes);
}

TEST("what is read after a chunk that is not finite is measured as if that had not been") {
  // A copy of the model whose embedding of one token is NaN.
  constexpr int32_t kFaulty = 3;
  const files::Scratch scratch;
  const std::string file = files::fixture("llama.Q8_0.gguf");
  std::string bytes = files::read(file);
  {
    const Model model = open_model(file);
    const TensorView& embedding = model.weights.embedding;
    const int64_t row = embedding.bytes / embedding.rows, at = embedding.data - model.file->parts()[0].file->data() + kFaulty * row;
    CHECK(embedding.type == DType::kQ8_0);
    for (int64_t block = 0; block < row; block += 34) bytes.replace(static_cast<size_t>(at + block), 2, "\xff\x7f");
  }
  EngineOptions options;
  options.chunk_tokens = kChunk;
  options.prefill.mode = PrefillMode::kAdaptive;
  Engine engine(scratch.put("faulty.gguf", bytes), options);
  const auto read = [&](int32_t first) {
    const HeadCoverage before = engine.counters().coverage;
    std::vector<int32_t> tokens(8 * kChunk, 7);
    tokens[0] = first;
    Context context(engine);
    engine.prefill(context, tokens, CancelToken(), true);
    return engine.counters().coverage - before;
  };
  const HeadCoverage sound = read(7), faulty = read(kFaulty), again = read(8);
  CHECK(sound.probes > 0 && sound.covered > 0 && faulty.probes == sound.probes && faulty.covered == 0);
  CHECK_NEAR(again.covered / sound.covered, 1, 0.1);
}

TEST_MAIN()
