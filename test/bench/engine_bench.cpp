// The whole engine on one device: build/native/engine_bench MODEL [cuda|cpu] [tokens] [decoded]. Random token ids; pre-fill
// and decode speed, medians of three.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "base/error.h"
#include "engine/engine.h"

using namespace longview;

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::printf("usage: engine_bench MODEL [cuda|cpu] [tokens] [decoded]\n");
    return 2;
  }
  const auto now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  EngineOptions options;
  options.device = argc > 2 && std::string(argv[2]) == "cpu" ? DeviceChoice::kCpu : DeviceChoice::kCuda;
  const int64_t count = argc > 3 ? std::atoll(argv[3]) : 8192, decoded = argc > 4 ? std::atoll(argv[4]) : 64;
  const double start = now();
  Engine engine(argv[1], options);
  std::printf("%s; %.2f s to open\n", engine.device().name.c_str(), now() - start);
  std::mt19937_64 random(1);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % static_cast<uint64_t>(engine.model().config.vocabulary));
  std::vector<double> prefill, decode;
  for (int run = 0; run < 3; ++run) {
    const auto context = engine.create_context();
    const double begin = now();
    engine.prefill(*context, tokens, CancelToken());
    const double middle = now();
    for (int64_t i = 0; i < decoded; ++i) engine.decode(*context, argmax(context->logits()), CancelToken());
    prefill.push_back(middle - begin);
    decode.push_back(now() - middle);
  }
  std::sort(prefill.begin(), prefill.end());
  std::sort(decode.begin(), decode.end());
  std::printf("prefill %lld tokens: %.3f s, %.0f tokens/s; decode behind them: %.2f ms a token, %.0f tokens/s\n", static_cast<long long>(count), prefill[1],
              static_cast<double>(count) / prefill[1], decode[1] * 1e3 / static_cast<double>(decoded), static_cast<double>(decoded) / decode[1]);
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
