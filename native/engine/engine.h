// A loaded model on a device, and the contexts that hold its KV state. Not thread-safe: one thread owns an engine and
// everything made by it.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/argmax.h"
#include "base/cancel.h"
#include "cache/cache_file.h"
#include "cache/checkpoint_file.h"
#include "cache/page_list.h"
#include "cache/page_stream.h"
#include "engine/forward.h"
#include "engine/sampler.h"
#include "engine/score.h"
#include "model/weights.h"
#include "sparse/budget.h"
#include "sparse/prefill_plan.h"

namespace longview {

struct EngineOptions {
  DeviceChoice device = DeviceChoice::kCpu;
  CpuOptions cpu;
  GpuOptions gpu;
  // None: bf16, or q8 where the window would not fit in memory in bf16. A device without kE4M3 keeps q8, and says so.
  std::optional<KvFormat> kv_format = KvFormat::kBFloat16;
  int64_t kv_budget_bytes = 0;  // 0: what the window needs, within free memory
  int64_t chunk_tokens = 0;     // 0: chosen by position
  int64_t stretch = 1;          // of the window: model/stretch.h
  PrefillOptions prefill;       // of chunks that may be read sparsely
  Forward::OnLoad on_load;      // progress while weights are brought to the device; may be empty, and may throw, which ends that
};

struct EngineCounters {
  int64_t prefilled_tokens = 0;
  int64_t decoded_tokens = 0;
  int64_t guessed_tokens = 0;  // of these, tokens that were guessed
  // Of chunks that were allowed to be read sparsely, all heads: of each layer but the last, which does not attend but for results, and
  // of all these; visited all where dense.
  std::vector<HeadCoverage> layers;
  HeadCoverage coverage;
};

class Engine;

// What is to be known of the token after the last one: nothing, the one with the largest logit, or all logits, which a GPU has to
// bring over.
enum class Next { kNothing, kChoice, kLogits };

// The KV state of one token sequence.
class Context {
 public:
  explicit Context(Engine& engine);

  int64_t length() const { return pages_.length(); }
  std::span<const int32_t> tokens() const { return pages_.tokens(); }
  // Logits [vocabulary] after the last token; empty for a new or truncated context, and where only the choice was asked for.
  std::span<const float> logits() const { return logits_; }
  // The token with the largest of them, the first of equals; none for a new or truncated context.
  std::optional<int32_t> choice() const { return logits_.empty() ? choice_ : argmax(logits_); }
  std::unique_ptr<Context> fork() const;
  // From now on nothing is taken over that other contexts read, maybe sparsely; they may take over what this one reads.
  void keep_own() { pages_.keep_own(); }
  // Keeps the first `length` tokens; the logits are gone. Recurrent layers have to see those again that lie behind the last checkpoint before
  // it: whoever extends the context first has that done. Throws kInvalidArgument beyond the end.
  void truncate(int64_t length);

 private:
  friend class Engine;
  Engine& engine_;
  PageList pages_;
  Recurrence recurrence_;
  std::unique_ptr<Context> again_;  // the first of this one's tokens, on their way through the recurrent layers once more
  bool long_input_ = false;  // LongRoPE: the pages were computed with the frequencies of long inputs
  void forget_next();

  std::vector<float> logits_;
  std::optional<int32_t> choice_;  // where there are no logits
  Budget budget_;  // of sparse attention
};

class Engine {
 public:
  // Opens the model and makes room. Throws kOutOfMemory with the numbers when it cannot work at all.
  Engine(const std::string& path, const EngineOptions& options) : Engine(open_model(path), options) {}
  Engine(Model model, const EngineOptions& options);

  const Model& model() const { return model_; }
  DeviceInfo device() const;
  // Tokens that a context may hold.
  int64_t window() const { return window_; }
  // What it would be with the KV state in q4; 0: no larger, or the state is not in 8 bits.
  int64_t window_in_4_bits() const { return window_in_4_bits_; }
  // Tokens of a chunk that may be read sparsely, or is observed.
  int64_t sparse_chunk() const { return chunk_at(0, true); }
  const EngineCounters& counters() const { return counters_; }
  const PagePool& pool() const { return *pool_; }
  const PrefixIndex& index() const { return *index_; }

  std::unique_ptr<Context> create_context() { return std::make_unique<Context>(*this); }

  // Lets go of KV state that no context holds: what is read from now on takes over nothing of contexts that are gone.
  void forget() { index_->forget(); }

  // Throws kInvalidArgument (a token outside the vocabulary) or kWindowExceeded before any work.
  void check_tokens(const Context& context, std::span<const int32_t> tokens) const;
  // Goes on with pages that are held already, of whichever context; returns how many of `tokens` they cover, never all.
  int64_t adopt(Context& context, std::span<const int32_t> tokens);
  // Throws kOutOfMemory, with the numbers, where the pool has no room for `tokens` more behind the context.
  void check_room(const Context& context, std::span<const int32_t> tokens) const;
  // Pre-fills the first chunk of `tokens` and returns how many that were: none where recurrent layers had a chunk of what comes before to see
  // again. Logits follow when it was the last chunk. `sparse`: attention may leave keys out, as EngineOptions::prefill says; questions and
  // answers are read densely.
  int64_t prefill_chunk(Context& context, std::span<const int32_t> tokens, const CancelToken& cancel, bool sparse = false);
  // All chunks.
  void prefill(Context& context, std::span<const int32_t> tokens, const CancelToken& cancel, bool sparse = false);
  // One token behind the context; updates its logits, or its choice alone.
  void decode(Context& context, int32_t token, const CancelToken& cancel, Next next = Next::kLogits);
  // How many guesses of what follows may be looked at with one token more behind the context: none where layers are recurrent or mixtures of
  // experts, and none that would take a page or for which there is no room.
  int64_t guesses_at(const Context& context) const;
  // How many tokens must have been read before as the last ones were for a guess at what follows to pay.
  int64_t least_quote() const { return least_quote_; }
  // One token behind the context, and the choice of the one behind it. Of `guesses`, guesses_at() at most, those stay behind it that were
  // chosen too: all up to the first that was not.
  struct Decoded {
    int64_t right;  // guesses that stay
    int32_t next;   // behind all these
  };
  Decoded decode(Context& context, int32_t token, std::span<const int32_t> guesses, Sampler& sampler, const CancelToken& cancel);
  // Where the last token left its choice alone: reads it again for all logits. What fails leaves the context as before.
  void complete_logits(Context& context);
  // Pre-fills the first chunk of `tokens`, as prefill_chunk does, and says for each of its tokens how the model foresaw it
  // from everything before it. The context must have logits: something was read before. scores [tokens], of which as many
  // are written as the result says. A cancelled call leaves the context as it was, but without logits.
  int64_t score_chunk(Context& context, std::span<const int32_t> tokens, std::span<TokenScore> scores, const CancelToken& cancel);

  // Pre-fills the first chunk of `tokens` densely, and adds to `focus`, for each of the context's first focus.size() tokens, how much these
  // look at it: the squares of its attention weights, over all rows and heads and the later half of the layers, which fetch where
  // earlier ones gather. Returns how many tokens that were; none where the device cannot tell. A cancelled call leaves context and focus
  // as they were.
  int64_t focus_chunk(Context& context, std::span<const int32_t> tokens, std::span<float> focus, const CancelToken& cancel);

  // For measurements: what a chunk's attention looks like, and the device to try others on. While someone observes, chunks are
  // those of a sparse reading.
  void observe_attention(Forward::OnAttention observer) {
    observed_ = static_cast<bool>(observer);
    forward_->observe(std::move(observer));
  }
  Backend& backend() { return *backend_; }
  const KvShape& kv_shape() const { return forward_->kv_shape(); }

  // What pages on disk must belong to to be used here.
  CacheIdentity cache_identity(const Context& context) const;
  // Names layout and settings of the KV state, for a folder's name.
  std::string cache_layout() const { return pool_->storage().layout(); }
  // Copies the bytes of a context's page to `out`.
  void read_page(const Context& context, int64_t number, std::span<std::byte> out);
  // The pages from the context's last full one on, as far as `folder` has them for the context's tokens and `tokens` behind.
  // Null where they cannot follow.
  std::unique_ptr<PageStream> open_stream(Context& context, std::span<const int32_t> tokens, const std::string& folder) const;
  // Takes the stream's next page, waited for a few milliseconds, behind the context; false when there is no more, or the context is not
  // what the pages follow any more. Throws kOutOfMemory.
  bool load_page(Context& context, PageStream& stream);
  // Tokens of the context that recurrent layers have to see again before it is extended, by its first calls of prefill_chunk.
  int64_t behind(const Context& context) const;
  // For what is saved of a context: its checkpoints, one behind its last token among them where it can have one.
  Checkpoints checkpoints(Context& context);
  // Behind the last load_page: takes what recurrent layers kept on disk for the context's tokens. Without it the pages that were loaded are of no
  // use: they are let go from the last checkpoint on, but for the first `least` tokens. Returns whether a checkpoint was damaged.
  bool load_checkpoints(Context& context, const std::string& folder, int64_t least);

  // Logits after every token of a prompt, for comparisons: [tokens, vocabulary].
  std::vector<float> all_logits(Context& context, std::span<const int32_t> tokens);

 private:
  friend class Context;
  // Runs tokens behind the context, into pages that are reserved for them, and forgets what was next; the tokens are not counted yet.
  // `results` as of Forward::run. What fails leaves the context as before, without what was next.
  void pass(Context& context, std::span<const int32_t> tokens, int64_t results, const CancelToken& cancel, bool sparse = false);
  // The same, and counts them; `next` is what the context is to know after the last token, one of them then.
  void run(Context& context, std::span<const int32_t> tokens, int64_t results, Next next, const CancelToken& cancel, bool sparse = false);
  bool is_long(int64_t end) const { return model_.config.rope.short_window > 0 && end > model_.config.rope.short_window; }
  static int32_t start_of(bool long_input) { return long_input ? PrefixIndex::kLongRoot : PrefixIndex::kRoot; }
  void drop_coverage() noexcept;
  void count_coverage(Context& context, int64_t count, bool sparse);
  bool begin_for(Context& context, int64_t end) const;
  // Lets recurrent layers see a chunk of the context's tokens that they lack; false where they lack none. What fails leaves the context as
  // before.
  bool catch_up(Context& context, const CancelToken& cancel);
  // Leaves a checkpoint where one is due, or where a reading ends.
  void keep_checkpoint(Context& context, bool end);
  // Lets go of tokens behind the last checkpoint that is known of them, but for the first `least`.
  void settle(Context& context, int64_t least);
  void choose_frequencies(Context& context, int64_t end, const CancelToken& cancel);
  int64_t chunk_at(int64_t position, bool sparse = false) const;

  Model model_;
  std::string device_note_;
  std::unique_ptr<Backend> backend_;
  EngineOptions options_;
  int64_t window_ = 0, window_in_4_bits_ = 0, largest_chunk_ = 0;
  bool observed_ = false;
  int64_t dense_chunk_ = 0, sparse_chunk_ = 0;  // wanted; 0: by position
  int64_t least_quote_ = 0;
  std::unique_ptr<PrefillPlan> prefill_;
  std::unique_ptr<PagePool> pool_;
  std::unique_ptr<StatePool> states_;  // of a model with recurrent layers
  uint64_t root_ = 0;
  std::unique_ptr<PrefixIndex> index_;
  std::unique_ptr<Forward> forward_;
  EngineCounters counters_;
};

}  // namespace longview
