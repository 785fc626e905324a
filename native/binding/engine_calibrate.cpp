// A calibration as a job of the engine's thread: one chunk a step, so that answers go first, and the profiles as files.
#include <algorithm>
#include <filesystem>

#include "binding/engine_object.h"
#include "binding/outcome.h"
#include "binding/values.h"
#include "os/file.h"

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
  return {model.fingerprint, model.config.attention_layers(), model.config.heads, engine.device().kind};
}

Request read_request(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Request request;
  request.tokens = token_ids(info, 0);
  const Napi::Object given = object(info, 1);
  request.folder = string_of(given.Get("folder"), "The folder of profiles");
  for (const std::string& target : strings(given.Get("targets"))) {
    const auto use = profile_use_of(target);
    if (!use) refuse(env, "There is no target \"" + target + "\" to calibrate for: fast, balanced or minference.");
    request.uses.push_back(*use);
  }
  if (request.uses.empty()) refuse(env, "calibrate needs targets: fast, balanced or minference.");
  const auto wants = [&](PrefillMode mode) { return std::any_of(request.uses.begin(), request.uses.end(), [&](const ProfileUse& use) { return use.mode == mode; }); };
  request.options.adaptive = wants(PrefillMode::kAdaptive);
  request.options.minference = wants(PrefillMode::kMinference);
  if (!given.Get("density").IsUndefined()) {
    request.density = number_or(given, "density", 1, 0, 1);
    if (request.density == 0) refuse(env, "density must be above 0.");
  }
  request.options.from_token = whole_or(given, "fromToken", request.options.from_token, 0, kMaxWhole);
  request.options.every_chunk = whole_or(given, "everyChunk", request.options.every_chunk, 1, kMaxWhole);
  return request;
}

std::unique_ptr<Calibration> begin(Engine& engine, const Request& request) {
  const ProfiledModel model = profiled(engine);
  std::error_code error;
  std::filesystem::create_directories(os::path_of(request.folder), error);
  LONGVIEW_CHECK(os::status(request.folder).kind == os::Kind::kFolder, kCannotWrite, "The folder %s for profiles could not be made: %s.", request.folder.c_str(), error.message().c_str());
  CalibrationOptions options = request.options;
  options.part = os::utf8_of(os::path_of(request.folder) / (model.fingerprint + "." + model.device + ".part"));
  return std::make_unique<Calibration>(engine, request.tokens, options);
}

std::vector<Written> finish(Engine& engine, const Calibration& calibration, const Request& request) {
  std::vector<Written> written;
  for (const ProfileUse& use : request.uses) {
    const double uncalibrated = calibration.uncalibrated_density(use);
    const HeadProfile profile = calibration.profile(use, request.density > 0 ? request.density : uncalibrated);
    const std::string path = os::utf8_of(os::path_of(request.folder) / profile_name(profiled(engine), use));
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
  const int64_t job = integer(info, 3);
  const auto outcome = std::make_shared<Outcome>(info.Env(), argument(info, 4));
  const CancelToken token = token_for(job);
  queue_->add({priority(info, 2), guarded(outcome, [state = state_, request, job, outcome, token] {
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
