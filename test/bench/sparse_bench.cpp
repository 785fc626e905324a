// Sparse prefill beside dense on the CPU: build/native/sparse_bench MODEL IDS [tokens] [mode[:target][@isa][+kv] ...]. IDS is a text
// file of token ids, apart by white space: what attention leaves out depends on the text. All modes read the same tokens, 4,096 of them
// in turns, so that a busy machine slows all of them alike; a row is what each has taken up to that length.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>

#include "base/error.h"
#include "engine/engine.h"

using namespace longview;

namespace {

constexpr int64_t kTurn = 4096;

struct Reader {
  std::string title;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Context> context;
  double seconds = 0;
};

Reader open_reader(const std::string& model, const std::string& title) {
  EngineOptions options;
  const size_t plus = title.find('+'), at = std::min(title.find('@'), plus), colon = title.find(':');
  const std::string choice = title.substr(0, at);
  const auto mode = prefill_mode_of(choice.substr(0, colon));
  const auto target = colon == std::string::npos ? PrefillTarget::kBalanced : prefill_target_of(choice.substr(colon + 1));
  const auto kv = plus == std::string::npos ? KvFormat::kBFloat16 : kv_format_of(title.substr(plus + 1));
  LONGVIEW_CHECK(mode && target && kv, kInvalidArgument, "\"%s\" is no mode, mode:target, mode@isa or mode+kv.", title.c_str());
  options.kv_format = kv;
  if (at < plus) options.cpu.isa = title.substr(at + 1, plus - at - 1);
  options.prefill.mode = *mode;
  options.prefill.target = *target;
  if (const char* profile = std::getenv("LONGVIEW_PROFILE"); profile && *mode == PrefillMode::kAuto) options.prefill.profile = profile;
  Reader reader{title, std::make_unique<Engine>(model, options), nullptr};
  reader.context = reader.engine->create_context();
  return reader;
}

std::vector<int32_t> read_ids(const std::string& path, int64_t count) {
  std::ifstream file(path);
  std::vector<int32_t> ids{std::istream_iterator<int32_t>(file), {}};
  LONGVIEW_CHECK(!ids.empty(), kFileNotFound, "%s holds no token ids.", path.c_str());
  LONGVIEW_CHECK(static_cast<int64_t>(ids.size()) >= count, kInvalidArgument, "%s holds %zu token ids, not %lld.", path.c_str(), ids.size(), static_cast<long long>(count));
  ids.resize(static_cast<size_t>(count));
  return ids;
}

// Multiplications and additions of dense attention over n tokens, and of all linear layers. The last layer ends with K and V.
double attention_flop(const ModelConfig& c, int64_t n) { return 2.0 * static_cast<double>((c.layers - 1) * c.q_dim()) * static_cast<double>(n) * static_cast<double>(n + 1); }
double linear_flop(const ModelConfig& c, int64_t n) {
  return 2.0 * static_cast<double>(n * c.hidden) * static_cast<double>(c.layers * (c.q_dim() + 2 * c.kv_dim()) + (c.layers - 1) * (c.q_dim() + 3 * c.ffn));
}

void print_row(const Reader& reader, const Reader& dense, int64_t n) {
  const ModelConfig& c = reader.engine->model().config;
  const HeadCoverage& seen = reader.engine->counters().coverage;
  const double density = seen.causal > 0 ? seen.visited / seen.causal : 1;
  std::printf("%-20s %7lld %9.1f s %8.0f tokens/s   density %5.1f %%   %.2e + %.2e FLOP   x %.2f\n", reader.title.c_str(), static_cast<long long>(n), reader.seconds,
              static_cast<double>(n) / reader.seconds, 100 * density, linear_flop(c, n), density * attention_flop(c, n), dense.seconds / reader.seconds);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::printf("usage: sparse_bench MODEL IDS [tokens] [mode[:target][@isa] ...]\n");
    return 2;
  }
  const int64_t count = argc > 3 ? std::atoll(argv[3]) : 32768;
  LONGVIEW_CHECK(count > 0, kInvalidArgument, "%s is no number of tokens.", argv[3]);
  const std::vector<int32_t> tokens = read_ids(argv[2], count);
  std::vector<std::string> titles = {"dense"};
  if (argc > 4) titles.insert(titles.end(), argv + 4, argv + argc);
  else titles.insert(titles.end(), {"auto", "auto:fast"});
  std::vector<Reader> readers;
  for (const std::string& title : titles) readers.push_back(open_reader(argv[1], title));
  std::printf("%s\n", readers[0].engine->device().name.c_str());

  const auto now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  int64_t shown = 8192;
  for (int64_t done = 0; done < count;) {
    const std::span<const int32_t> turn = std::span(tokens).subspan(static_cast<size_t>(done), static_cast<size_t>(std::min(kTurn, count - done)));
    for (Reader& reader : readers) {
      const double start = now();
      reader.engine->prefill(*reader.context, turn, CancelToken(), true);
      reader.seconds += now() - start;
    }
    done += static_cast<int64_t>(turn.size());
    if (done < shown && done < count) continue;
    for (const Reader& reader : readers) print_row(reader, readers[0], done);
    std::fflush(stdout);
    shown *= 2;
  }
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
