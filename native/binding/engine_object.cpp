#include "binding/engine_object.h"

#include <chrono>
#include <optional>

#include "base/error.h"
#include "binding/engine_options.h"
#include "binding/outcome.h"
#include "binding/values.h"
#include "engine/generation.h"
#include "model/stretch.h"

namespace longview::binding {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }

const char* name_of(Generation::Finish finish) {
  switch (finish) {
    case Generation::Finish::kStop: return "stop";
    case Generation::Finish::kLength: return "length";
    case Generation::Finish::kWindow: return "window";
  }
  return "";
}

// By value: the engine may be closed before JavaScript reads it.
Outcome::Make description(const Engine& engine) {
  const Model& m = engine.model();
  return [config = m.config, fingerprint = m.fingerprint, parameters = m.parameters, weight_bytes = m.weight_bytes, page_bytes = engine.pool().page_bytes(),
          layout = engine.cache_layout(), d = engine.device(), window = engine.window(), in_4_bits = engine.window_in_4_bits()](Napi::Env env) {
    Napi::Object model = Napi::Object::New(env), device = Napi::Object::New(env), out = Napi::Object::New(env);
    model.Set("architecture", config.architecture);
    model.Set("name", config.name);
    model.Set("fingerprint", fingerprint);
    model.Set("window", static_cast<double>(config.window));
    model.Set("stretch", static_cast<double>(config.stretch));
    model.Set("stretches", stretches(config));
    model.Set("vocabularySize", static_cast<double>(config.vocabulary));
    model.Set("layers", static_cast<double>(config.layers));
    model.Set("parameters", static_cast<double>(parameters));
    model.Set("weightBytes", static_cast<double>(weight_bytes));
    model.Set("kvBytesPerToken", static_cast<double>(page_bytes) / static_cast<double>(kPageTokens));
    model.Set("kvLayout", layout);
    device.Set("kind", d.kind);
    device.Set("name", d.name);
    device.Set("note", d.note);
    device.Set("isa", d.isa);
    device.Set("threads", d.threads);
    device.Set("memoryBytes", static_cast<double>(d.memory_bytes));
    device.Set("freeMemoryBytes", static_cast<double>(d.free_memory_bytes));
    out.Set("model", model);
    out.Set("device", device);
    out.Set("window", static_cast<double>(window));
    out.Set("windowIn4Bits", static_cast<double>(in_4_bits));
    return out;
  };
}

// {density?, coveredMass?}: nothing where nothing was counted.
Napi::Object describe(Napi::Env env, const HeadCoverage& coverage) {
  Napi::Object out = Napi::Object::New(env);
  if (coverage.causal > 0) out.Set("density", density_of(coverage));
  if (coverage.probes > 0) out.Set("coveredMass", coverage.covered / static_cast<double>(coverage.probes));
  return out;
}

Context& find(EngineState& state, int64_t id) {
  const auto found = state.contexts.find(id);
  LONGVIEW_CHECK(found != state.contexts.end(), kInvalidArgument, "This context was disposed of.");
  return *found->second;
}

Napi::Value floats(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array out = Napi::Float32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), out.Data());
  return out;
}

constexpr int kHousekeeping = 100;  // forks and truncations are instant: they never wait for a pre-fill

}  // namespace

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {InstanceMethod<&EngineObject::open>("open"), InstanceMethod<&EngineObject::create>("create"), InstanceMethod<&EngineObject::fork>("fork"),
                      InstanceMethod<&EngineObject::truncate>("truncate"), InstanceMethod<&EngineObject::drop>("drop"), InstanceMethod<&EngineObject::extend>("extend"),
                      InstanceMethod<&EngineObject::score>("score"), InstanceMethod<&EngineObject::generate>("generate"), InstanceMethod<&EngineObject::logits>("logits"),
                      InstanceMethod<&EngineObject::focus>("focus"), InstanceMethod<&EngineObject::forget>("forget"), InstanceMethod<&EngineObject::counters>("counters"), InstanceMethod<&EngineObject::save>("save"), InstanceMethod<&EngineObject::load>("load"),
                      InstanceMethod<&EngineObject::calibrate>("calibrate"),
                      InstanceMethod<&EngineObject::cancel>("cancel"), InstanceMethod<&EngineObject::close>("close")});
}

EngineObject::EngineObject(const Napi::CallbackInfo& info) : ObjectWrap(info) { napi_add_env_cleanup_hook(info.Env(), end, this); }

EngineObject::~EngineObject() {
  napi_remove_env_cleanup_hook(Env(), end, this);
  end(this);
}

void EngineObject::end(void* self) {
  auto& engine = *static_cast<EngineObject*>(self);
  engine.cancel_all();
  engine.disk_.reset();  // its thread waits on the other
  engine.queue_.reset();
}

// Runs `body` on the engine's thread; what it returns makes the promise's value on this one.
static Napi::Value once(Napi::Env env, JobQueue& queue, std::function<Outcome::Make()> body) {
  const auto outcome = std::make_shared<Outcome>(env, env.Undefined());
  queue.add({kHousekeeping, guarded(outcome, [outcome, body = std::move(body)] {
               outcome->resolve(body());
               return false;
             })});
  return outcome->promise();
}

static Napi::Value undefined(Napi::Env env) { return env.Undefined(); }

Napi::Value EngineObject::open(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsString()) refuse(info.Env(), "open needs a path.");
  const auto outcome = std::make_shared<Outcome>(info.Env(), argument(info, 2));
  EngineOptions options;
  try {
    options = read_options(object(info, 1));
  } catch (const Error& error) {  // settings are typed by hand
    outcome->reject(error);
    return outcome->promise();
  }
  const CancelToken token = argument(info, 3).IsUndefined() ? CancelToken() : token_for(integer(info, 3));
  queue_->keep();
  options.on_load = [outcome, token](int64_t done, int64_t total) {
    token.throw_if_cancelled();
    outcome->call(static_cast<double>(done), static_cast<double>(total));
  };
  queue_->add({kHousekeeping, guarded(outcome, [state = state_, outcome, path = info[0].As<Napi::String>().Utf8Value(), options = std::move(options)] {
                 LONGVIEW_CHECK(!state->engine, kInvalidArgument, "The engine is open already: close it before it opens another model.");
                 state->engine = std::make_unique<Engine>(path, options);
                 outcome->resolve(description(*state->engine));
                 return false;
               })});
  return outcome->promise();
}

Napi::Value EngineObject::create(const Napi::CallbackInfo& info) {
  return once(info.Env(), *queue_, [state = state_, id = integer(info, 0)] {
    LONGVIEW_CHECK(state->engine, kInvalidArgument, "The engine is not open.");
    state->contexts[id] = state->engine->create_context();
    return undefined;
  });
}

Napi::Value EngineObject::fork(const Napi::CallbackInfo& info) {
  return once(info.Env(), *queue_, [state = state_, from = integer(info, 0), to = integer(info, 1)] {
    state->contexts[to] = find(*state, from).fork();
    return undefined;
  });
}

Napi::Value EngineObject::truncate(const Napi::CallbackInfo& info) {
  return once(info.Env(), *queue_, [state = state_, id = integer(info, 0), length = integer(info, 1)] {
    find(*state, id).truncate(length);
    return undefined;
  });
}

Napi::Value EngineObject::drop(const Napi::CallbackInfo& info) {
  return once(info.Env(), *queue_, [state = state_, id = integer(info, 0)] {
    state->contexts.erase(id);
    return undefined;
  });
}

Napi::Value EngineObject::extend(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int64_t id = integer(info, 0);
  const auto outcome = std::make_shared<Outcome>(env, argument(info, 4));
  struct Progress {
    std::vector<int32_t> tokens;
    size_t done = 0, adopted = 0;
    std::vector<HeadCoverage> layers = {};  // what was visited in each
    bool checked = false;
  };
  const auto progress = std::make_shared<Progress>(Progress{token_ids(info, 1)});
  const CancelToken token = token_for(integer(info, 3));
  const bool sparse = argument(info, 5).ToBoolean();
  queue_->add({priority(info, 2), guarded(outcome, [state = state_, id, sparse, outcome, progress, token] {
                 token.throw_if_cancelled();  // a closed engine has cancelled all
                 Context& context = find(*state, id);
                 const std::span<const int32_t> left = std::span<const int32_t>(progress->tokens).subspan(progress->done);
                 if (!progress->checked) {
                   state->engine->check_tokens(context, left);
                   progress->checked = true;
                   progress->adopted = progress->done = static_cast<size_t>(state->engine->adopt(context, left));
                   const auto adopted = static_cast<double>(progress->adopted), behind = static_cast<double>(state->engine->behind(context));
                   if (adopted + behind > 0) outcome->call(adopted, static_cast<double>(context.length()), adopted, behind);
                   state->engine->check_room(context, left.subspan(progress->adopted));
                   if (adopted + behind > 0) return true;
                 }
                 const std::vector<HeadCoverage> before = state->engine->counters().layers;
                 if (!left.empty()) progress->done += static_cast<size_t>(state->engine->prefill_chunk(context, left, token, sparse));
                 progress->layers.resize(before.size());
                 for (size_t i = 0; i < before.size(); ++i) progress->layers[i] += state->engine->counters().layers[i] - before[i];
                 const auto length = static_cast<double>(context.length());
                 outcome->call(static_cast<double>(progress->done), length, static_cast<double>(progress->adopted), static_cast<double>(state->engine->behind(context)));
                 if (progress->done < progress->tokens.size()) return true;
                 outcome->resolve([progress](Napi::Env e) {
                   HeadCoverage all;
                   Napi::Array layers = Napi::Array::New(e);
                   for (const HeadCoverage& layer : progress->layers) {
                     all += layer;
                     if (layer.causal > 0) layers.Set(layers.Length(), describe(e, layer));
                   }
                   Napi::Object result = describe(e, all);
                   result.Set("reused", static_cast<double>(progress->adopted));
                   if (all.causal > 0) result.Set("layers", layers);
                   return result;
                 });
                 return false;
               }, length_of(state_, id))});
  return outcome->promise();
}

Napi::Value EngineObject::score(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int64_t id = integer(info, 0);
  const auto outcome = std::make_shared<Outcome>(env, argument(info, 4));
  struct Progress {
    std::vector<int32_t> tokens;
    std::vector<TokenScore> scores;
    size_t done = 0;
  };
  const auto progress = std::make_shared<Progress>(Progress{token_ids(info, 1), {}});
  progress->scores.resize(progress->tokens.size());
  const CancelToken token = token_for(integer(info, 3));
  queue_->add({priority(info, 2), guarded(outcome, [state = state_, id, outcome, progress, token] {
                 token.throw_if_cancelled();  // a closed engine has cancelled all
                 Context& context = find(*state, id);
                 const auto left = std::span<const int32_t>(progress->tokens).subspan(progress->done);
                 progress->done += static_cast<size_t>(state->engine->score_chunk(context, left, std::span(progress->scores).subspan(progress->done), token));
                 outcome->call(static_cast<double>(progress->done), static_cast<double>(context.length()));
                 if (progress->done < progress->tokens.size()) return true;
                 outcome->resolve([progress](Napi::Env e) {
                   Napi::Float64Array nll = Napi::Float64Array::New(e, progress->scores.size());
                   Napi::Int32Array top1 = Napi::Int32Array::New(e, progress->scores.size());
                   for (size_t i = 0; i < progress->scores.size(); ++i) {
                     nll.Data()[i] = progress->scores[i].nll;
                     top1.Data()[i] = progress->scores[i].top1;
                   }
                   Napi::Object result = Napi::Object::New(e);
                   result.Set("nll", nll);
                   result.Set("top1", top1);
                   return result;
                 });
                 return false;
               }, length_of(state_, id))});
  return outcome->promise();
}

Napi::Value EngineObject::generate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int64_t id = integer(info, 0);
  const Napi::Object options = object(info, 1);
  GenerationOptions settings;
  Sampling& sampling = settings.sampling;
  sampling.temperature = static_cast<float>(number_or(options, "temperature", 0, 0, 100));
  sampling.top_k = static_cast<int32_t>(whole_or(options, "topK", 0, 0, std::numeric_limits<int32_t>::max()));
  sampling.top_p = static_cast<float>(number_or(options, "topP", 1, 0, 1));
  sampling.min_p = static_cast<float>(number_or(options, "minP", 0, 0, 1));
  sampling.seed = static_cast<uint64_t>(whole_or(options, "seed", 0, 0, kMaxWhole));
  if (const Napi::Value list = options.Get("stopTokens"); list.IsArray())
    for (const int32_t token : integers(list)) settings.stops.push_back({token});
  if (const Napi::Value list = options.Get("stopSequences"); list.IsArray())
    for (uint32_t i = 0; i < list.As<Napi::Array>().Length(); ++i) settings.stops.push_back(integers(list.As<Napi::Array>().Get(i)));
  settings.looks_up = options.Get("guess").ToBoolean();
  settings.most_tokens = whole_or(options, "maxTokens", 256, 0, kMaxWhole);
  const auto outcome = std::make_shared<Outcome>(env, argument(info, 4));
  struct Progress {
    std::optional<Generation> generation;
    double first = 0;  // seconds to the first token
    std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  };
  const auto progress = std::make_shared<Progress>();
  const CancelToken token = token_for(integer(info, 3));
  queue_->add({priority(info, 2), guarded(outcome, [state = state_, id, settings = std::move(settings), outcome, progress, token] {
                 token.throw_if_cancelled();
                 Context& context = find(*state, id);
                 if (!progress->generation) progress->generation.emplace(settings);
                 const auto finish = progress->generation->step(*state->engine, context, token, [&](int32_t chosen, int64_t length) {
                   if (progress->first == 0) progress->first = seconds_since(progress->start);
                   outcome->call(chosen, static_cast<double>(length));
                 });
                 if (!finish) return true;
                 const double seconds = seconds_since(progress->start), first = progress->first > 0 ? progress->first : seconds;
                 outcome->resolve([why = name_of(*finish), length = context.length(), first, seconds](Napi::Env e) {
                   Napi::Object result = Napi::Object::New(e);
                   result.Set("finish", why);
                   result.Set("length", static_cast<double>(length));
                   result.Set("firstTokenSeconds", first);
                   result.Set("seconds", seconds);
                   return result;
                 });
                 return false;
               }, length_of(state_, id))});
  return outcome->promise();
}

Napi::Value EngineObject::logits(const Napi::CallbackInfo& info) {
  return once(info.Env(), *queue_, [state = state_, id = integer(info, 0)] {
    Context& context = find(*state, id);
    state->engine->complete_logits(context);
    const auto logits = context.logits();
    return [copy = std::vector<float>(logits.begin(), logits.end())](Napi::Env env) { return floats(env, copy); };
  });
}

Napi::Value EngineObject::focus(const Napi::CallbackInfo& info) {
  const int64_t id = integer(info, 0), from = integer(info, 1), job = integer(info, 3);
  const auto outcome = std::make_shared<Outcome>(info.Env(), info.Env().Undefined());
  struct Progress {
    std::vector<int32_t> left;
    std::vector<float> focus;
  };
  const auto progress = std::make_shared<Progress>();
  const CancelToken token = token_for(job);
  queue_->add({priority(info, 2), guarded(outcome, [state = state_, id, from, job, outcome, progress, token] {
                 try {
                   token.throw_if_cancelled();  // a closed engine has cancelled all
                   auto& copy = state->focuses[job];
                   if (!copy) {
                     const Context& context = find(*state, id);
                     LONGVIEW_CHECK(from > 0 && from < context.length(), kInvalidArgument, "No token lies between %lld and the end of the context.", static_cast<long long>(from));
                     progress->left.assign(context.tokens().begin() + from, context.tokens().end());
                     progress->focus.resize(static_cast<size_t>(from));
                     copy = context.fork();
                     copy->truncate(from);
                     state->engine->check_room(*copy, progress->left);
                   }
                   const int64_t count = state->engine->focus_chunk(*copy, progress->left, progress->focus, token);
                   progress->left.erase(progress->left.begin(), progress->left.begin() + count);
                   if (count > 0 && !progress->left.empty()) return true;
                   state->focuses.erase(job);
                   outcome->resolve([progress, told = count > 0](Napi::Env env) -> Napi::Value { return told ? floats(env, progress->focus) : env.Undefined(); });
                   return false;
                 } catch (...) {
                   state->focuses.erase(job);
                   throw;
                 }
               })});
  return outcome->promise();
}

Napi::Value EngineObject::forget(const Napi::CallbackInfo& info) {
  return once(info.Env(), *queue_, [state = state_] {
    LONGVIEW_CHECK(state->engine, kInvalidArgument, "The engine is not open.");
    state->engine->forget();
    return undefined;
  });
}

Napi::Value EngineObject::counters(const Napi::CallbackInfo& info) {
  return once(info.Env(), *queue_, [state = state_] {
    LONGVIEW_CHECK(state->engine, kInvalidArgument, "The engine is not open.");
    return [c = state->engine->counters(), used = state->engine->pool().used(), bytes = state->engine->pool().page_bytes()](Napi::Env env) {
      Napi::Object out = Napi::Object::New(env);
      out.Set("prefilledTokens", static_cast<double>(c.prefilled_tokens));
      out.Set("decodedTokens", static_cast<double>(c.decoded_tokens));
      out.Set("guessedTokens", static_cast<double>(c.guessed_tokens));
      out.Set("kvPagesUsed", static_cast<double>(used));
      out.Set("kvBytesUsed", static_cast<double>(used * bytes));
      return out;
    };
  });
}

CancelToken EngineObject::token_for(int64_t job) { return cancels_[job]; }

// Also called when a job is over, to forget it.
void EngineObject::cancel(const Napi::CallbackInfo& info) {
  const auto found = cancels_.find(integer(info, 0));
  if (found == cancels_.end()) return;
  found->second.cancel();
  cancels_.erase(found);
}

void EngineObject::cancel_all() {
  for (auto& [job, token] : cancels_) token.cancel();
  cancels_.clear();
}

Napi::Value EngineObject::close(const Napi::CallbackInfo& info) {
  cancel_all();
  const Napi::Value closed = once(info.Env(), *queue_, [state = state_] {
    state->contexts.clear();
    state->saves.clear();
    state->focuses.clear();
    state->calibrations.clear();
    state->engine.reset();
    return undefined;
  });
  queue_->let_go();
  return closed;
}

}  // namespace longview::binding
