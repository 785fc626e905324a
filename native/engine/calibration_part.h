// What a calibration has measured so far, and the file that keeps it when the calibration is interrupted.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sparse/pattern.h"

namespace longview {

// Of one plan for one head: sums over the rows that were measured.
struct PlanTrial {
  // (|what the plan changes in the layer's output|^2 / |the layer's input|^2)^2: the few rows in which a head fetches something
  // from far weigh more than the many in which it does not matter.
  double error = 0;
  double seconds = 0;  // of this device
  HeadCoverage coverage;
};

struct LayerTrials {
  int64_t measured_to = 0;        // position behind the last chunk that was measured
  int64_t rows = 0;               // whose errors were summed
  std::vector<PlanTrial> trials;  // [heads * candidates]
};

// Numbers in this machine's byte order behind `identity`, which names model, device, KV format, text, chunks and candidates. Written as a whole.
// Throws kDiskFull or kCannotWrite.
void write_calibration_part(const std::string& path, uint64_t identity, std::span<const LayerTrials> layers);

// Fills `layers`, whose trials have the size that is expected. False, with `layers` as they were, where there is no such file,
// or one that is damaged or of another calibration: then everything is measured anew.
bool read_calibration_part(const std::string& path, uint64_t identity, std::span<LayerTrials> layers);

}  // namespace longview
