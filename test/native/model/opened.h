// Models that builders.h makes, opened from files in a folder of the test's own, and what is said where they cannot be.
#pragma once

#include <string>

#include "base/error.h"
#include "model/builders.h"
#include "model/files.h"
#include "model/weights.h"

namespace builders {

inline const files::Scratch& scratch() {
  static const files::Scratch folder;
  return folder;
}

inline longview::Model open(const Gguf& gguf) { return longview::open_model(scratch().put("model.gguf", gguf.build())); }

// `config`: a whole config.json.
inline longview::Model open(const std::string& config, const Safetensors& tensors = tiny_safetensors()) {
  scratch().put("config.json", config);
  return longview::open_model(scratch().put("model.safetensors", tensors.build()));
}
inline longview::Model open(const HubConfig& config, const Safetensors& tensors = tiny_safetensors()) { return open(text(config), tensors); }

// Empty where it opens.
template <typename... Input>
std::string message(const Input&... input) {
  try {
    open(input...);
  } catch (const longview::Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace builders
