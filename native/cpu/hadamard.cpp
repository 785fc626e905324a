#include "cpu/hadamard.h"

#include <cmath>

namespace longview::cpu {

void hadamard(float* x, int64_t n) {
  const int64_t block = n & -n;
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(block)));
  for (int64_t half = 1; half < block; half *= 2)
    for (int64_t first = 0; first < n; first += 2 * half)
      for (int64_t i = first; i < first + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
}

}  // namespace longview::cpu
