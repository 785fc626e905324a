// Saving contexts to disk and loading them. A save runs on the disk's thread and asks the engine's for one page at a time, so
// that more urgent work goes first; a load's pages are read ahead by threads of its own.
#include <future>

#include "binding/engine_object.h"
#include "binding/outcome.h"
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
};

Snapshot take_snapshot(EngineState& state, JobQueue& queue, int64_t context, int64_t job) {
  std::promise<Snapshot> promise;
  queue.add({kHousekeeping, [&] {
               try {
                 const auto& fork = state.saves[job] = find(state, context).fork();
                 promise.set_value({{fork->tokens().begin(), fork->tokens().end()}, state.engine->cache_identity(*fork)});
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
  if (info.Length() < 5 || !info[0].IsNumber() || !info[1].IsObject() || !info[2].IsNumber() || !info[3].IsNumber()) throw Napi::TypeError::New(env, "save needs (context, options, priority, job, onProgress)");
  const Napi::Object given = info[1].As<Napi::Object>();
  const std::string folder = given.Get("folder").ToString().Utf8Value();
  SaveOptions options;
  options.max_bytes = given.Get("maxBytes").ToNumber().Int64Value();
  options.afresh = given.Get("afresh").ToBoolean().Value();
  const int64_t context = info[0].As<Napi::Number>().Int64Value(), job = info[3].As<Napi::Number>().Int64Value();
  const int priority = info[2].As<Napi::Number>().Int32Value();
  options.give_way = [queue = queue_.get(), priority] { queue->give_way(priority); };
  const auto outcome = std::make_shared<Outcome>(env, info[4]);
  const CancelToken token = token_for(job);
  disk_->add({0, guarded(outcome, [state = state_, queue = queue_.get(), folder, options, context, job, priority, outcome, token] {
                token.throw_if_cancelled();
                const Snapshot snapshot = take_snapshot(*state, *queue, context, job);
                const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
                  queue->add({priority, [state, job, number, out, done = std::move(done)] {
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
                  const SaveResult result = save_pages(folder, snapshot.identity, snapshot.tokens, options, fetch, token,
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
  if (info.Length() < 6 || !info[0].IsNumber() || !info[1].IsTypedArray() || info[1].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array || !info[2].IsString() || !info[3].IsNumber() ||
      !info[4].IsNumber())
    throw Napi::TypeError::New(env, "load needs (context, tokens, folder, priority, job, onProgress)");
  const auto given = info[1].As<Napi::Int32Array>();
  struct Progress {
    std::vector<int32_t> tokens;
    std::unique_ptr<PageStream> stream;
    std::string note;
    bool opened = false;
  };
  const auto progress = std::make_shared<Progress>();
  progress->tokens.assign(given.Data(), given.Data() + given.ElementLength());
  const auto outcome = std::make_shared<Outcome>(env, info[5]);
  const CancelToken token = token_for(info[4].As<Napi::Number>().Int64Value());
  const int64_t id = info[0].As<Napi::Number>().Int64Value();
  queue_->add({info[3].As<Napi::Number>().Int32Value(),
               guarded(outcome, [state = state_, id, folder = info[2].As<Napi::String>().Utf8Value(), outcome, progress, token] {
                 token.throw_if_cancelled();
                 Context& context = find(*state, id);
                 Engine& engine = *state->engine;
                 if (!progress->opened) {
                   engine.check_tokens(context, progress->tokens);
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
                 const auto length = static_cast<double>(context.length());
                 outcome->call(length, progress->stream ? static_cast<double>(std::max(progress->stream->end(), context.length())) : length);
                 if (more) return true;
                 const bool damaged = progress->stream && progress->stream->damaged();
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
