// GGUF metadata as JavaScript values, for the tokenizer and the chat template.
#pragma once

#include <napi.h>

#include <new>

#include "base/error.h"

namespace longview::binding {

// A JavaScript Error with `code`.
inline Napi::Error to_js(Napi::Env env, const Error& error) {
  Napi::Error out = Napi::Error::New(env, error.what());
  out.Set("code", Napi::String::New(env, name(error.code)));
  return out;
}

// The exception that is being handled, as the one error type.
inline Error caught() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kOutOfMemory, "The machine is out of memory. Close other programs or use a smaller context.", __FILE__, __LINE__);
  } catch (const std::exception& error) {
    return Error(ErrorCode::kInternal, error.what(), __FILE__, __LINE__);
  }
}

// readModelMetadata(path): {format: "gguf" | "safetensors", values, folder?}. Throws an Error with `code`.
Napi::Value read_model_metadata(const Napi::CallbackInfo& info);

}  // namespace longview::binding
