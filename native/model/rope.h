// RoPE frequencies of the scalings that long-context models use, in double.
#pragma once

#include "model/config.h"

namespace longview {

// theta^(-2i/dims) for i < dims/2.
std::vector<double> plain_frequencies(double theta, int64_t dims);

// Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, those between interpolated.
void scale_llama3(std::vector<double>& frequencies, double factor, double low_factor, double high_factor, double original_window);

// YaRN (arXiv 2309.00071): ramp between interpolated and kept frequencies; returns the attention factor for cos and sin.
struct YarnSettings {
  double factor = 1, original_window = 0, beta_fast = 32, beta_slow = 1;
  double attention_factor = 0;             // 0: 0.1 ln(factor) + 1
  double mscale = 0, mscale_all_dim = 0;   // both set: their ratio is the factor
  bool truncate = true;                    // round the ramp's ends to whole dimensions
};
double scale_yarn(std::vector<double>& frequencies, double theta, const YarnSettings& settings);

}  // namespace longview
