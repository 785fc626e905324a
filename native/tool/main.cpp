// longview-engine: token ids in, token ids and logits out. For tests and for looking into a model without Node; text is
// the server's affair. Exit code: 0 done, 1 failed, 2 wrong usage.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/larger_first.h"
#include "base/text.h"
#include "engine/calibrate.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "tool/logits_file.h"

using namespace longview;

namespace {

constexpr const char* kUsage =
    "longview-engine MODEL [options] [--] ID...\n"
    "  MODEL            a .gguf or .safetensors file, or a folder with safetensors and config.json\n"
    "  ID...            the prompt's token ids; none or \"-\": from standard input, apart by white space or commas\n"
    "  --generate N     print the N ids that follow, greedily (default 16)\n"
    "  --one-by-one     each of them in a pass of its own: none are guessed from the prompt\n"
    "  --top N          print the N largest logits after the prompt\n"
    "  --logits FILE    write the logits after every token: safetensors, \"logits\" F32 [tokens, vocabulary]\n"
    "  --calibrate FILE read the prompt, find what each head may leave out, write the profile, and stop; what was measured is kept\n"
    "                   in FILE.part when it is interrupted\n"
    "  --density PER    of the profile: keys visited, per thousand of those that dense attention visits (default: as many as\n"
    "                   without a profile)\n"
    "  --profile FILE   read the prompt sparsely, each head as this profile says\n"
    "  --from N         measure no token before the N-th (default 0)\n"
    "  --float32        float32 products and KV state: the reference path (default: the fastest)\n"
    "  --q8             KV state in 8 bits (default: bf16)\n"
    "  --q4             KV state in 4 bits\n"
    "  --fp8-kv         KV state in 8-bit floats, on a GPU\n"
    "  --isa NAME       code path of the processor: scalar, avx2, avxvnni, avx512, avx512bf16, amx, neon, neondot (default: the best)\n"
    "  --threads N      default: all\n"
    "  --info           print the model and the device, and stop\n";

struct Usage {
  std::string why;
};

struct Arguments {
  std::string model;
  std::vector<std::string> prompt;
  int64_t generate = 16;
  bool one_by_one = false;
  int64_t top = 0;
  std::string logits;
  std::string profile;
  CalibrationOptions calibration;
  std::optional<double> density;  // none: the un-calibrated heads' own
  bool info = false;
  EngineOptions engine;
};

int64_t whole(const std::string& text, int64_t limit, const char* what) {
  size_t end = 0;
  int64_t value = -1;
  try {
    value = std::stoll(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (text.empty() || end != text.size() || value < 0 || value > limit)
    throw Usage{printable(text) + " is no " + what + "."};
  return value;
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  bool options = true;
  std::optional<std::string> model;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw Usage{word + " needs a value."};
      return argv[++i];
    };
    if (!options || word.size() < 2 || word[0] != '-') {
      if (!model) model = word;
      else arguments.prompt.push_back(word);
    } else if (word == "--") {
      options = false;
    } else if (word == "--generate") {
      arguments.generate = whole(value(), 1 << 20, "number of tokens");
    } else if (word == "--one-by-one") {
      arguments.one_by_one = true;
    } else if (word == "--top") {
      arguments.top = whole(value(), 1 << 20, "number of logits");
    } else if (word == "--threads") {
      arguments.engine.cpu.threads = static_cast<int>(whole(value(), 1024, "number of threads"));
    } else if (word == "--logits") {
      arguments.logits = value();
    } else if (word == "--calibrate") {
      arguments.profile = value();
      arguments.engine.prefill.mode = PrefillMode::kAdaptive;
    } else if (word == "--profile") {
      arguments.engine.prefill.profile = value();
      arguments.engine.prefill.mode = PrefillMode::kAdaptive;
    } else if (word == "--density") {
      arguments.density = static_cast<double>(whole(value(), 1000, "density")) / 1000;
    } else if (word == "--from") {
      arguments.calibration.from_token = whole(value(), INT32_MAX, "number of tokens");
    } else if (word == "--isa") {
      arguments.engine.cpu.isa = value();
    } else if (word == "--float32") {
      arguments.engine.cpu.precision = Precision::kFloat32;
      arguments.engine.kv_format = KvFormat::kFloat32;
    } else if (word == "--fp8-kv") {
      arguments.engine.kv_format = KvFormat::kE4M3;
    } else if (word == "--q8") {
      arguments.engine.kv_format = KvFormat::kQ8;
    } else if (word == "--q4") {
      arguments.engine.kv_format = KvFormat::kQ4;
    } else if (word == "--info") {
      arguments.info = true;
    } else {
      throw Usage{"There is no option " + printable(word) + "."};
    }
  }
  if (!model) throw Usage{"A model is missing."};
  arguments.model = *model;
  return arguments;
}

std::vector<int32_t> read_ids(const std::vector<std::string>& words) {
  std::string text;
  if (words.empty() || words == std::vector<std::string>{"-"})
    text.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  for (const std::string& word : words)
    if (word != "-") text += word + ' ';
  std::replace(text.begin(), text.end(), ',', ' ');
  std::istringstream stream(text);
  std::vector<int32_t> ids;
  for (std::string word; stream >> word;) ids.push_back(static_cast<int32_t>(whole(word, INT32_MAX, "token id")));
  if (ids.empty()) throw Usage{"The prompt has no token ids."};
  return ids;
}

void print_top(std::span<const float> logits, int64_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + std::min<int64_t>(count, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), end, order.end(), LargerFirst{logits});
  for (auto id = order.begin(); id != end; ++id) std::printf("top %d %.6f\n", *id, static_cast<double>(logits[static_cast<size_t>(*id)]));
}

int run(const Arguments& arguments) {
  Engine engine(arguments.model, arguments.engine);
  if (arguments.info) {
    const ModelConfig& config = engine.model().config;
    std::printf("model %s: %lld layers, %lld parameters, %s, window %lld\ndevice %s\n", config.architecture.c_str(), static_cast<long long>(config.layers),
                static_cast<long long>(engine.model().parameters), human_size(engine.model().weight_bytes).c_str(), static_cast<long long>(engine.window()),
                engine.device().name.c_str());
    return 0;
  }
  const std::vector<int32_t> prompt = read_ids(arguments.prompt);
  if (!arguments.profile.empty()) {
    CalibrationOptions options = arguments.calibration;
    options.part = arguments.profile + ".part";
    Calibration calibration(engine, prompt, options);
    while (calibration.step(CancelToken())) {
    }
    const ProfileUse use;
    write_head_profile(arguments.profile, calibration.profile(use, arguments.density.value_or(calibration.uncalibrated_density(use))));
    calibration.forget_part();
    return 0;
  }
  const auto context = engine.create_context();
  if (!arguments.logits.empty()) {
    write_logits(arguments.logits, engine.all_logits(*context, prompt), engine.model().config.vocabulary);
    // all_logits leaves none behind: the last token is read again for what follows.
    context->truncate(context->length() - 1);
  }
  engine.prefill(*context, std::span(prompt).subspan(static_cast<size_t>(context->length())), CancelToken(), !arguments.engine.prefill.profile.empty());
  print_top(context->logits(), arguments.top);
  if (arguments.generate == 0) return 0;
  std::printf("greedy");
  Generation generation({.most_tokens = arguments.generate, .looks_up = !arguments.one_by_one});
  const auto print = [](int32_t token, int64_t) {
    std::printf(" %d", token);
    std::fflush(stdout);
  };
  while (!generation.step(engine, *context, CancelToken(), print)) continue;
  std::printf("\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  return run(parse(argc, argv));
} catch (const Usage& usage) {
  std::fprintf(stderr, "%s\n%s", usage.why.c_str(), kUsage);
  return 2;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
