// More tokens than a model was trained on, by YaRN, as the makers of Qwen2.5, Qwen3 and Qwen3.5 recommend for longer texts in the cards of
// their models. The factor holds for texts of every length, so that shorter ones are read a little worse.
#pragma once

#include "model/config.h"

namespace longview {

inline constexpr int64_t kMostStretch = 4;

// Whether the model is of such a family and its file has it as it was trained.
bool stretches(const ModelConfig& config);

// Makes the window of a model as it was opened 1, 2 or kMostStretch times as large. Where that is not recommended it stays, and config.note
// says so. Throws kInvalidArgument for another factor.
void stretch_window(ModelConfig& config, int64_t factor);

}  // namespace longview
