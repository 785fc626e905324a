// What a model file asks for beside the graph that is run: answered without it, a model would be wrong and nobody told.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace longview {

// What stands under a key of the configuration; `fallback` where there is nothing.
struct StatedSteps {
  std::function<double(const char* key, double fallback)> number;
  std::function<bool(const char* key, bool fallback)> boolean;
  bool gguf = false;  // whose names the keys have, without the architecture: llama.cpp's, or transformers'
};

// Throws kUnsupportedArchitecture, with the key, unless all that is stated is what the graph does anyway.
void refuse_unknown_steps(const StatedSteps& stated, int64_t head_dim, const std::string& path);

}  // namespace longview
