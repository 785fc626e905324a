// The JavaScript object of an engine. Contexts are numbers in its table; nativeEngine.ts gives them a face.
#pragma once

#include <napi.h>

#include <map>
#include <memory>
#include <optional>

#include "base/cancel.h"
#include "binding/job_queue.h"
#include "engine/calibrate.h"
#include "engine/engine.h"

namespace longview::binding {

// What the engine's thread owns: only jobs touch it.
struct EngineState {
  std::unique_ptr<Engine> engine;
  std::map<int64_t, std::unique_ptr<Context>> contexts;
  std::map<int64_t, std::unique_ptr<Context>> saves;  // forks that are being written to disk, by job
  std::map<int64_t, std::unique_ptr<Context>> focuses;  // copies that read an answer again, by job
  std::map<int64_t, std::unique_ptr<Calibration>> calibrations;  // by job
};

// For guarded(): tells how long a context is, and nothing where it was disposed of.
inline auto length_of(std::shared_ptr<EngineState> state, int64_t context) {
  return [state = std::move(state), context]() -> std::optional<int64_t> {
    const auto found = state->contexts.find(context);
    return found == state->contexts.end() ? std::nullopt : std::optional(found->second->length());
  };
}

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit EngineObject(const Napi::CallbackInfo& info);
  ~EngineObject() override;

 private:
  // Each returns a promise. The last argument of the long ones is an object {cancelled: false}-like token id for cancel().
  Napi::Value open(const Napi::CallbackInfo& info);      // (path, options, onLoad, job?) -> info
  Napi::Value create(const Napi::CallbackInfo& info);    // (context)
  Napi::Value fork(const Napi::CallbackInfo& info);      // (from, to)
  Napi::Value truncate(const Napi::CallbackInfo& info);  // (context, length)
  Napi::Value drop(const Napi::CallbackInfo& info);      // (context)
  Napi::Value extend(const Napi::CallbackInfo& info);    // (context, tokens, priority, job, onProgress, sparse) -> {reused, density?, coveredMass?}
  Napi::Value score(const Napi::CallbackInfo& info);     // (context, tokens, priority, job, onProgress) -> {nll, top1}
  Napi::Value generate(const Napi::CallbackInfo& info);  // (context, options, priority, job, onToken) -> {finish, length}
  Napi::Value logits(const Napi::CallbackInfo& info);    // (context) -> Float32Array
  Napi::Value focus(const Napi::CallbackInfo& info);     // (context, from, priority, job) -> Float32Array [from], or undefined
  Napi::Value forget(const Napi::CallbackInfo& info);    // lets go of what no context holds
  Napi::Value counters(const Napi::CallbackInfo& info);  // -> object
  Napi::Value save(const Napi::CallbackInfo& info);      // (context, options, priority, job, onProgress) -> result; engine_cache.cpp
  Napi::Value load(const Napi::CallbackInfo& info);      // (context, tokens, folder, priority, job, onProgress) -> result
  Napi::Value calibrate(const Napi::CallbackInfo& info); // (tokens, options, priority, job, onProgress) -> profiles; engine_calibrate.cpp
  void cancel(const Napi::CallbackInfo& info);           // (job)
  Napi::Value close(const Napi::CallbackInfo& info);     // cancels, waits, frees

  CancelToken token_for(int64_t job);
  void cancel_all();
  // Stops all jobs and waits for them. Called, too, where JavaScript ends with jobs under way (a worker that is terminated): what they
  // tell their results by goes soon after.
  static void end(void* self);

  std::shared_ptr<EngineState> state_ = std::make_shared<EngineState>();
  std::map<int64_t, CancelToken> cancels_;
  std::unique_ptr<JobQueue> queue_ = std::make_unique<JobQueue>();
  std::unique_ptr<JobQueue> disk_ = std::make_unique<JobQueue>();  // writes saves
};

}  // namespace longview::binding
