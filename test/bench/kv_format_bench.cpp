// KV state in 8 and 4 bits beside bf16, on the CPU: build/native/kv_format_bench MODEL REFERENCE.json [TOKENS]. The reference is a list of
// prompts with `tokens`; the longest is taken. Error of the logits, first choices and perplexity over it; then the time of
// reading TOKENS tokens (it repeated) and of decoding behind them, in turns.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "model/files.h"

using namespace longview;

namespace {

constexpr size_t kBlock = 256;

EngineOptions options(KvFormat format) {
  EngineOptions out;
  out.kv_format = format;
  return out;
}

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<int32_t> longest_prompt(const char* path) {
  std::vector<int32_t> longest;
  const Json reference = Json::parse(files::read(path), "the reference");
  for (const Json& entry : *reference.array())
    if (std::vector<int32_t> tokens = ids(*entry.find("tokens")); tokens.size() > longest.size()) longest = std::move(tokens);
  return longest;
}

void compare_logits(const char* title, Engine& wide, Engine& narrow, std::span<const int32_t> tokens) {
  const auto vocabulary = static_cast<size_t>(wide.model().config.vocabulary);
  const auto a = wide.create_context(), b = narrow.create_context();
  double worst = 0, total = 0, wide_nll = 0, narrow_nll = 0;
  int64_t same = 0, scored = 0;
  for (size_t begin = 0; begin < tokens.size(); begin += kBlock) {
    const auto part = tokens.subspan(begin, std::min(kBlock, tokens.size() - begin));
    const std::vector<float> x = wide.all_logits(*a, part), y = narrow.all_logits(*b, part);
    for (size_t t = 0; t < part.size(); ++t) {
      const auto left = std::span(x).subspan(t * vocabulary, vocabulary), right = std::span(y).subspan(t * vocabulary, vocabulary);
      same += argmax(left) == argmax(right);
      for (size_t i = 0; i < vocabulary; ++i) {
        const double difference = std::fabs(static_cast<double>(left[i]) - static_cast<double>(right[i]));
        worst = std::max(worst, difference);
        total += difference;
      }
      if (begin + t + 1 == tokens.size()) break;
      wide_nll += score_token(left, tokens[begin + t + 1]).nll;
      narrow_nll += score_token(right, tokens[begin + t + 1]).nll;
      ++scored;
    }
  }
  const auto count = static_cast<double>(tokens.size());
  std::printf("%s, %zu tokens: logits off by %.4f on average, %.3f at most; same first choice %.2f %%; mean NLL %.4f, %.4f\n", title, tokens.size(),
              total / count / static_cast<double>(vocabulary), worst, 100 * static_cast<double>(same) / count, wide_nll / static_cast<double>(scored), narrow_nll / static_cast<double>(scored));
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::printf("usage: kv_format_bench MODEL REFERENCE.json [TOKENS]\n");
    return 2;
  }
  const std::vector<int32_t> prompt = longest_prompt(argv[2]);
  std::vector<int32_t> tokens;
  for (const auto count = static_cast<size_t>(argc > 3 ? std::atoll(argv[3]) : 8192); tokens.size() < count;) tokens.push_back(prompt[(tokens.size() * 7 + tokens.size() / prompt.size()) % prompt.size()]);
  Engine wide(argv[1], options(KvFormat::kBFloat16));
  std::printf("%s, %s\n", wide.model().config.name.c_str(), wide.device().name.c_str());
  for (const KvFormat format : {KvFormat::kQ8, KvFormat::kQ4}) {
    const std::string named = name(format);
    Engine narrow(argv[1], options(format));
    std::printf("bytes a token: bf16 %.0f, %s %.0f\n", static_cast<double>(wide.pool().page_bytes()) / kPageTokens, named.c_str(), static_cast<double>(narrow.pool().page_bytes()) / kPageTokens);
    {
      EngineOptions exact = options(KvFormat::kFloat32), exact_narrow = options(format);
      exact.cpu.precision = exact_narrow.cpu.precision = Precision::kFloat32;
      Engine reference(argv[1], exact), reference_narrow(argv[1], exact_narrow);
      if (format == KvFormat::kQ8) compare_logits("float32 and bf16", reference, wide, prompt);
      compare_logits(("float32 and " + named).c_str(), reference, narrow, prompt);
      compare_logits(("float32 and float32 with a state in " + named).c_str(), reference, reference_narrow, prompt);
    }
    compare_logits(("bf16 and " + named).c_str(), wide, narrow, prompt);

    const auto a = wide.create_context(), b = narrow.create_context();
    std::array<double, 2> read{}, decode{};
    for (size_t done = 0; done < tokens.size(); done += 1024) {
      const auto part = std::span(tokens).subspan(done, std::min<size_t>(1024, tokens.size() - done));
      read[0] += seconds([&] { wide.prefill(*a, part, CancelToken()); });
      read[1] += seconds([&] { narrow.prefill(*b, part, CancelToken()); });
    }
    for (int i = 0; i < 48; ++i) {
      const int32_t token = tokens[static_cast<size_t>(i)];
      decode[0] += seconds([&] { wide.decode(*a, token, CancelToken()); });
      decode[1] += seconds([&] { narrow.decode(*b, token, CancelToken()); });
    }
    std::printf("reading %zu tokens densely: %s takes %.3f of bf16's time; decoding behind them: %.3f\n", tokens.size(), named.c_str(), read[1] / read[0], decode[1] / decode[0]);
  }
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
