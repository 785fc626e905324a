#include "engine/memory_plan.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "cache/recurrence.h"
#include "engine/forward.h"

namespace longview {
namespace {

constexpr int64_t kSmallestWindow = 1024, kSmallestChunk = 256;
constexpr int64_t kMostPages = int64_t{1} << 30;

double gigabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

// Tied matrices count once.
int64_t weight_bytes(const Backend& backend, const Weights& weights) {
  int64_t total = 0;
  std::set<const std::byte*> counted;
  const auto add = [&](const TensorView& view, WeightUse use) {
    if (!view.empty() && counted.insert(view.data).second) total += backend.weight_bytes(view, use);
  };
  for (const TensorView* view : {&weights.embedding, &weights.output_norm, &weights.output}) add(*view, WeightUse::kAny);
  for (const LayerWeights& layer : weights.layers) {
    layer.each([&](const TensorView& view) { add(view, WeightUse::kLayerProduct); });  // its vectors stay as they are
    add(layer.router, WeightUse::kAny);
    for (const TensorView* view : {&layer.alpha, &layer.beta}) add(*view, WeightUse::kGates);
    layer.each_expert([&](const TensorView& view) { add(view, WeightUse::kAny); });
  }
  return total;
}

// Of a repository's context and one of a conversation behind it, and on the CPU their checkpoints too: a GPU's lie on the host.
int64_t recurrent_bytes(const Backend& backend, const ModelConfig& config) {
  const RecurrentShape shape = Forward::recurrent_shape(config);
  if (shape.layers == 0) return 0;
  return 2 * (Recurrence::kMostStates + (backend.info().kind == "cpu" ? Recurrence::kMostCheckpoints : 0)) * backend.recurrent_bytes(shape);
}

}  // namespace

MemoryPlan plan_memory(const Backend& backend, const Model& model, const KvShape& kv, const MemoryLimits& limits) {
  const ModelConfig& config = model.config;
  const DeviceInfo device = backend.info();
  MemoryPlan plan;
  plan.weight_bytes = weight_bytes(backend, model.weights);
  plan.page_bytes = backend.kv_page_bytes(kv);
  const int64_t beside = backend.kv_scratch_page_bytes(kv);

  // Room for the window, and half as much for conversations beside the repository's own pages. Of what is free a tenth
  // stays so: other programs, and what allocators round up.
  const int64_t window_pages = pages_of(config.window);
  const int64_t wanted = limits.kv_budget_bytes > 0 ? limits.kv_budget_bytes / plan.page_bytes : window_pages + window_pages / 2 + 16;
  const int64_t least = pages_of(std::min(kSmallestWindow, config.window));
  for (plan.chunk_tokens = limits.chunk_tokens;; plan.chunk_tokens /= 2) {
    plan.workspace_bytes = Forward::workspace_bytes(backend, config, plan.chunk_tokens) + recurrent_bytes(backend, config);
    const int64_t left = device.free_memory_bytes - plan.weight_bytes - plan.workspace_bytes;
    const int64_t affordable = device.free_memory_bytes > 0 ? std::max<int64_t>(left, 0) * 9 / 10 / (plan.page_bytes + beside) : wanted;
    plan.pages = std::min({wanted, affordable, kMostPages});
    // A smaller chunk is slower; it is worth it where the window would suffer.
    const bool cramped = plan.pages < std::min(wanted, window_pages) && plan.workspace_bytes > plan.pages * plan.page_bytes / 8;
    if ((plan.pages >= least && !cramped) || plan.chunk_tokens / 2 < kSmallestChunk) break;
  }
  plan.workspace_bytes += beside * std::max<int64_t>(plan.pages, 0);
  const bool gpu = device.kind == "cuda";
  LONGVIEW_CHECK(plan.pages >= least, kOutOfMemory,
                 "Not enough memory%s for this model: its weights need %.2f GB, the workspace %.2f GB and each 1,000 tokens of context %.2f GB, but %.2f GB are free%s. "
                 "Choose a smaller model%s or close other programs.",
                 gpu ? " on the GPU" : "", gigabytes(plan.weight_bytes), gigabytes(plan.workspace_bytes), gigabytes(plan.page_bytes * 1000 / kPageTokens), gigabytes(device.free_memory_bytes),
                 limits.kv_budget_bytes > 0 ? " and the KV budget is set" : "", gpu ? ", set longview.device to \"cpu\"," : "");
  return plan;
}

KvChoice choose_kv_format(const Backend& backend, const Model& model, KvShape kv, std::optional<KvFormat> wanted, const MemoryLimits& limits) {
  const int64_t window = model.config.window;
  const auto planned = [&](KvFormat format) {
    kv.format = format;
    return plan_memory(backend, model, kv, limits);
  };
  const auto tokens_of = [&](const MemoryPlan& plan) { return std::min(plan.pages * kPageTokens, window); };
  const auto eight_bits = [&](KvFormat format, const std::string& note) {
    KvChoice choice{format, planned(format), note};
    if (tokens_of(choice.plan) < window && kv.head_dim % 4 == 0)
      if (const int64_t more = tokens_of(planned(KvFormat::kQ4)); more > tokens_of(choice.plan)) choice.window_in_4_bits = more;
    return choice;
  };
  if (const std::string why = backend.why_not_e4m3_kv(); wanted == KvFormat::kE4M3 && !why.empty()) return eight_bits(KvFormat::kQ8, why + ": it is kept in q8.");
  if (wanted == KvFormat::kQ8 || wanted == KvFormat::kE4M3) return eight_bits(*wanted, "");
  if (wanted) return {*wanted, planned(*wanted), ""};
  std::optional<MemoryPlan> wide;
  try {
    wide = planned(KvFormat::kBFloat16);
  } catch (const Error& error) {
    if (error.code != ErrorCode::kOutOfMemory) throw;  // not even a small window: q8 takes half
  }
  const int64_t tokens = wide ? tokens_of(*wide) : 0;
  if (tokens == window) return {KvFormat::kBFloat16, *wide, ""};
  KvChoice choice = eight_bits(KvFormat::kQ8, "");
  choice.note = format("The KV state is kept in 8 bits: in bf16 there is room for %lld tokens of the model's %lld, so for %lld.", static_cast<long long>(tokens),
                       static_cast<long long>(window), static_cast<long long>(tokens_of(choice.plan)));
  return choice;
}

}  // namespace longview
