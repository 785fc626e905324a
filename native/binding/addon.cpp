// The addon's export table: what server/engine/nativeEngine.ts calls.
#include <napi.h>

#include "binding/engine_object.h"
#include "binding/metadata.h"

namespace {

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("Engine", longview::binding::EngineObject::define(env));
  exports.Set("readModelMetadata", Napi::Function::New(env, longview::binding::read_model_metadata, "readModelMetadata"));
  return exports;
}

}  // namespace

NODE_API_MODULE(longview, initialize)
