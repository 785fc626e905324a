#include "engine/output_metric.h"

#include <algorithm>

#include "model/quant_formats.h"

namespace longview {

OutputMetric::OutputMetric(const TensorView& weight, int64_t heads, int64_t d) : d_(static_cast<size_t>(d)), gram_(static_cast<size_t>(heads) * d_ * d_) {
  std::vector<float> row(static_cast<size_t>(weight.cols));
  for (int64_t r = 0; r < weight.rows; ++r) {
    dequantize_row(weight.type, weight.data + r * (weight.bytes / weight.rows), row.data(), weight.cols);
    for (size_t h = 0; h < static_cast<size_t>(heads); ++h)
      for (size_t i = 0; i < d_; ++i) {
        float* const out = &gram_[(h * d_ + i) * d_];
        const float* const w = &row[h * d_];
        for (size_t j = 0; j < d_; ++j) out[j] += w[i] * w[j];
      }
  }
}

double OutputMetric::squared(int64_t h, std::span<const float> a, std::span<const float> b) const {
  const size_t from = static_cast<size_t>(h) * d_;
  double sum = 0;
  for (size_t i = 0; i < d_; ++i) {
    const float* const gram = &gram_[(from + i) * d_];
    double product = 0;
    for (size_t j = 0; j < d_; ++j) product += static_cast<double>(gram[j]) * static_cast<double>(a[from + j] - b[from + j]);
    sum += product * static_cast<double>(a[from + i] - b[from + i]);
  }
  return std::max(sum, 0.0);
}

}  // namespace longview
