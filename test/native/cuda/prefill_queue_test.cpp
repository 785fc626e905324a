// The work on a chunk is queued layer by layer: the host waits for nothing on the way, and stops between two layers when it is told to.
#include <cmath>
#include <numeric>

#include "backend/backend.h"
#include "base/error.h"
#include "check.h"
#include "cuda/beside.h"
#include "cuda/library.h"
#include "engine/forward.h"
#include "model/files.h"

using namespace longview;

namespace {

constexpr int64_t kTokens = 9000;  // tiles enough for the sparse kernels

int waits = 0, attentions = 0, stop_at = 0;  // stop_at: the attention with which `stop` is raised; 0: never
CancelToken stop;

const kernels::Library& real() { return *cuda::load_library().library; }

int count_layer() {
  if (++attentions == stop_at) stop.cancel();
  return attentions;
}

// The library, counting what the host waits for, and the layers by their attention.
const kernels::Library& counted() {
  static const kernels::Library table = [] {
    kernels::Library t = real();
    t.synchronize = [](auto... arguments) { return ++waits, real().synchronize(arguments...); };
    t.copy_to_host = [](auto... arguments) { return ++waits, real().copy_to_host(arguments...); };
    t.allocate = [](auto... arguments) { return ++waits, real().allocate(arguments...); };
    t.release = [](auto... arguments) { return ++waits, real().release(arguments...); };
    t.allocate_host = [](auto... arguments) { return ++waits, real().allocate_host(arguments...); };
    t.attention = [](auto... arguments) { return count_layer(), real().attention(arguments...); };
    t.sparse_attention = [](auto... arguments) { return count_layer(), real().sparse_attention(arguments...); };
    return t;
  }();
  return table;
}

struct Prompt {
  Model model = open_model(files::fixture("qwen3-tied"));
  std::unique_ptr<Backend> backend;
  KvShape shape;
  std::unique_ptr<Forward> forward;
  std::unique_ptr<KvStorage> storage;
  std::vector<int32_t> slots, tokens;

  Prompt() {
    const ModelConfig& config = model.config;
    if (const std::string why = why_not_cuda(config); !why.empty()) SKIP("no CUDA device: " + why);
    backend = cuda::make_backend(counted(), {});
    shape = {config.layers, config.kv_heads, config.head_dim, KvFormat::kBFloat16};
    shape.mean_tokens = backend->sparse_block_tokens(shape);
    forward = std::make_unique<Forward>(*backend, model, shape, kTokens);
    storage = backend->allocate_kv(shape, pages_of(2 * kTokens));
    slots.resize(static_cast<size_t>(storage->pages()));
    std::iota(slots.begin(), slots.end(), 0);
    tokens = beside::some_tokens(model, kTokens);
  }
  void read(int64_t first, const std::vector<HeadPlan>& plans, const CancelToken& cancel) { forward->run({tokens, {storage.get(), slots}, {}, first, false, plans, 1}, cancel); }
  std::vector<HeadPlan> all(Pattern pattern) const {
    if (pattern == Pattern::kDense) return {};
    return std::vector<HeadPlan>(static_cast<size_t>(model.config.layers * model.config.heads), default_plan(pattern));
  }
};

}  // namespace

TEST("the layers of a chunk are queued without a wait, a read or an allocation") {
  Prompt prompt;
  for (const Pattern pattern : {Pattern::kDense, Pattern::kAdaptive, Pattern::kVerticalSlash, Pattern::kBlockSparse}) {
    for (const int64_t first : {int64_t{0}, kTokens}) prompt.read(first, prompt.all(pattern), CancelToken());
    waits = attentions = 0;
    prompt.read(kTokens, prompt.all(pattern), CancelToken());
    std::printf("  %s: %d layers, %d waits\n", name(pattern), attentions, waits);
    CHECK(attentions == prompt.model.config.layers);
    CHECK(waits == 0);
  }
}

TEST("a chunk stops between two layers") {
  Prompt prompt;
  for (const Pattern pattern : {Pattern::kDense, Pattern::kAdaptive}) {
    attentions = 0;
    stop = CancelToken();
    stop_at = 1;
    CHECK_THROWS(prompt.read(0, prompt.all(pattern), stop), kCancelled);
    stop_at = 0;
    CHECK(attentions == 1 && prompt.model.config.layers > 1);
    prompt.read(0, prompt.all(pattern), CancelToken());
    std::vector<float> logits(static_cast<size_t>(prompt.model.config.vocabulary));
    prompt.forward->logits(kTokens - 1, logits);
    for (const float x : logits) CHECK(std::isfinite(x));
  }
}

TEST_MAIN()
