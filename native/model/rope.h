// RoPE frequencies of the scalings that long-context models use, in double.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace longview {

// theta^(-2i/dims) for i < dims/2.
std::vector<double> plain_frequencies(double theta, int64_t dims);

// Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, those between interpolated.
void scale_llama3(std::vector<double>& frequencies, double factor, double low_factor, double high_factor,
                  double original_window);

// YaRN (arXiv 2309.00071): a ramp between kept and interpolated frequencies.
struct YarnSettings {
  double factor = 1;
  double original_window = 0;
  double beta_fast = 32, beta_slow = 1;   // turns in the original window where the ramp begins and ends
  double attention_factor = 0;            // on cos and sin; 0: from the two below, or 0.1 ln(factor) + 1
  double mscale = 0, mscale_all_dim = 0;  // both set: the ratio of their factors
  bool truncate = true;                   // round the ramp's ends to whole dimensions
};
// Returns the attention factor.
double scale_yarn(std::vector<double>& frequencies, double theta, const YarnSettings& settings);

// How a model file says that its positions are scaled; both formats read theirs into this.
struct RopeScaling {
  std::string type = "none";  // or "default", "linear", "llama3", "yarn", "longrope"
  double theta = 10000;
  YarnSettings settings;  // factor and original_window also serve the other types
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  double attention_multiplier = 1;                             // GGUF's, on top of YaRN's own factor
  std::vector<double> short_factors, long_factors;             // longrope: divisors of the frequencies
};

// Checks the ranges and fills rope.inverse_frequencies and rope.attention_scale for rope.dims, which has been
// checked. Throws kUnsupportedArchitecture for another type of scaling and kFileCorrupt for values out of
// range.
void build_rope(const RopeScaling& scaling, const std::string& path, RopeConfig& rope);

}  // namespace longview
