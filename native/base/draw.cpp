#include "base/draw.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/argmax.h"

namespace longview {
namespace {

constexpr uint32_t kOne = uint32_t{1} << 31;

// ln(2)^i / i!, the series of 2^x, in units of 2^-32.
constexpr std::array<uint64_t, 10> series() {
  std::array<uint64_t, 10> out{};
  double term = 1;
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<uint64_t>(term * 0x1p32 + 0.5);
    term *= 0.693147180559945309417 / static_cast<double>(i + 1);
  }
  return out;
}

// kOne * 2^-x, and 0 where that is below 1 or x is no number. x is not negative.
uint32_t power(double x) {
  if (!(x < 32)) return 0;
  const auto fixed = static_cast<uint64_t>(x * 0x1p32);  // exact but for its end
  const uint64_t whole = fixed >> 32, fraction = fixed & 0xffffffff;
  if (fraction == 0) return kOne >> whole;
  // 2^-x is 2^(1 - fraction), whose series has positive terms alone, shifted.
  constexpr auto kSeries = series();
  uint64_t sum = kSeries.back();
  for (size_t i = kSeries.size() - 1; i-- > 0;) sum = kSeries[i] + (sum * ((uint64_t{1} << 32) - fraction) >> 32);
  return static_cast<uint32_t>(sum >> (whole + 2));
}

// Another random number from one.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

}  // namespace

// Draws among all, and again among those above what was drawn while that lies outside a limit: nothing is sorted.
int32_t draw(std::span<const float> logits, const Sampling& sampling, uint64_t random) {
  const int32_t first = argmax(logits);
  const double best = logits[static_cast<size_t>(first)], scale = sampling.scale();
  if (!std::isfinite(best)) return first;
  std::vector<uint32_t> weights(logits.size());
  std::transform(logits.begin(), logits.end(), weights.begin(), [&](float logit) { return power((best - static_cast<double>(logit)) * scale); });

  struct Above {
    uint64_t mass = 0, count = 0;
  };
  const auto above = [&](uint32_t weight) {
    Above sum;
    for (const uint32_t w : weights)
      if (w > weight) sum.mass += w, ++sum.count;
    return sum;
  };
  const double most = static_cast<double>(sampling.top_p) * static_cast<double>(above(0).mass);
  const uint32_t least = sampling.least_weight();
  uint32_t floor = least > 0 ? least - 1 : 0;  // what is not above it is out
  uint64_t mass = above(floor).mass;
  for (;; random = mix(random)) {
    // Of a mass below 2^51 the upper half of the random number's bits says more than doubles could.
    uint64_t point = static_cast<uint64_t>(static_cast<unsigned __int128>(random) * mass >> 64);
    size_t i = 0;
    for (; weights[i] <= floor || point >= weights[i]; ++i)
      if (weights[i] > floor) point -= weights[i];
    const Above over = above(weights[i]);
    if (over.mass == 0 || ((sampling.top_k == 0 || over.count < static_cast<uint64_t>(sampling.top_k)) && static_cast<double>(over.mass) < most)) return static_cast<int32_t>(i);
    floor = weights[i];
    mass = over.mass;
  }
}

}  // namespace longview
