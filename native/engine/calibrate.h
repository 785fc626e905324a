// Calibration: reads a text densely, tries every candidate plan on each layer's attention as it goes, and gives the profile
// whose heads err least for the keys that they may visit, by the time that the plans took on this device.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/cancel.h"
#include "engine/calibration_part.h"
#include "engine/engine.h"
#include "engine/output_metric.h"
#include "sparse/head_profile.h"

namespace longview {

struct CalibrationOptions {
  bool adaptive = true, minference = false;  // which plans are tried: profiles can be had for these
  int64_t from_token = 0;   // chunks that end before it are read but not measured
  int64_t every_chunk = 4;  // of the others every so many-th is measured, the last one in any case
  // A file that keeps what was measured, layer by layer, when the calibration is interrupted: one of the same model, device,
  // KV format, text and chunks goes on from there. Empty: none.
  std::string part;
};

class Calibration {
 public:
  // `engine` must have been opened for adaptive reading, so that its pages keep the means, and must outlive this; the text is
  // read densely all the same, each head being measured with the inputs that it would have got. Throws kInvalidArgument where
  // the device has no sparse attention or the text leaves nothing to measure.
  Calibration(Engine& engine, std::vector<int32_t> tokens, CalibrationOptions options);
  ~Calibration();
  Calibration(const Calibration&) = delete;
  Calibration& operator=(const Calibration&) = delete;

  // Reads one more chunk; true while there is more. Throws kCancelled within a layer's time: the layers before it are kept in
  // the part file. kInvalidArgument where what it measures is not finite. kDiskFull or kCannotWrite where that cannot be written.
  bool step(const CancelToken& cancel);
  // Tokens of the text, read so far and in all.
  int64_t done() const { return context_->length(); }
  int64_t total() const { return static_cast<int64_t>(tokens_.size()); }
  // Whether something was taken over from the part file.
  bool resumed() const { return resumed_; }

  // When all is read. Mean density over the heads when none is calibrated.
  double uncalibrated_density(const ProfileUse& use) const;
  // The heads that err least at a mean density of at most `density`.
  HeadProfile profile(const ProfileUse& use, double density) const;
  // Removes the part file: the profile was written.
  void forget_part() const;

 private:
  // Whether the layer sees no more than a span: then there is nothing to measure.
  bool slides(int64_t layer) const;
  // Candidates of a use, as a part of all: the first, and how many.
  std::pair<size_t, size_t> candidates_for(const ProfileUse& use) const;
  void measure(const Forward::Attention& attention, const CancelToken& cancel);
  void keep_part() const;
  std::vector<std::vector<float>> read(Activation x, std::span<const int64_t> rows) const;

  Engine& engine_;
  const std::vector<int32_t> tokens_;
  const CalibrationOptions options_;
  std::vector<HeadPlan> candidates_;  // adaptive ones, then MInference's
  std::unique_ptr<Context> context_;
  std::vector<LayerTrials> layers_;
  std::vector<std::optional<OutputMetric>> metrics_;  // [layers], made when first needed
  Activation tried_;
  int64_t late_chunks_ = 0;
  uint64_t identity_ = 0;
  bool resumed_ = false;
};

}  // namespace longview
