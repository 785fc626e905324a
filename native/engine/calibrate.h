// Calibration: reads a text densely, tries every plan of a ladder on each layer's attention as it goes, and gives the profile
// whose heads err least at a given density.
#pragma once

#include <functional>
#include <span>

#include "base/cancel.h"
#include "engine/engine.h"
#include "sparse/head_profile.h"

namespace longview {

struct CalibrationOptions {
  double density = 0.17;    // mean over the heads of keys and means visited, of those that dense attention visits
  int64_t from_token = 0;   // chunks that begin before it are read but not measured
  int64_t every_chunk = 4;  // of the others every so many-th is measured, the last one in any case
  // Called after each chunk: tokens read so far, tokens in all. May be empty.
  std::function<void(int64_t done, int64_t total)> on_progress;
};

// `engine` must have been opened for adaptive reading, so that its pages keep the means; the text is read densely all the
// same, each head being measured with the inputs that it would have got. Throws kInvalidArgument where the device has no
// sparse attention or the text leaves nothing to measure, and kCancelled.
HeadProfile calibrate_heads(Engine& engine, std::span<const int32_t> tokens, const CalibrationOptions& options, const CancelToken& cancel);

}  // namespace longview
