#include "engine/generation.h"

#include <algorithm>

#include "base/error.h"

namespace longview {

Generation::Generation(GenerationOptions options) : sampler_(options.sampling), stops_(std::move(options.stops)), most_tokens_(options.most_tokens), looks_up_(options.looks_up) {}

std::optional<Generation::Finish> Generation::step(Engine& engine, Context& context, const CancelToken& cancel, const OnToken& on_token) {
  cancel.throw_if_cancelled();
  if (!next_) {
    if (!sampler_.greedy()) engine.complete_logits(context);
    LONGVIEW_CHECK(context.choice().has_value(), kInvalidArgument, "Nothing was read before this answer: extend the context first.");
    next_ = sampler_.greedy() ? *context.choice() : sampler_.choose(context.logits());
  }
  const bool all = count_ >= most_tokens_;
  if (all || context.length() >= engine.window()) {
    stops_.finish();
    release(context.length(), on_token);
    return all ? Finish::kLength : Finish::kWindow;
  }
  const auto stop = [&](int64_t length) {
    // Of the sequence all but its last token is in the context, and maybe more that was guessed.
    context.truncate(length - (stops_.held() - 1));
    return Finish::kStop;
  };
  if (take(*next_, context.length(), on_token)) return stop(context.length());
  const std::vector<int32_t> guessed = guesses(engine, context);
  const Engine::Decoded decoded = engine.decode(context, *next_, guessed, sampler_, cancel);
  next_ = decoded.next;
  if (!guessed.empty()) lookup_.learn(decoded.right);
  for (int64_t i = 0, first = context.length() - decoded.right; i < decoded.right; ++i)
    if (take(guessed[static_cast<size_t>(i)], first + i, on_token)) return stop(first + i);
  return std::nullopt;
}

bool Generation::take(int32_t token, int64_t length, const OnToken& on_token) {
  ++count_;
  const bool stop = stops_.push(token);
  release(length, on_token);
  return stop;
}

void Generation::release(int64_t length, const OnToken& on_token) {
  for (int32_t certain; stops_.release(certain);) on_token(certain, length);
}

std::vector<int32_t> Generation::guesses(const Engine& engine, const Context& context) {
  const int64_t most = std::min(engine.guesses_at(context), most_tokens_ - count_);
  if (!looks_up_ || most == 0) return {};
  const std::span<const int32_t> found = lookup_.guess(context.tokens(), *next_, engine.least_quote(), most);
  return {found.begin(), std::find_if(found.begin(), found.end(), [&](int32_t token) { return stops_.ends_alone(token); })};
}

}  // namespace longview
