// Logits as a safetensors file of one tensor.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace longview {

// Writes `logits` [tokens, vocabulary] under the name "logits". Throws kFileNotFound where the file cannot be written.
void write_logits(const std::string& path, std::span<const float> logits, int64_t vocabulary);

}  // namespace longview
