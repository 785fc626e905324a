// GGUF metadata as JavaScript values, for the tokenizer and the chat template.
#pragma once

#include <napi.h>

#include "base/error.h"

namespace longview::binding {

// A JavaScript Error with `code`.
inline Napi::Error to_js(Napi::Env env, const Error& error) {
  Napi::Error out = Napi::Error::New(env, error.what());
  out.Set("code", Napi::String::New(env, name(error.code)));
  return out;
}

// readModelMetadata(path): {format: "gguf" | "safetensors", values, folder?}. Throws an Error with `code`.
Napi::Value read_model_metadata(const Napi::CallbackInfo& info);

}  // namespace longview::binding
