// An answer on its way: chooses tokens behind a context until a stop sequence, a limit or the end of the window.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/cancel.h"
#include "engine/engine.h"
#include "engine/prompt_lookup.h"
#include "engine/sampler.h"
#include "engine/stop_sequences.h"

namespace longview {

struct GenerationOptions {
  Sampling sampling = {};
  std::vector<std::vector<int32_t>> stops = {};  // token sequences that end the answer and are no part of it
  int64_t most_tokens = 256;
  bool looks_up = true;  // guesses by PromptLookup; without it each token is a pass of its own
};

class Generation {
 public:
  enum class Finish { kStop, kLength, kWindow };
  // Called for each token that belongs to the answer for certain; `length`: tokens of the context before the last that was chosen.
  using OnToken = std::function<void(int32_t token, int64_t length)>;

  // Throws kInvalidArgument where sampling is out of range.
  explicit Generation(GenerationOptions options);

  // One pass of the model, which may give several tokens. Returns why the answer ended; none while it goes on. The context must have been
  // read to its end, and be the same for all steps; a step that fails or is cancelled keeps what earlier ones have put into it.
  std::optional<Finish> step(Engine& engine, Context& context, const CancelToken& cancel, const OnToken& on_token);

 private:
  // Takes the next token, behind `length` of the context. True where it ends the answer.
  bool take(int32_t token, int64_t length, const OnToken& on_token);
  void release(int64_t length, const OnToken& on_token);
  // What may follow the context and next_: no token that ends the answer by itself, none beyond its limit.
  std::vector<int32_t> guesses(const Engine& engine, const Context& context);

  Sampler sampler_;
  StopSequences stops_;
  const int64_t most_tokens_;
  const bool looks_up_;
  PromptLookup lookup_;
  std::optional<int32_t> next_;  // behind the context
  int64_t count_ = 0;            // tokens taken
};

}  // namespace longview
