#include "engine/engine.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cache/chain.h"
#include "engine/memory_plan.h"
#include "model/stretch.h"
#include "sparse/adaptive.h"

namespace longview {
namespace {

// A chunk is the unit of progress and of giving way. Large ones pack each weight less often; far into a long prompt
// attention is nearly all of the work and smaller ones answer sooner.
constexpr int64_t kLargeChunk = 1024, kSmallChunk = 512, kLargeChunkEnd = 16384;
constexpr int64_t kFocusChunk = 128;  // whose attention is looked at beside other work

// All that the content of a page depends on beside token ids. `settings` names what changes K and V of a given model.
std::string cache_identity_text(const Model& model, const std::string& layout, const std::string& settings) {
  const RopeConfig& rope = model.config.rope;
  std::string text = model.fingerprint + "|" + layout + "|" + settings + format("|%d %lld %a", static_cast<int>(rope.pairing), static_cast<long long>(rope.dims), rope.attention_scale);
  if (model.config.recurrent.interval > 0) text += format("|recurrent %lld", static_cast<long long>(model.config.recurrent.interval));
  for (const auto* list : {&rope.inverse_frequencies, &rope.long_inverse_frequencies})
    for (const double frequency : *list) text += format(" %a", frequency);
  return text;
}

// By how often guesses are right behind sequences of so many tokens, and what looking at them costs.
int64_t least_quote_of(const Backend& backend, const Weights& weights) {
  double cost = 0, bytes = 0;
  for (const LayerWeights& layer : weights.layers)
    layer.each([&](const TensorView& view) {
      if (view.empty() || view.rows == 1) return;
      cost += static_cast<double>(view.bytes) * backend.few_tokens_cost(view);
      bytes += static_cast<double>(view.bytes);
    });
  return cost <= 1.6 * bytes ? 2 : 3;
}

Model stretched(Model model, int64_t factor) {
  stretch_window(model.config, factor);
  return model;
}

}  // namespace

Context::Context(Engine& engine) : engine_(engine), pages_(*engine.backend_, *engine.pool_, *engine.index_), recurrence_(engine.states_.get()) {}

std::unique_ptr<Context> Context::fork() const {
  auto copy = std::make_unique<Context>(engine_);
  copy->pages_.share(pages_);
  copy->recurrence_ = recurrence_;
  copy->logits_ = logits_;
  copy->choice_ = choice_;
  copy->long_input_ = long_input_;
  copy->budget_ = budget_;
  return copy;
}

void Context::truncate(int64_t length) {
  LONGVIEW_CHECK(length >= 0 && length <= this->length(), kInvalidArgument, "A context of %lld tokens cannot be cut to %lld.",
                 static_cast<long long>(this->length()), static_cast<long long>(length));
  if (length == this->length() && recurrence_.reached() <= length) return;
  pages_.truncate(length);
  recurrence_.cut(length);
  again_.reset();
  forget_next();
}

void Context::forget_next() {
  logits_.clear();
  choice_.reset();
}

Engine::Engine(Model model, const EngineOptions& options) : model_(stretched(std::move(model), options.stretch)), backend_(choose_backend(options.device, model_.config, options.cpu, options.gpu, device_note_)), options_(options) {
  LONGVIEW_CHECK(options.chunk_tokens >= 0 && options.chunk_tokens <= 1 << 16, kInvalidArgument, "Chunks of %lld tokens were asked for; 0 lets the engine choose.", static_cast<long long>(options.chunk_tokens));
  LONGVIEW_CHECK(options.kv_budget_bytes >= 0, kInvalidArgument, "The KV budget must not be negative.");
  const ModelConfig& config = model_.config;
  const auto note = [&](const std::string& sentence) {
    if (!sentence.empty()) device_note_ += (device_note_.empty() ? "" : " ") + sentence;
  };
  note(config.note);
  KvShape kv{config.attention_layers(), config.kv_heads, config.head_dim};
  prefill_ = std::make_unique<PrefillPlan>(options.prefill, ProfiledModel{model_.fingerprint, config.attention_layers(), config.heads, backend_->info().kind}, backend_->sparse_from());
  note(prefill_->note());
  if (!prefill_->dense() && config.sees_all()) kv.mean_tokens = backend_->sparse_block_tokens(kv);
  if (!prefill_->dense() && kv.mean_tokens == 0) {
    prefill_ = std::make_unique<PrefillPlan>(PrefillOptions{}, ProfiledModel{}, 0);
    note("Sparse reading is not there for this model on this device: it is read densely.");
  }
  const auto chunk = [&](bool sparse) { return options.chunk_tokens > 0 ? options.chunk_tokens : backend_->preferred_chunk_tokens(sparse); };
  dense_chunk_ = chunk(false), sparse_chunk_ = chunk(!prefill_->dense());
  const KvChoice choice = choose_kv_format(*backend_, model_, kv, options.kv_format, {options.kv_budget_bytes, std::max({dense_chunk_, sparse_chunk_, kLargeChunk})});
  const MemoryPlan& plan = choice.plan;
  kv.format = choice.format;
  note(choice.note);
  largest_chunk_ = plan.chunk_tokens;
  window_ = std::min(config.window, plan.pages * kPageTokens);
  window_in_4_bits_ = choice.window_in_4_bits;
  counters_.layers.resize(static_cast<size_t>(config.attention_layers() - 1));
  pool_ = std::make_unique<PagePool>(*backend_, kv, plan.pages);
  if (const RecurrentShape shape = Forward::recurrent_shape(config); shape.layers > 0) states_ = std::make_unique<StatePool>(*backend_, shape);
  root_ = chain_root(cache_identity_text(model_, pool_->storage().layout(), prefill_->identity() + backend_->info().arithmetic));
  index_ = std::make_unique<PrefixIndex>(*pool_, root_);
  forward_ = std::make_unique<Forward>(*backend_, model_, kv, plan.chunk_tokens, options.on_load);
  options_.on_load = {};  // what it holds need not live as long
  least_quote_ = least_quote_of(*backend_, model_.weights);
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

int64_t Engine::chunk_at(int64_t position, bool sparse) const {
  if (const int64_t chosen = sparse ? sparse_chunk_ : dense_chunk_; chosen > 0) return std::min(largest_chunk_, chosen);
  return std::min(largest_chunk_, sparse || position < kLargeChunkEnd ? kLargeChunk : kSmallChunk);
}

void Engine::pass(Context& context, std::span<const int32_t> tokens, int64_t results, const CancelToken& cancel, bool sparse) {
  cancel.throw_if_cancelled();
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<HeadPlan> plans = sparse && prefill_->applies(context.length(), count) ? context.budget_.apply(prefill_->heads()) : std::vector<HeadPlan>{};
  for (HeadPlan& plan : plans) plan = sparse::at_length(plan, context.length() + count, kv_shape().mean_tokens);
  context.pages_.reserve(count);
  context.forget_next();
  try {
    const RecurrentStates states = context.recurrence_.begin();
    forward_->run({tokens, context.pages_.view(), states, context.length(), context.long_input_, plans, results}, cancel);
    if (sparse) count_coverage(context, count, !plans.empty());
  } catch (...) {
    context.pages_.truncate(context.length());  // gives reserved pages back
    if (!plans.empty() || observed_) drop_coverage();  // who observes may have tried some
    throw;
  }
}

void Engine::run(Context& context, std::span<const int32_t> tokens, int64_t results, Next next, const CancelToken& cancel, bool sparse) {
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<float> logits(next == Next::kLogits ? static_cast<size_t>(model_.config.vocabulary) : 0);  // the context's when they are there
  pass(context, tokens, results, cancel, sparse);
  context.pages_.advance(tokens);
  context.recurrence_.advance(count);
  if (next == Next::kChoice) context.choice_ = forward_->choice(count - 1);
  if (next == Next::kLogits) {
    forward_->logits(count - 1, logits);
    context.logits_.swap(logits);
  }
}

// What a chunk counted before it was stopped is no part of the next one.
void Engine::drop_coverage() noexcept {
  try {
    std::vector<HeadCoverage> heads(static_cast<size_t>(kv_shape().layers * model_.config.heads));
    backend_->take_coverage(heads);
  } catch (const std::exception&) {
    // The device failed: whoever stopped the chunk says so.
  }
}

// What the chunk of `count` tokens behind the context visited.
void Engine::count_coverage(Context& context, int64_t count, bool sparse) {
  const ModelConfig& config = model_.config;
  if (!sparse) {
    const double keys = static_cast<double>(config.heads) * static_cast<double>(count) * (static_cast<double>(context.length()) + static_cast<double>(count + 1) / 2);
    for (size_t i = 0; i < counters_.layers.size(); ++i) {
      if (config.span(static_cast<int64_t>(i)) > 0) continue;  // nothing is left out of what it sees
      counters_.layers[i] += {keys, keys, 0, 0};
      counters_.coverage += {keys, keys, 0, 0};
    }
    return;
  }
  std::vector<HeadCoverage> heads(static_cast<size_t>(kv_shape().layers * config.heads));
  backend_->take_coverage(heads);
  context.budget_.update(heads, prefill_->target_mass());
  // Probes that are not finite have found nothing; counters keep their sums for good.
  for (HeadCoverage& head : heads)
    if (!std::isfinite(head.covered)) head.covered = 0;
  for (size_t i = 0; i < counters_.layers.size() * static_cast<size_t>(config.heads); ++i) {
    counters_.coverage += heads[i];
    counters_.layers[i / static_cast<size_t>(config.heads)] += heads[i];
  }
}

// Whether pages of other contexts can follow, for an input of `end` tokens; an empty context is made ready for them.
bool Engine::begin_for(Context& context, int64_t end) const {
  const bool long_input = is_long(end);
  if (long_input == context.long_input_) return true;
  if (context.length() > 0) return false;
  context.long_input_ = long_input;
  context.pages_.start_at(start_of(long_input));
  return true;
}

// LongRoPE goes by the length of the whole input, `end` tokens: where that changes the frequencies, what the context holds
// (no more than the short window) is computed again, its logits too where it has some. Throws with the context as it was.
void Engine::choose_frequencies(Context& context, int64_t end, const CancelToken& cancel) {
  const bool long_input = is_long(end);
  if (long_input == context.long_input_) return;
  Context again(*this);
  again.long_input_ = long_input;
  again.pages_.start_at(start_of(long_input));
  if (context.pages_.keeps_own()) again.pages_.keep_own();
  const Next next = !context.logits_.empty() ? Next::kLogits : context.choice_ ? Next::kChoice : Next::kNothing;
  for (std::span<const int32_t> left = context.tokens(); !left.empty();) {
    const size_t count = std::min(left.size(), static_cast<size_t>(chunk_at(again.length())));
    run(again, left.first(count), count == left.size() && next != Next::kNothing ? 1 : 0, count == left.size() ? next : Next::kNothing, cancel);
    counters_.prefilled_tokens += static_cast<int64_t>(count);
    left = left.subspan(count);
  }
  context.pages_.swap(again.pages_);
  context.logits_ = std::move(again.logits_);
  context.choice_ = again.choice_;
  context.long_input_ = long_input;
}

void Engine::check_room(const Context& context, std::span<const int32_t> tokens) const {
  const int64_t needed = context.pages_.pages_for(static_cast<int64_t>(tokens.size()));
  const int64_t available = pool_->capacity() - pool_->used() + index_->reclaimable();
  const auto gigabytes = [&](int64_t pages) { return static_cast<double>(pages * pool_->page_bytes()) / 1e9; };
  LONGVIEW_CHECK(needed <= available, kOutOfMemory,
                 "The KV state of %lld more tokens needs %.2f GB, and %.2f of %.2f GB are free: the rest is in use by other conversations. Begin a new one, or leave out files.",
                 static_cast<long long>(tokens.size()), gigabytes(needed), gigabytes(available), gigabytes(pool_->capacity()));
}

int64_t Engine::adopt(Context& context, std::span<const int32_t> tokens) {
  if (!begin_for(context, context.length() + static_cast<int64_t>(tokens.size()))) return 0;
  const int64_t before = context.length(), covered = context.pages_.adopt(tokens);
  if (covered == 0) return 0;
  context.forget_next();
  settle(context, before);
  return context.length() - before;
}

int64_t Engine::prefill_chunk(Context& context, std::span<const int32_t> tokens, const CancelToken& cancel, bool sparse) {
  const auto total = static_cast<int64_t>(tokens.size());
  choose_frequencies(context, context.length() + total, cancel);
  if (catch_up(context, cancel)) return 0;
  int64_t count = std::min(total, chunk_at(context.length(), (sparse || observed_) && !prefill_->dense()));
  const bool last = count == total;
  // Where a page ends others find a checkpoint.
  if (const int64_t behind = (context.length() + count) % kPageTokens; states_ && !last && behind < count) count -= behind;
  run(context, tokens.first(static_cast<size_t>(count)), last ? 1 : 0, last ? Next::kLogits : Next::kNothing, cancel, sparse);
  keep_checkpoint(context, last);
  counters_.prefilled_tokens += count;
  return count;
}

void Engine::prefill(Context& context, std::span<const int32_t> tokens, const CancelToken& cancel, bool sparse) {
  check_tokens(context, tokens);
  while (!tokens.empty()) tokens = tokens.subspan(static_cast<size_t>(prefill_chunk(context, tokens, cancel, sparse)));
}

void Engine::decode(Context& context, int32_t token, const CancelToken& cancel, Next next) {
  check_tokens(context, {&token, 1});
  choose_frequencies(context, context.length() + 1, cancel);
  while (catch_up(context, cancel)) continue;
  run(context, {&token, 1}, 1, next, cancel);
  ++counters_.decoded_tokens;
}

int64_t Engine::guesses_at(const Context& context) const {
  if (states_) return 0;                    // what recurrent layers have seen they cannot unsee
  if (model_.config.experts > 0) return 0;  // tokens have experts of their own, whose weights cost each of them as much as alone
  const int64_t length = context.length();
  int64_t end = std::min(window_, (length / kPageTokens + 1) * kPageTokens);
  if (const int64_t short_window = model_.config.rope.short_window; length < short_window) end = std::min(end, short_window);
  return std::clamp<int64_t>(end - length - 1, 0, std::min(Forward::kMostRows, largest_chunk_) - 1);
}

Engine::Decoded Engine::decode(Context& context, int32_t token, std::span<const int32_t> guesses, Sampler& sampler, const CancelToken& cancel) {
  LONGVIEW_CHECK(static_cast<int64_t>(guesses.size()) <= guesses_at(context), kInvalidArgument, "%zu tokens are more than may be guessed here.", guesses.size());
  std::vector<int32_t> tokens{token};
  tokens.insert(tokens.end(), guesses.begin(), guesses.end());
  const auto count = static_cast<int64_t>(tokens.size());
  check_tokens(context, tokens);
  choose_frequencies(context, context.length() + 1, cancel);
  while (catch_up(context, cancel)) continue;
  pass(context, tokens, count, cancel);
  context.pages_.advance({&token, 1});
  context.recurrence_.advance(1);
  ++counters_.decoded_tokens;

  forward_->make_logits(0, count);
  Drawn drawn{};
  int64_t right = -1;
  do {
    ++right;
    if (sampler.greedy()) drawn.largest = drawn.token = forward_->largest(right);
    else drawn = forward_->draw(right, sampler.sampling(), sampler.random());
  } while (right + 1 < count && drawn.token == tokens[static_cast<size_t>(right + 1)]);
  context.pages_.advance(guesses.first(static_cast<size_t>(right)));
  counters_.decoded_tokens += right;
  counters_.guessed_tokens += right;
  context.choice_ = drawn.largest;
  return {right, drawn.token};
}

void Engine::complete_logits(Context& context) {
  if (!context.choice_) return;
  std::vector<float> logits(static_cast<size_t>(model_.config.vocabulary));
  context.pages_.own_last();  // the token is written once more, in its place: what fails leaves the context as before
  struct Entered {
    PageList& pages;
    ~Entered() { pages.advance({}); }
  } entered{context.pages_};
  const int32_t last = context.tokens().back();
  const RecurrentStates states = context.recurrence_.begin_last_again();
  forward_->run({{&last, 1}, context.pages_.view(), states, context.length() - 1, context.long_input_, {}, 1}, CancelToken());
  forward_->logits(0, logits);
  context.recurrence_.replace();
  context.forget_next();
  context.logits_.swap(logits);
}

int64_t Engine::score_chunk(Context& context, std::span<const int32_t> tokens, std::span<TokenScore> scores, const CancelToken& cancel) {
  check_tokens(context, tokens);
  LONGVIEW_CHECK(scores.size() >= tokens.size(), kInternal, "%zu tokens cannot be scored in room for %zu.", tokens.size(), scores.size());
  if (tokens.empty()) return 0;
  complete_logits(context);
  LONGVIEW_CHECK(!context.logits().empty(), kInvalidArgument, "The first token to score follows nothing: extend the context first.");
  choose_frequencies(context, context.length() + static_cast<int64_t>(tokens.size()), cancel);
  const int64_t before = context.length();
  const int64_t count = std::min(static_cast<int64_t>(tokens.size()), chunk_at(before));
  scores[0] = score_token(context.logits(), tokens[0]);
  run(context, tokens.first(static_cast<size_t>(count)), count, Next::kLogits, cancel);
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

int64_t Engine::focus_chunk(Context& context, std::span<const int32_t> tokens, std::span<float> focus, const CancelToken& cancel) {
  check_tokens(context, tokens);
  const auto keys = static_cast<int64_t>(focus.size());
  LONGVIEW_CHECK(keys <= context.length() && !tokens.empty(), kInvalidArgument, "Where tokens look is known of those before them alone.");
  const size_t count = std::min(tokens.size(), static_cast<size_t>(std::min(kFocusChunk, largest_chunk_)));
  while (catch_up(context, cancel)) continue;
  std::vector<float> added(focus.size());
  bool told = true;
  forward_->observe([&](const Forward::Attention& a) {
    if (told && a.layer.span == 0 && a.layer.index >= kv_shape().layers / 2) told = backend_->add_focus(a.q, kv_shape(), model_.config.heads, a.layer, a.pages, a.first_position, keys);
  });
  try {
    run(context, tokens.first(count), 0, Next::kNothing, cancel);
  } catch (...) {
    forward_->observe({});
    backend_->take_focus(added);  // no part of the next one
    throw;
  }
  forward_->observe({});
  if (!told) return 0;
  backend_->take_focus(added);
  for (size_t i = 0; i < focus.size(); ++i) focus[i] += added[i];
  return static_cast<int64_t>(count);
}

void Engine::read_page(const Context& context, int64_t number, std::span<std::byte> out) {
  const std::span<const int32_t> slots = context.pages_.view().page_slots;
  LONGVIEW_CHECK(number >= 0 && number < static_cast<int64_t>(slots.size()), kInvalidArgument, "The context has no page %lld.", static_cast<long long>(number));
  backend_->read_page(pool_->storage(), slots[static_cast<size_t>(number)], out);
}

CacheIdentity Engine::cache_identity(const Context& context) const {
  return {context.long_input_ ? chain_root(format("%llx long", static_cast<unsigned long long>(root_))) : root_, pool_->page_bytes()};
}

std::unique_ptr<PageStream> Engine::open_stream(Context& context, std::span<const int32_t> tokens, const std::string& folder) const {
  if (!begin_for(context, context.length() + static_cast<int64_t>(tokens.size()))) return nullptr;
  std::vector<int32_t> all(context.tokens().begin(), context.tokens().end());
  all.insert(all.end(), tokens.begin(), tokens.end());
  return std::make_unique<PageStream>(folder, cache_identity(context), all, context.length() / kPageTokens);
}

bool Engine::load_page(Context& context, PageStream& stream) {
  if (stream.finished() || stream.end() <= context.length() || !stream.follows(context.tokens())) return false;
  const PageStream::Page* page = stream.next(std::chrono::milliseconds(5));
  if (!page) return true;
  context.forget_next();
  context.pages_.truncate(context.length() / kPageTokens * kPageTokens);  // a ragged tail: the page holds it and more
  try {
    context.pages_.reserve(static_cast<int64_t>(page->tokens.size()));
    backend_->write_page(pool_->storage(), context.pages_.view().page_slots.back(), page->bytes);
  } catch (...) {
    context.truncate(context.length());
    throw;
  }
  context.pages_.advance(page->tokens);
  stream.pop();
  return true;
}

std::vector<float> Engine::all_logits(Context& context, std::span<const int32_t> tokens) {
  check_tokens(context, tokens);
  choose_frequencies(context, context.length() + static_cast<int64_t>(tokens.size()), CancelToken());
  while (catch_up(context, CancelToken())) continue;
  const auto vocabulary = static_cast<size_t>(model_.config.vocabulary);
  std::vector<float> all(tokens.size() * vocabulary);
  for (size_t done = 0; done < tokens.size();) {
    const size_t count = std::min(tokens.size() - done, static_cast<size_t>(chunk_at(context.length())));
    run(context, tokens.subspan(done, count), static_cast<int64_t>(count), Next::kNothing, CancelToken());
    for (size_t i = 0; i < count; ++i) forward_->logits(static_cast<int64_t>(i), std::span(all).subspan((done + i) * vocabulary, vocabulary));
    done += count;
  }
  return all;
}

}  // namespace longview
