#include "engine/engine.h"

#include <algorithm>

#include "base/error.h"

namespace longview {
namespace {

// A chunk is the unit of progress and of giving way. Large ones pack each weight less often; far into a long prompt
// attention is nearly all of the work and smaller ones answer sooner.
constexpr int64_t kLargeChunk = 1024, kSmallChunk = 512, kLargeChunkEnd = 16384;
constexpr int64_t kSmallestWindow = 1024;

double gigabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

}  // namespace

Context::Context(Engine& engine) : engine_(engine), pages_(*engine.backend_, *engine.pool_) {}

std::unique_ptr<Context> Context::fork() const {
  auto copy = std::make_unique<Context>(engine_);
  copy->pages_.share(pages_);
  copy->logits_ = logits_;
  return copy;
}

void Context::truncate(int64_t length) {
  LONGVIEW_CHECK(length >= 0 && length <= this->length(), kInvalidArgument, "A context of %lld tokens cannot be cut to %lld.",
                 static_cast<long long>(this->length()), static_cast<long long>(length));
  if (length == this->length()) return;
  pages_.truncate(length);
  logits_.clear();
}

Engine::Engine(Model model, const EngineOptions& options) : model_(std::move(model)), backend_(choose_backend(options.device, model_.config, options.cpu, device_note_)), options_(options) {
  LONGVIEW_CHECK(options.chunk_tokens >= 0 && options.chunk_tokens <= 1 << 16, kInvalidArgument, "Chunks of %lld tokens were asked for; 0 lets the engine choose.", static_cast<long long>(options.chunk_tokens));
  LONGVIEW_CHECK(options.kv_budget_bytes >= 0, kInvalidArgument, "The KV budget must not be negative.");
  if (options_.chunk_tokens == 0) options_.chunk_tokens = backend_->preferred_chunk_tokens();
  const ModelConfig& config = model_.config;
  const int64_t element = options.kv_format == KvFormat::kFloat32 ? 4 : 2;
  const int64_t page_bytes = 2 * config.layers * config.kv_dim() * element * kPageTokens;
  const int64_t chunk = std::max(options_.chunk_tokens, kLargeChunk);
  const int64_t workspace = Forward::workspace_bytes(config, chunk);
  const int64_t free = backend_->info().free_memory_bytes;

  // Room for the window, and half as much for conversations beside the repository's own pages; weights are mapped and the
  // system can drop them, but without them in memory nothing is fast.
  const int64_t window_pages = (config.window + kPageTokens - 1) / kPageTokens;
  const int64_t left = free - model_.weight_bytes - workspace;
  const int64_t wanted = options.kv_budget_bytes > 0 ? options.kv_budget_bytes / page_bytes : window_pages + window_pages / 2 + 16;
  const int64_t affordable = free > 0 ? std::max<int64_t>(left, 0) * 9 / 10 / page_bytes : wanted;
  const int64_t pages = std::min({wanted, affordable, int64_t{1} << 30});
  LONGVIEW_CHECK(pages * kPageTokens >= std::min(kSmallestWindow, config.window), kOutOfMemory,
                 "Not enough memory for this model: its weights need %.2f GB, the workspace %.2f GB and each 1,000 tokens of context %.2f GB, but %.2f GB are free%s. "
                 "Choose a smaller model or close other programs.",
                 gigabytes(model_.weight_bytes), gigabytes(workspace), gigabytes(page_bytes * 1000 / kPageTokens), gigabytes(free),
                 options.kv_budget_bytes > 0 ? " and the KV budget is set" : "");
  window_ = std::min(config.window, pages * kPageTokens);
  pool_ = std::make_unique<PagePool>(*backend_, KvShape{config.layers, config.kv_heads, config.head_dim, options.kv_format}, pages);
  forward_ = std::make_unique<Forward>(*backend_, model_, options.kv_format, chunk);
}

DeviceInfo Engine::device() const {
  DeviceInfo info = backend_->info();
  info.note = device_note_;
  return info;
}

void Engine::check_tokens(const Context& context, std::span<const int32_t> tokens) const {
  for (const int32_t token : tokens)
    LONGVIEW_CHECK(token >= 0 && token < model_.config.vocabulary, kInvalidArgument, "Token %d is outside the model's vocabulary of %lld.", token, static_cast<long long>(model_.config.vocabulary));
  const int64_t end = context.length() + static_cast<int64_t>(tokens.size());
  LONGVIEW_CHECK(end <= window_, kWindowExceeded, "The prompt has %lld tokens; this model and machine hold %lld. Leave out files or choose a model with a larger window.",
                 static_cast<long long>(end), static_cast<long long>(window_));
}

int64_t Engine::chunk_at(int64_t position) const {
  if (options_.chunk_tokens > 0) return options_.chunk_tokens;
  return position < kLargeChunkEnd ? kLargeChunk : kSmallChunk;
}

void Engine::run(Context& context, std::span<const int32_t> tokens, bool want_logits, const CancelToken& cancel) {
  cancel.throw_if_cancelled();
  const auto count = static_cast<int64_t>(tokens.size());
  context.pages_.reserve(count);
  context.logits_.clear();
  try {
    forward_->run(tokens, context.pages_.view(), context.length(), cancel);
  } catch (...) {
    context.pages_.truncate(context.length());  // gives reserved pages back
    throw;
  }
  context.pages_.advance(count);
  if (want_logits) {
    context.logits_.resize(static_cast<size_t>(model_.config.vocabulary));
    forward_->logits(count - 1, context.logits_);
  }
}

int64_t Engine::prefill_chunk(Context& context, std::span<const int32_t> tokens, const CancelToken& cancel) {
  const auto total = static_cast<int64_t>(tokens.size());
  const int64_t count = std::min(total, chunk_at(context.length()));
  run(context, tokens.first(static_cast<size_t>(count)), count == total, cancel);
  counters_.prefilled_tokens += count;
  return count;
}

void Engine::prefill(Context& context, std::span<const int32_t> tokens, const CancelToken& cancel) {
  check_tokens(context, tokens);
  while (!tokens.empty()) tokens = tokens.subspan(static_cast<size_t>(prefill_chunk(context, tokens, cancel)));
}

void Engine::decode(Context& context, int32_t token, const CancelToken& cancel) {
  check_tokens(context, {&token, 1});
  run(context, {&token, 1}, true, cancel);
  ++counters_.decoded_tokens;
}

int64_t Engine::score_chunk(Context& context, std::span<const int32_t> tokens, std::span<TokenScore> scores, const CancelToken& cancel) {
  check_tokens(context, tokens);
  LONGVIEW_CHECK(scores.size() >= tokens.size(), kInternal, "%zu tokens cannot be scored in room for %zu.", tokens.size(), scores.size());
  if (tokens.empty()) return 0;
  LONGVIEW_CHECK(!context.logits().empty(), kInvalidArgument, "The first token to score follows nothing: extend the context first.");
  const int64_t before = context.length();
  const int64_t count = std::min(static_cast<int64_t>(tokens.size()), chunk_at(before));
  scores[0] = score_token(context.logits(), tokens[0]);
  run(context, tokens.first(static_cast<size_t>(count)), true, cancel);
  try {
    forward_->each_logits(count - 1, cancel, [&](int64_t row, std::span<const float> logits) {
      const auto next = static_cast<size_t>(row + 1);
      scores[next] = score_token(logits, tokens[next]);
    });
  } catch (...) {
    context.truncate(before);
    throw;
  }
  counters_.prefilled_tokens += count;
  return count;
}

std::vector<float> Engine::all_logits(Context& context, std::span<const int32_t> tokens) {
  check_tokens(context, tokens);
  const auto vocabulary = static_cast<size_t>(model_.config.vocabulary);
  std::vector<float> all(tokens.size() * vocabulary);
  for (size_t done = 0; done < tokens.size();) {
    const size_t count = std::min(tokens.size() - done, static_cast<size_t>(chunk_at(context.length())));
    run(context, tokens.subspan(done, count), false, CancelToken());
    for (size_t i = 0; i < count; ++i) forward_->logits(static_cast<int64_t>(i), std::span(all).subspan((done + i) * vocabulary, vocabulary));
    done += count;
  }
  return all;
}

}  // namespace longview
