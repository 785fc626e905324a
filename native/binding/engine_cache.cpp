// Saving contexts to disk and loading them. A save runs on the disk's thread and asks the engine's for one page at a time, so
// that more urgent work goes first; a load's pages are read ahead by threads of its own.
#include <future>

#include "binding/engine_object.h"
#include "binding/outcome.h"
#include "binding/values.h"
#include "cache/save_pages.h"

namespace longview::binding {
namespace {

constexpr int kHousekeeping = 100;

Context& find(EngineState& state, int64_t id) {
  const auto found = state.contexts.find(id);
  LONGVIEW_CHECK(found != state.contexts.end() && state.engine, kInvalidArgument, "This context was disposed of.");
  return *found->second;
}

// What a save works on, taken at one moment.
struct Snapshot {
  std::vector<int32_t> tokens;
  CacheIdentity identity;
  Checkpoints checkpoints;
};

Snapshot take_snapshot(EngineState& state, JobQueue& queue, int64_t context, int64_t job) {
  std::promise<Snapshot> promise;
  queue.add({kHousekeeping, [&] {
               try {
                 const auto& fork = state.saves[job] = find(state, context).fork();
                 promise.set_value({{fork->tokens().begin(), fork->tokens().end()}, state.engine->cache_identity(*fork), state.engine->checkpoints(*fork)});
               } catch (...) {
                 state.saves.erase(job);
                 promise.set_exception(std::current_exception());
               }
               return false;
             }});
  return promise.get_future().get();
}

Napi::Object describe(Napi::Env env, const SaveResult& result) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("tokens", static_cast<double>(result.tokens));
  out.Set("writtenBytes", static_cast<double>(result.written_bytes));
  out.Set("busy", result.busy);
  return out;
}

}  // namespace

Napi::Value EngineObject::save(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Object given = object(info, 1);
  const std::string folder = string_of(given.Get("folder"), "The folder of the cache");
  SaveOptions options;
  options.max_bytes = whole_or(given, "maxBytes", 0, 0, kMaxWhole);
  options.afresh = given.Get("afresh").ToBoolean().Value();
  const int64_t context = integer(info, 0), job = integer(info, 3);
  const int urgency = priority(info, 2);
  options.give_way = [queue = queue_.get(), urgency] { queue->give_way(urgency); };
  const auto outcome = std::make_shared<Outcome>(env, argument(info, 4));
  const CancelToken token = token_for(job);
  disk_->add({0, guarded(outcome, [state = state_, queue = queue_.get(), folder, options, context, job, urgency, outcome, token] {
                token.throw_if_cancelled();
                Snapshot snapshot = take_snapshot(*state, *queue, context, job);
                SaveOptions with = options;
                with.checkpoints = std::move(snapshot.checkpoints);
                const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
                  queue->add({urgency, [state, job, number, out, done = std::move(done)] {
                                bool ok = false;
                                try {
                                  const auto saved = state->saves.find(job);
                                  if (saved != state->saves.end()) {
                                    state->engine->read_page(*saved->second, number, out);
                                    ok = true;
                                  }
                                } catch (const std::exception&) {
                                  // The device failed: whoever works on it says so.
                                }
                                done(ok);
                                return false;
                              }});
                };
                const auto release = [&] {
                  queue->add({kHousekeeping, [state, job] {
                                state->saves.erase(job);
                                return false;
                              }});
                };
                try {
                  const SaveResult result = save_pages(folder, snapshot.identity, snapshot.tokens, with, fetch, token,
                                                       [&](int64_t done, int64_t total) { outcome->call(static_cast<double>(done), static_cast<double>(total)); });
                  release();
                  outcome->resolve([result](Napi::Env e) { return describe(e, result); });
                } catch (...) {
                  release();
                  throw;
                }
                return false;
              })});
  return outcome->promise();
}

Napi::Value EngineObject::load(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  struct Progress {
    std::vector<int32_t> tokens;
    std::unique_ptr<PageStream> stream;
    std::string note;
    bool opened = false;
    int64_t least = 0;  // tokens that the context had
  };
  const auto progress = std::make_shared<Progress>();
  progress->tokens = token_ids(info, 1);
  const auto outcome = std::make_shared<Outcome>(env, argument(info, 5));
  const CancelToken token = token_for(integer(info, 4));
  const int64_t id = integer(info, 0);
  queue_->add({priority(info, 3),
               guarded(outcome, [state = state_, id, folder = string_of(argument(info, 2), "The folder of the cache"), outcome, progress, token] {
                 token.throw_if_cancelled();
                 Context& context = find(*state, id);
                 Engine& engine = *state->engine;
                 if (!progress->opened) {
                   engine.check_tokens(context, progress->tokens);
                   progress->least = context.length();
                   const int64_t adopted = engine.adopt(context, progress->tokens);
                   progress->stream = engine.open_stream(context, std::span<const int32_t>(progress->tokens).subspan(static_cast<size_t>(adopted)), folder);
                   progress->opened = true;
                 }
                 bool more = false;
                 try {
                   more = progress->stream && engine.load_page(context, *progress->stream);
                 } catch (const Error& error) {
                   if (error.code != ErrorCode::kOutOfMemory) throw;
                   progress->note = error.what();  // what fits is as good as what there is
                 }
                 const bool damaged_state = !more && engine.load_checkpoints(context, folder, progress->least);
                 const auto length = static_cast<double>(context.length());
                 outcome->call(length, progress->stream ? static_cast<double>(std::max(progress->stream->end(), context.length())) : length);
                 if (more) return true;
                 const bool damaged = damaged_state || (progress->stream && progress->stream->damaged());
                 if (progress->note.empty() && progress->stream) progress->note = progress->stream->note();
                 progress->stream.reset();
                 outcome->resolve([length, damaged, note = progress->note](Napi::Env e) {
                   Napi::Object out = Napi::Object::New(e);
                   out.Set("length", length);
                   out.Set("damaged", damaged);
                   out.Set("note", note);
                   return out;
                 });
                 return false;
               }, length_of(state_, id))});
  return outcome->promise();
}

}  // namespace longview::binding
