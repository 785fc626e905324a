// How a job's result comes back to JavaScript.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <optional>

#include "base/error.h"
#include "binding/metadata.h"

namespace longview::binding {

// Settles a promise and calls a callback from the engine's thread. One object lives as long as its job.
class Outcome {
 public:
  using Make = std::function<Napi::Value(Napi::Env)>;

  Outcome(Napi::Env env, const Napi::Value& callback)
      : deferred_(Napi::Promise::Deferred::New(env)), has_callback_(callback.IsFunction()) {
    const Napi::Function function = has_callback_ ? callback.As<Napi::Function>() : Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
    calls_ = Napi::ThreadSafeFunction::New(env, function, "longview", 0, 1);
  }

  // Who threw before there was a job lets go of JavaScript's function all the same: it would keep the process.
  ~Outcome() {
    if (!settled_) calls_.Release();
  }
  Outcome(const Outcome&) = delete;
  Outcome& operator=(const Outcome&) = delete;

  Napi::Promise promise() const { return deferred_.Promise(); }

  template <typename... Numbers>
  void call(Numbers... values) {
    if (!has_callback_) return;
    calls_.NonBlockingCall([values...](Napi::Env env, Napi::Function function) { function.Call({Napi::Number::New(env, values)...}); });
  }
  void resolve(Make make) {
    calls_.NonBlockingCall([deferred = deferred_, make = std::move(make)](Napi::Env env, Napi::Function) { deferred.Resolve(make(env)); });
    settle();
  }
  // `length`: of the context that the job worked on, which keeps what was done.
  void reject(const Error& error, std::optional<int64_t> length = {}) {
    calls_.NonBlockingCall([deferred = deferred_, error, length](Napi::Env env, Napi::Function) {
      Napi::Error out = to_js(env, error);
      if (length) out.Set("length", static_cast<double>(*length));
      deferred.Reject(out.Value());
    });
    settle();
  }

 private:
  void settle() {
    settled_ = true;
    calls_.Release();
  }

  Napi::Promise::Deferred deferred_;
  Napi::ThreadSafeFunction calls_;
  bool has_callback_, settled_ = false;
};

// A step that may throw becomes one that settles its promise: the queue's thread must not see exceptions. `length`: of the context
// that it changes, if any.
inline std::function<bool()> guarded(std::shared_ptr<Outcome> outcome, std::function<bool()> step, std::function<std::optional<int64_t>()> length = {}) {
  return [outcome = std::move(outcome), step = std::move(step), length = std::move(length)] {
    try {
      return step();
    } catch (const std::exception&) {
      outcome->reject(caught(), length ? length() : std::nullopt);
    }
    return false;
  };
}

}  // namespace longview::binding
