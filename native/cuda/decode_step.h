// The work on one token as a graph, recorded once and launched again for the tokens behind it. What differs from token to token,
// its id and its position, kernels read from device memory; so they do with the page table, whose address stays. The host then
// queues one launch a token instead of hundreds.
#pragma once

#include <functional>

#include "cuda/device.h"

namespace longview::cuda {

class DecodeStep {
 public:
  // What recorded work depends on beside the token: it is recorded anew where one of these changes.
  struct Key {
    const void *caller = nullptr, *storage = nullptr, *ropes[2] = {};  // whose weights and buffers, pages and frequencies
    const void* moving[9] = {};                                        // buffers that grow
    int64_t partial_floats = 0;                                         // of attention, which grow with its parts
    int64_t full_page = -1;                                             // that the token fills, where pages have means
    bool operator==(const Key&) const = default;
  };

  explicit DecodeStep(const Device& device) : device_(device) {}
  ~DecodeStep() { forget(); }
  DecodeStep(const DecodeStep&) = delete;
  DecodeStep& operator=(const DecodeStep&) = delete;

  // What differs from token to token.
  struct State {
    int64_t position;
    int32_t token;
    void* states[2];  // of recurrent layers, before the token and behind it
  };

  // Queues the work on a token, by calling `work` where key() is not what it was when that was last recorded. `work` queues kernels that
  // read token(), position() and states() and depend on nothing else but the key; its buffers may grow meanwhile. What it throws leaves
  // nothing queued.
  void run(const State& state, const std::function<Key()>& key, const std::function<void()>& work);
  // The next run() records: something that the graph refers to is gone.
  void forget() noexcept;

  // On the device. Null where nothing is recorded.
  const int32_t* token() const { return recording_ ? &state_.as<State>()->token : nullptr; }
  const int64_t* position() const { return recording_ ? &state_.as<State>()->position : nullptr; }
  void* const* states() const { return recording_ ? state_.as<State>()->states : nullptr; }

 private:
  void record(const std::function<void()>& work);

  const Device& device_;
  Buffer state_;
  bool recording_ = false;
  kernels::Graph graph_ = nullptr;
  Key key_;  // of graph_
};

}  // namespace longview::cuda
