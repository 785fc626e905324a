// A calibration as a job of the engine's thread: one chunk a step, so that answers go first, and the profiles as files.
#include <algorithm>
#include <filesystem>

#include "binding/engine_object.h"
#include "binding/outcome.h"

namespace longview::binding {
namespace {

struct Request {
  std::vector<int32_t> tokens;
  std::string folder;
  std::vector<ProfileUse> uses;
  double density = 0;  // 0: what the heads have when they are not calibrated
  CalibrationOptions options;
};

struct Written {
  ProfileUse use;
  std::string path;
  double density, uncalibrated_density, recall;
};

double mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

ProfiledModel profiled(const Engine& engine) {
  const Model& model = engine.model();
  return {model.fingerprint, model.config.layers, model.config.heads, engine.device().kind};
}

Request read_request(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 4 || !info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array || !info[1].IsObject() || !info[2].IsNumber() || !info[3].IsNumber())
    throw Napi::TypeError::New(env, "calibrate needs (tokens, options, priority, job, onProgress)");
  const auto tokens = info[0].As<Napi::Int32Array>();
  const auto given = info[1].As<Napi::Object>();
  Request request;
  request.tokens.assign(tokens.Data(), tokens.Data() + tokens.ElementLength());
  request.folder = given.Get("folder").ToString().Utf8Value();
  if (const Napi::Value targets = given.Get("targets"); targets.IsArray())
    for (uint32_t i = 0; i < targets.As<Napi::Array>().Length(); ++i)
      if (const auto use = profile_use_of(targets.As<Napi::Array>().Get(i).ToString().Utf8Value())) request.uses.push_back(*use);
  if (request.uses.empty()) throw Napi::TypeError::New(env, "calibrate needs targets: fast, balanced or minference");
  const auto wants = [&](PrefillMode mode) { return std::any_of(request.uses.begin(), request.uses.end(), [&](const ProfileUse& use) { return use.mode == mode; }); };
  request.options.adaptive = wants(PrefillMode::kAdaptive);
  request.options.minference = wants(PrefillMode::kMinference);
  if (const Napi::Value density = given.Get("density"); density.IsNumber()) request.density = density.As<Napi::Number>().DoubleValue();
  if (const Napi::Value from = given.Get("fromToken"); from.IsNumber()) request.options.from_token = from.As<Napi::Number>().Int64Value();
  if (const Napi::Value every = given.Get("everyChunk"); every.IsNumber()) request.options.every_chunk = every.As<Napi::Number>().Int64Value();
  return request;
}

std::unique_ptr<Calibration> begin(Engine& engine, const Request& request) {
  const ProfiledModel model = profiled(engine);
  std::error_code error;
  std::filesystem::create_directories(request.folder, error);
  LONGVIEW_CHECK(std::filesystem::is_directory(request.folder), kCannotWrite, "The folder %s for profiles could not be made: %s.", request.folder.c_str(), error.message().c_str());
  CalibrationOptions options = request.options;
  options.part = (std::filesystem::path(request.folder) / (model.fingerprint + "." + model.device + ".part")).string();
  return std::make_unique<Calibration>(engine, request.tokens, options);
}

std::vector<Written> finish(Engine& engine, const Calibration& calibration, const Request& request) {
  std::vector<Written> written;
  for (const ProfileUse& use : request.uses) {
    const double uncalibrated = calibration.uncalibrated_density(use);
    const HeadProfile profile = calibration.profile(use, request.density > 0 ? request.density : uncalibrated);
    const std::string path = (std::filesystem::path(request.folder) / profile_name(profiled(engine), use)).string();
    write_head_profile(path, profile);
    written.push_back({use, path, mean(profile.density), uncalibrated, mean(profile.recall)});
  }
  calibration.forget_part();
  return written;
}

Napi::Value describe(Napi::Env env, const std::vector<Written>& written) {
  Napi::Array out = Napi::Array::New(env, written.size());
  for (uint32_t i = 0; i < written.size(); ++i) {
    Napi::Object each = Napi::Object::New(env);
    each.Set("target", name(written[i].use));
    each.Set("path", written[i].path);
    each.Set("density", written[i].density);
    each.Set("uncalibratedDensity", written[i].uncalibrated_density);
    each.Set("recall", written[i].recall);
    out.Set(i, each);
  }
  return out;
}

}  // namespace

Napi::Value EngineObject::calibrate(const Napi::CallbackInfo& info) {
  const auto request = std::make_shared<Request>(read_request(info));
  const int64_t job = info[3].As<Napi::Number>().Int64Value();
  const auto outcome = std::make_shared<Outcome>(info.Env(), info.Length() > 4 ? info[4] : info.Env().Undefined());
  const CancelToken token = token_for(job);
  queue_->add({info[2].As<Napi::Number>().Int32Value(), guarded(outcome, [state = state_, request, job, outcome, token] {
                 token.throw_if_cancelled();  // a closed engine has cancelled all
                 LONGVIEW_CHECK(state->engine, kInvalidArgument, "The engine is not open.");
                 try {
                   auto& calibration = state->calibrations[job];
                   if (!calibration) calibration = begin(*state->engine, *request);
                   const bool more = calibration->step(token);
                   outcome->call(static_cast<double>(calibration->done()), static_cast<double>(calibration->total()));
                   if (more) return true;
                   const std::vector<Written> written = finish(*state->engine, *calibration, *request);
                   state->calibrations.erase(job);
                   outcome->resolve([written](Napi::Env env) { return describe(env, written); });
                   return false;
                 } catch (...) {
                   state->calibrations.erase(job);
                   throw;
                 }
               })});
  return outcome->promise();
}

}  // namespace longview::binding
