#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/text.h"
#include "model/model_file.h"

namespace longview {

std::vector<double> plain_frequencies(double theta, int64_t dims) {
  std::vector<double> frequencies(static_cast<size_t>(dims / 2));
  for (size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
  return frequencies;
}

void scale_llama3(std::vector<double>& frequencies, double factor, double low_factor, double high_factor,
                  double original_window) {
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
    return dims * std::log(settings.original_window / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(theta));
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
  const auto mscale = [&](double m) {
    return settings.factor <= 1 ? 1.0 : 0.1 * m * std::log(settings.factor) + 1.0;
  };
  if (settings.attention_factor > 0) return settings.attention_factor;
  if (settings.mscale > 0 && settings.mscale_all_dim > 0)
    return mscale(settings.mscale) / mscale(settings.mscale_all_dim);
  return mscale(1);
}

namespace {

// LongRoPE (arXiv 2402.13753): every frequency has a divisor of its own, one for inputs within the original window and
// one for longer ones. Returns the attention factor.
double scale_longrope(const RopeScaling& scaling, std::vector<double>& near, std::vector<double>& far) {
  far = near;
  for (size_t i = 0; i < near.size(); ++i) {
    near[i] /= scaling.short_factors[i];
    far[i] /= scaling.long_factors[i];
  }
  const YarnSettings& s = scaling.settings;
  if (s.attention_factor > 0) return s.attention_factor;
  return s.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(s.factor) / std::log(s.original_window));
}

}  // namespace

void build_rope(const RopeScaling& scaling, const std::string& path, RopeConfig& rope) {
  const YarnSettings& s = scaling.settings;
  const auto require = [&](bool holds, const char* what, double value) {
    if (!holds) throw_corrupt(path, format("its RoPE %s, %g, is out of range", what, value));
  };
  const auto between = [&](double value, double least, double most, const char* what) {
    require(value >= least && value <= most, what, value);
  };
  between(scaling.theta, 1.0001, 1e15, "theta");
  rope.inverse_frequencies = plain_frequencies(scaling.theta, rope.dims);
  rope.attention_scale = 1;
  if (scaling.type == "none" || scaling.type == "default") {
    rope.plain_theta = scaling.theta;
    return;
  }
  const bool longrope = scaling.type == "longrope" || scaling.type == "su";  // the older name
  LONGVIEW_CHECK(
      longrope || scaling.type == "linear" || scaling.type == "llama3" || scaling.type == "yarn",
      kUnsupportedArchitecture,
      "The model %s scales its positions by \"%s\", which Longview does not run. It runs plain, linear, llama3, "
      "yarn and longrope.",
      path.c_str(), printable(scaling.type).c_str());

  between(s.factor, 0.01, 1e4, "scaling factor");
  if (scaling.type == "linear") {
    for (double& frequency : rope.inverse_frequencies) frequency /= s.factor;
    return;
  }
  between(s.original_window, 1, 1e9, "original window");
  if (longrope) {
    between(s.original_window, 2, 1e9, "original window");
    between(s.attention_factor, 0, 100, "attention factor");
    require(scaling.short_factors.size() == rope.inverse_frequencies.size() &&
                scaling.long_factors.size() == rope.inverse_frequencies.size(),
            "number of factors", static_cast<double>(scaling.long_factors.size()));
    rope.attention_scale =
        scale_longrope(scaling, rope.inverse_frequencies, rope.long_inverse_frequencies);
    rope.short_window = static_cast<int64_t>(s.original_window);
    return;
  }
  if (scaling.type == "llama3") {
    between(scaling.low_frequency_factor, 1e-3, 1e6, "low frequency factor");
    between(scaling.high_frequency_factor, 1e-3, 1e6, "high frequency factor");
    require(scaling.high_frequency_factor > scaling.low_frequency_factor, "high frequency factor",
            scaling.high_frequency_factor);
    scale_llama3(rope.inverse_frequencies, s.factor, scaling.low_frequency_factor,
                 scaling.high_frequency_factor, s.original_window);
    return;
  }
  between(s.beta_fast, 1e-3, 1e6, "beta_fast");
  between(s.beta_slow, 1e-3, 1e6, "beta_slow");
  between(s.attention_factor, 0, 100, "attention factor");
  between(s.mscale, 0, 100, "mscale");
  between(s.mscale_all_dim, 0, 100, "mscale_all_dim");
  between(scaling.attention_multiplier, 0.01, 100, "attention factor");
  rope.attention_scale =
      scale_yarn(rope.inverse_frequencies, scaling.theta, s) * scaling.attention_multiplier;
}

}  // namespace longview
