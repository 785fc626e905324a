// What the recurrent layers of a model keep of one token sequence. Unlike pages it cannot be cut: it is the state behind the last token,
// and on the way there it leaves copies on the host, checkpoints, to which it can go back. Copies of it share states and checkpoints.
//
// Checkpoints lie kSpacing tokens apart, twice as far whenever there would be more than kMostSpaced; beside them, at the ends of the last
// two readings: where the next turn of a conversation goes on, and where its answer is taken back.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace longview {

// The recurrent state behind a sequence's first `length` tokens, as Backend::read_recurrent gives it.
struct Checkpoint {
  int64_t length = 0;
  std::vector<std::byte> bytes;
};

using Checkpoints = std::vector<std::shared_ptr<const Checkpoint>>;

// States of one shape; what is given back is kept for the next who asks. Outlives all of them.
class StatePool {
 public:
  StatePool(Backend& backend, const RecurrentShape& shape) : backend_(backend), shape_(shape) {}

  // With any content. Throws kOutOfMemory.
  std::shared_ptr<RecurrentState> take();
  Backend& backend() { return backend_; }
  int64_t state_bytes() const { return backend_.recurrent_bytes(shape_); }

 private:
  static constexpr size_t kMostSpare = 2;

  Backend& backend_;
  const RecurrentShape shape_;
  std::vector<std::unique_ptr<RecurrentState>> spare_;
};

class Recurrence {
 public:
  static constexpr int64_t kSpacing = 8192, kMostSpaced = 8, kMostEnds = 2;
  // What a context takes at most: its state, the one before it and the next; and copies on the host.
  static constexpr int64_t kMostStates = 3, kMostCheckpoints = kMostSpaced + kMostEnds;

  // `pool`: null for a model without recurrent layers; then nothing is kept, and reached() is not asked for.
  explicit Recurrence(StatePool* pool) : pool_(pool) {}

  // Tokens that the state has seen, or that of the last checkpoint where the sequence was cut.
  int64_t reached() const { return current_ ? at_ : checkpoints_.empty() ? 0 : checkpoints_.back().state->length; }

  // For a chunk behind the first reached() tokens, and for the last of them once more; advance() and replace() count it when it is done.
  RecurrentStates begin();
  RecurrentStates begin_last_again();
  void advance(int64_t tokens);
  void replace() { current_ = std::move(next_); }
  // No state is of more than `length` tokens any more.
  void cut(int64_t length);

  // Whether kSpacing tokens, or what has become of it, lie behind the last checkpoint.
  bool is_due() const { return pool_ && at_ - last_spaced() >= spacing_; }
  // Leaves a checkpoint here, and returns it. `end`: where a reading ends; else one of those that lie apart.
  std::shared_ptr<const Checkpoint> keep(bool end);
  // Goes on behind another's checkpoint, of as many of this sequence's tokens.
  void restore(std::shared_ptr<const Checkpoint> checkpoint);
  Checkpoints checkpoints() const;

 private:
  struct Kept {
    std::shared_ptr<const Checkpoint> state;
    bool end;
  };
  int64_t last_spaced() const;
  void add(Kept kept);

  StatePool* pool_;
  // Never written while they are here: others may share them. previous_ is of one step less, and may be null.
  std::shared_ptr<RecurrentState> current_, previous_, next_;
  int64_t at_ = 0;  // tokens that current_ has seen
  std::vector<Kept> checkpoints_;  // in the order of their lengths
  int64_t spacing_ = kSpacing;
};

}  // namespace longview
