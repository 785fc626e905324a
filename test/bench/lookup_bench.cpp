// Answers with tokens guessed from the prompt beside answers token by token: build/native/lookup_bench MODEL DATA [SEQUENCES] [cpu|cuda] [bf16|q8|q4].
// DATA is what `npm run eval -- --make` makes: where a sequence has an answer, the model answers by itself, both ways in turns, behind the
// same state, as many tokens as the answer has. Sums over all answers; what guesses take is the least of three tries each.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "base/error.h"
#include "engine/generation.h"
#include "model/files.h"

using namespace longview;

namespace {

struct Answer {
  std::vector<int32_t> tokens;
  double seconds = 0;
  int64_t passes = 0;
};

Answer answer(Engine& engine, const Context& before, int64_t tokens, bool looks_up) {
  const auto context = before.fork();
  Generation generation({.most_tokens = tokens, .looks_up = looks_up});
  Answer out;
  const auto start = std::chrono::steady_clock::now();
  while (!generation.step(engine, *context, CancelToken(), [&](int32_t token, int64_t) { out.tokens.push_back(token); })) ++out.passes;
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::printf("usage: lookup_bench MODEL DATA [SEQUENCES] [cpu|cuda] [bf16|q8|q4]\n");
    return 2;
  }
  EngineOptions options;
  const std::string device = argc > 4 ? argv[4] : "cpu", format = argc > 5 ? argv[5] : "bf16";
  options.device = device == "cuda" ? DeviceChoice::kCuda : DeviceChoice::kCpu;
  options.kv_format = format == "q8" ? KvFormat::kQ8 : format == "q4" ? KvFormat::kQ4 : KvFormat::kBFloat16;
  options.prefill.mode = PrefillMode::kAuto;
  Engine engine(argv[1], options);
  const auto data = files::references(argv[2]);
  const auto tokens = data.at("tokens").values<int32_t>();
  const auto mask = data.at("mask").values<uint8_t>();
  const auto length = static_cast<size_t>(data.at("tokens").shape[1]);
  const size_t sequences = std::min<size_t>(argc > 3 ? static_cast<size_t>(std::atoll(argv[3])) : SIZE_MAX, tokens.size() / length);
  std::printf("%s, %s, sequences of %zu tokens\n", engine.device().name.c_str(), format.c_str(), length);
  Answer alone, guessed;
  int64_t answers = 0, same = 0;
  for (size_t s = 0; s < sequences; ++s) {
    const std::span<const int32_t> all = std::span(tokens).subspan(s * length, length);
    const std::span<const uint8_t> marked = std::span(mask).subspan(s * length, length);
    const auto context = engine.create_context();
    for (size_t begin = 0; begin < length;) {
      const size_t from = static_cast<size_t>(std::find(marked.begin() + static_cast<std::ptrdiff_t>(begin), marked.end(), 1) - marked.begin());
      const size_t end = static_cast<size_t>(std::find(marked.begin() + static_cast<std::ptrdiff_t>(from), marked.end(), 0) - marked.begin());
      engine.prefill(*context, all.subspan(begin, from - begin), CancelToken(), begin == 0);
      if (end > from) {
        Answer best[2];
        for (int run = 0; run < 3; ++run)
          for (const bool looks_up : {false, true}) {
            Answer one = answer(engine, *context, static_cast<int64_t>(end - from), looks_up);
            if (run == 0 || one.seconds < best[looks_up].seconds) best[looks_up] = std::move(one);
          }
        ++answers;
        same += best[0].tokens == best[1].tokens;
        for (const auto& [sum, one] : {std::pair{&alone, &best[0]}, {&guessed, &best[1]}}) {
          sum->seconds += one->seconds;
          sum->passes += one->passes;
          sum->tokens.insert(sum->tokens.end(), one->tokens.begin(), one->tokens.end());
        }
        engine.prefill(*context, all.subspan(from, end - from), CancelToken());
      }
      begin = end;
    }
  }
  const auto count = static_cast<double>(alone.tokens.size());
  std::printf("%lld answers, %.0f tokens; the same tokens in %lld\n", static_cast<long long>(answers), count, static_cast<long long>(same));
  std::printf("token by token  %7.2f ms a token\nguessed         %7.2f ms a token, %.2f tokens a pass: %.2f times as fast\n", alone.seconds * 1e3 / count, guessed.seconds * 1e3 / count,
              count / static_cast<double>(guessed.passes), alone.seconds / guessed.seconds);
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
