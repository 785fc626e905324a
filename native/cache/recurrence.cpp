#include "cache/recurrence.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace longview {

std::shared_ptr<RecurrentState> StatePool::take() {
  std::unique_ptr<RecurrentState> state;
  if (spare_.empty()) {
    state = backend_.allocate_recurrent(shape_);
    spare_.reserve(kMostSpare);  // giving back needs no memory
  } else {
    state = std::move(spare_.back());
    spare_.pop_back();
  }
  return {state.release(), [this](RecurrentState* done) {
            std::unique_ptr<RecurrentState> owned(done);
            if (spare_.size() < kMostSpare) spare_.push_back(std::move(owned));
          }};
}

RecurrentStates Recurrence::begin() {
  if (!pool_) return {};
  if (!current_) {
    auto state = pool_->take();
    if (checkpoints_.empty()) pool_->backend().clear_recurrent(*state);
    else pool_->backend().write_recurrent(*state, checkpoints_.back().state->bytes);
    at_ = reached();
    current_ = std::move(state);
  }
  // The state before the last step gives way to the next.
  if (next_.use_count() != 1) next_ = previous_.use_count() == 1 ? std::move(previous_) : pool_->take();
  previous_.reset();
  return {current_.get(), next_.get()};
}

RecurrentStates Recurrence::begin_last_again() {
  if (!pool_) return {};
  LONGVIEW_CHECK(previous_, kInternal, "the state before the last token is gone");
  next_ = pool_->take();
  return {previous_.get(), next_.get()};
}

void Recurrence::advance(int64_t tokens) {
  if (!pool_) return;
  previous_ = std::exchange(current_, std::move(next_));
  at_ += tokens;
}

void Recurrence::cut(int64_t length) {
  while (!checkpoints_.empty() && checkpoints_.back().state->length > length) checkpoints_.pop_back();
  if (!current_ || at_ <= length) return;
  current_.reset();
  previous_.reset();
}

int64_t Recurrence::last_spaced() const {
  const auto last = std::find_if(checkpoints_.rbegin(), checkpoints_.rend(), [](const Kept& kept) { return !kept.end; });
  return last == checkpoints_.rend() ? 0 : last->state->length;
}

std::shared_ptr<const Checkpoint> Recurrence::keep(bool end) {
  if (!pool_ || !current_) return nullptr;
  if (!checkpoints_.empty() && checkpoints_.back().state->length == at_) return checkpoints_.back().state;
  auto checkpoint = std::make_shared<Checkpoint>();
  checkpoint->length = at_;
  checkpoint->bytes.resize(static_cast<size_t>(pool_->state_bytes()));
  pool_->backend().read_recurrent(*current_, checkpoint->bytes);
  add({checkpoint, end});
  return checkpoint;
}

void Recurrence::add(Kept kept) {
  const bool end = kept.end;
  checkpoints_.push_back(std::move(kept));
  const auto count = std::ranges::count(checkpoints_, end, &Kept::end);
  if (count <= (end ? kMostEnds : kMostSpaced)) return;
  if (end) {
    checkpoints_.erase(std::ranges::find(checkpoints_, true, &Kept::end));
    return;
  }
  spacing_ *= 2;
  bool odd = true;  // every other one goes, but not the last
  std::erase_if(checkpoints_, [&](const Kept& one) { return !one.end && (odd = !odd); });
}

void Recurrence::restore(std::shared_ptr<const Checkpoint> checkpoint) {
  cut(checkpoint->length);
  current_.reset();
  previous_.reset();
  if (!checkpoints_.empty() && checkpoints_.back().state->length == checkpoint->length) return;
  const int64_t length = checkpoint->length;
  add({std::move(checkpoint), length % kPageTokens != 0});
}

Checkpoints Recurrence::checkpoints() const {
  Checkpoints out;
  for (const Kept& kept : checkpoints_) out.push_back(kept.state);
  return out;
}

}  // namespace longview
