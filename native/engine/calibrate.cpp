#include "engine/calibrate.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "model/quant_formats.h"
#include "sparse/pattern_search.h"

namespace longview {
namespace {

// Rows of a chunk whose outputs are compared.
constexpr int64_t kRows = 32;

// The output matrix as a metric of one head's output: the squared length of W_h o is o^T (W_h^T W_h) o.
class OutputMetric {
 public:
  OutputMetric(const TensorView& weight, int64_t heads, int64_t d) : d_(static_cast<size_t>(d)), gram_(static_cast<size_t>(heads) * d_ * d_) {
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

  // Of the difference of two rows' outputs of head `h`.
  double squared(int64_t h, std::span<const float> a, std::span<const float> b) const {
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

 private:
  size_t d_;
  std::vector<float> gram_;  // [heads, d, d]
};

// What the plans of a ladder did so far, all heads of all layers.
class Measurements {
 public:
  Measurements(Engine& engine, std::vector<HeadPlan> ladder) : backend_(engine.backend()), model_(engine.model()), shape_(engine.kv_shape()), ladder_(std::move(ladder)) {
    const ModelConfig& c = model_.config;
    inputs_.resize(static_cast<size_t>(c.layers));
    measured_.resize(static_cast<size_t>(c.layers * c.heads) * ladder_.size());
    coverage_.resize(static_cast<size_t>(c.layers * c.heads));
  }
  ~Measurements() {
    if (tried_.data) backend_.release(tried_);
  }
  Measurements(const Measurements&) = delete;
  Measurements& operator=(const Measurements&) = delete;

  void add(const Forward::Attention& a) {
    const ModelConfig& c = model_.config;
    if (tried_.rows < a.out.rows) {
      if (tried_.data) backend_.release(tried_);
      tried_ = backend_.allocate(a.out.rows, a.out.cols);
    }
    const Activation tried = backend_.rows(tried_, 0, a.out.rows);
    const std::vector<int64_t> rows = sampled(a.out.rows);
    const std::vector<std::vector<float>> dense = read(a.out, rows), inputs = read(a.hidden, rows);
    for (const std::vector<float>& row : inputs)
      for (const float x : row) inputs_[static_cast<size_t>(a.layer)] += static_cast<double>(x) * static_cast<double>(x);
    const OutputMetric metric(model_.weights.layers[static_cast<size_t>(a.layer)].attention_output, c.heads, c.head_dim);

    for (size_t candidate = 0; candidate < ladder_.size(); ++candidate) {
      const std::vector<HeadPlan> plans(static_cast<size_t>(c.heads), ladder_[candidate]);
      backend_.take_coverage(coverage_);  // of what came before
      const auto start = std::chrono::steady_clock::now();
      backend_.attention_sparse(a.q, shape_, c.heads, a.layer, a.pages, a.first_position, plans, tried);
      const std::vector<std::vector<float>> sparse = read(tried, rows);  // waits
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      backend_.take_coverage(coverage_);
      const std::span<const HeadCoverage> heads = std::span(coverage_).subspan(static_cast<size_t>(a.layer * c.heads), static_cast<size_t>(c.heads));
      double visited = 0;
      for (const HeadCoverage& head : heads) visited += head.visited;
      for (int64_t h = 0; h < c.heads; ++h) {
        Sum& sum = measured_[static_cast<size_t>(a.layer * c.heads + h) * ladder_.size() + candidate];
        const HeadCoverage& head = heads[static_cast<size_t>(h)];
        for (size_t row = 0; row < rows.size(); ++row) sum.error += metric.squared(h, sparse[row], dense[row]);
        sum.coverage += head;
        sum.seconds += visited > 0 ? seconds * head.visited / visited : 0;
      }
    }
  }

  HeadProfile profile(double density) const {
    const ModelConfig& c = model_.config;
    std::vector<PlanMeasurement> measurements(measured_.size());
    for (size_t i = 0; i < measured_.size(); ++i) {
      const Sum& sum = measured_[i];
      const double input = inputs_[i / ladder_.size() / static_cast<size_t>(c.heads)];
      measurements[i] = {input > 0 ? sum.error / input : 0, sum.coverage.causal > 0 ? sum.coverage.visited / sum.coverage.causal : 1, sum.seconds};
    }
    const std::vector<int32_t> chosen = choose_plans(measurements, static_cast<int64_t>(ladder_.size()), density);
    HeadProfile profile;
    profile.model_fingerprint = model_.fingerprint;
    profile.kernel_version = kProfileKernelVersion;
    profile.layers = c.layers;
    profile.heads = c.heads;
    for (size_t head = 0; head < chosen.size(); ++head) {
      const auto candidate = static_cast<size_t>(chosen[head]);
      const size_t at = head * ladder_.size() + candidate;
      profile.plans.push_back(ladder_[candidate]);
      profile.density.push_back(static_cast<float>(measurements[at].density));
      profile.error.push_back(static_cast<float>(measurements[at].error));
      const HeadCoverage& coverage = measured_[at].coverage;
      profile.recall.push_back(coverage.probes > 0 ? static_cast<float>(coverage.covered / static_cast<double>(coverage.probes)) : 1.0f);
    }
    return profile;
  }

 private:
  struct Sum {
    double error = 0, seconds = 0;
    HeadCoverage coverage;
  };

  static std::vector<int64_t> sampled(int64_t count) {
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < std::min(kRows, count); ++i) rows.push_back((i + 1) * count / std::min(kRows, count) - 1);
    return rows;
  }
  std::vector<std::vector<float>> read(Activation x, std::span<const int64_t> rows) {
    std::vector<std::vector<float>> out;
    for (const int64_t row : rows) backend_.read_row(x, row, out.emplace_back(static_cast<size_t>(x.cols)));
    return out;
  }

  Backend& backend_;
  const Model& model_;
  const KvShape shape_;
  const std::vector<HeadPlan> ladder_;
  Activation tried_;
  std::vector<double> inputs_;          // [layers]: squared length of the residual stream, sampled rows
  std::vector<Sum> measured_;           // [layers * heads * ladder]
  std::vector<HeadCoverage> coverage_;  // [layers * heads]
};

}  // namespace

HeadProfile calibrate_heads(Engine& engine, std::span<const int32_t> tokens, const CalibrationOptions& options, const CancelToken& cancel) {
  LONGVIEW_CHECK(engine.kv_shape().mean_tokens > 0, kInvalidArgument, "This device cannot read this model sparsely: there is nothing to calibrate.");
  LONGVIEW_CHECK(options.every_chunk > 0 && options.density > 0, kInvalidArgument, "Calibration needs a density above 0 and measures at least every chunk.");
  const auto total = static_cast<int64_t>(tokens.size());
  LONGVIEW_CHECK(total > options.from_token, kInvalidArgument, "The calibration text has %lld tokens, and none is measured before token %lld. Give a longer text.",
                 static_cast<long long>(total), static_cast<long long>(options.from_token));
  Measurements measurements(engine, adaptive_ladder());
  struct Observed {
    Engine& engine;
    ~Observed() { engine.observe_attention({}); }
  } observed{engine};

  const auto context = engine.create_context();
  engine.check_tokens(*context, tokens);
  int64_t late_chunks = 0, chunk = 0;
  bool any = false;
  while (context->length() < total) {
    const bool last = chunk > 0 && context->length() + chunk >= total;
    const bool measured = last || (context->length() >= options.from_token && late_chunks++ % options.every_chunk == 0);
    any = any || measured;
    if (measured) engine.observe_attention([&](const Forward::Attention& a) { measurements.add(a); });
    else engine.observe_attention({});
    chunk = engine.prefill_chunk(*context, tokens.subspan(static_cast<size_t>(context->length())), cancel);
    if (options.on_progress) options.on_progress(context->length(), total);
  }
  LONGVIEW_CHECK(any, kInvalidArgument, "The calibration text was read in one chunk, which begins before token %lld. Give a longer text.", static_cast<long long>(options.from_token));
  return measurements.profile(options.density);
}

}  // namespace longview
