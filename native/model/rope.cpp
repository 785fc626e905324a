#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace longview {

std::vector<double> plain_frequencies(double theta, int64_t dims) {
  std::vector<double> frequencies(static_cast<size_t>(dims / 2));
  for (size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
  return frequencies;
}

void scale_llama3(std::vector<double>& frequencies, double factor, double low_factor, double high_factor, double original_window) {
  for (double& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < original_window / high_factor) continue;
    if (wavelength > original_window / low_factor) {
      frequency /= factor;
    } else {
      const double smooth = (original_window / wavelength - low_factor) / (high_factor - low_factor);
      frequency = (1 - smooth) * frequency / factor + smooth * frequency;
    }
  }
}

double scale_yarn(std::vector<double>& frequencies, double theta, const YarnSettings& settings) {
  const double dims = 2.0 * static_cast<double>(frequencies.size());
  // The dimension whose wavelength turns `rotations` times in the original window.
  const auto dimension_of = [&](double rotations) {
    return dims * std::log(settings.original_window / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double low = dimension_of(settings.beta_fast), high = dimension_of(settings.beta_slow);
  if (settings.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (high <= low) high = low + 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / settings.factor * ramp + frequencies[i] * (1 - ramp);
  }
  const auto mscale = [&](double m) { return settings.factor <= 1 ? 1.0 : 0.1 * m * std::log(settings.factor) + 1.0; };
  if (settings.attention_factor > 0) return settings.attention_factor;
  if (settings.mscale > 0 && settings.mscale_all_dim > 0) return mscale(settings.mscale) / mscale(settings.mscale_all_dim);
  return mscale(1);
}

}  // namespace longview
