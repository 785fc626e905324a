// What an engine does for the recurrent layers of a model, whose state cannot be cut as pages can (cache/recurrence.h).
#include <algorithm>

#include "engine/engine.h"

namespace longview {

int64_t Engine::behind(const Context& context) const {
  if (!states_) return 0;
  return context.length() - (context.again_ ? *context.again_ : context).recurrence_.reached();
}

bool Engine::catch_up(Context& context, const CancelToken& cancel) {
  if (!states_ || context.recurrence_.reached() == context.length()) return false;
  if (!context.again_) {
    context.again_ = context.fork();
    context.again_->pages_.truncate(context.recurrence_.reached());
  }
  Context& again = *context.again_;
  const std::span<const int32_t> left = context.tokens().subspan(static_cast<size_t>(again.length()));
  const size_t count = std::min(left.size(), static_cast<size_t>(chunk_at(again.length())));
  run(again, left.first(count), 0, Next::kNothing, cancel);
  keep_checkpoint(again, false);
  counters_.prefilled_tokens += static_cast<int64_t>(count);
  if (again.length() < context.length()) return true;
  context.pages_.swap(again.pages_);
  context.recurrence_ = again.recurrence_;
  context.again_.reset();
  return true;
}

void Engine::keep_checkpoint(Context& context, bool end) {
  if (!states_ || !(end || (context.length() % kPageTokens == 0 && context.recurrence_.is_due()))) return;
  if (const auto checkpoint = context.recurrence_.keep(end)) context.pages_.attach(checkpoint);
}

void Engine::settle(Context& context, int64_t least) {
  if (!states_) return;
  const auto known = context.pages_.last_checkpoint();
  if (known && known->length > context.recurrence_.reached()) context.recurrence_.restore(known);
  if (const int64_t reached = std::max(context.recurrence_.reached(), least); reached < context.length()) context.truncate(reached);
}

Checkpoints Engine::checkpoints(Context& context) {
  if (states_ && context.recurrence_.reached() == context.length()) keep_checkpoint(context, true);
  return context.recurrence_.checkpoints();
}

bool Engine::load_checkpoints(Context& context, const std::string& folder, int64_t least) {
  if (!states_) return false;
  const ReadCheckpoints read = read_checkpoints(folder, cache_identity(context), context.tokens(), context.recurrence_.reached(), states_->state_bytes());
  for (const auto& checkpoint : read.checkpoints) {
    context.recurrence_.restore(checkpoint);
    context.pages_.attach(checkpoint);
  }
  settle(context, least);
  return read.damaged;
}

}  // namespace longview
