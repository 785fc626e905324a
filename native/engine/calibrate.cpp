#include "engine/calibrate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/hash.h"
#include "os/file.h"
#include "sparse/adaptive.h"
#include "sparse/pattern_search.h"

namespace longview {
namespace {

// Rows of a chunk whose outputs are compared.
constexpr int64_t kRows = 64;

std::vector<int64_t> sampled(int64_t count) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < std::min(kRows, count); ++i) rows.push_back((i + 1) * count / std::min(kRows, count) - 1);
  return rows;
}

}  // namespace

Calibration::Calibration(Engine& engine, std::vector<int32_t> tokens, CalibrationOptions options)
    : engine_(engine), tokens_(std::move(tokens)), options_(std::move(options)) {
  LONGVIEW_CHECK(engine.kv_shape().mean_tokens > 0, kInvalidArgument, "This device cannot read this model sparsely: there is nothing to calibrate.");
  LONGVIEW_CHECK(options_.every_chunk > 0 && (options_.adaptive || options_.minference), kInvalidArgument, "Calibration measures at least every chunk, and some plans.");
  LONGVIEW_CHECK(total() > options_.from_token, kInvalidArgument, "The calibration text has %lld tokens, and none is measured before token %lld. Give a longer text.",
                 static_cast<long long>(total()), static_cast<long long>(options_.from_token));
  if (options_.adaptive) candidates_ = adaptive_candidates();
  if (options_.minference)
    for (const HeadPlan& plan : minference_candidates()) candidates_.push_back(plan);
  const Model& model = engine.model();
  const ModelConfig& c = model.config;
  context_ = engine.create_context();
  context_->keep_own();  // what it reads densely
  engine.check_tokens(*context_, tokens_);
  engine.check_room(*context_, tokens_);
  layers_.resize(static_cast<size_t>(c.attention_layers()));
  for (LayerTrials& layer : layers_) layer.trials.resize(static_cast<size_t>(c.heads) * candidates_.size());
  metrics_.resize(layers_.size());

  const DeviceInfo device = engine.device();
  const std::string text = format("%s %d %s %s%s %d %s %d %d %lld %lld %lld", model.fingerprint.c_str(), kProfileKernelVersion, device.name.c_str(), device.isa.c_str(), device.arithmetic.c_str(), device.threads,
                                  engine.cache_layout().c_str(), options_.adaptive, options_.minference, static_cast<long long>(options_.from_token), static_cast<long long>(options_.every_chunk),
                                  static_cast<long long>(engine.sparse_chunk()));
  identity_ = hash64(tokens_.data(), tokens_.size() * sizeof(int32_t), hash64(text.data(), text.size()));
  if (!options_.part.empty()) resumed_ = read_calibration_part(options_.part, identity_, layers_);
}

Calibration::~Calibration() {
  if (tried_.data) engine_.backend().release(tried_);
}

bool Calibration::step(const CancelToken& cancel) {
  struct Observed {
    Engine& engine;
    ~Observed() { engine.observe_attention({}); }
  } observed{engine_};

  if (done() == total()) return false;
  bool measured = false;
  engine_.observe_attention([&](const Forward::Attention& attention) {
    if (attention.layer.index == 0) {
      const int64_t end = attention.first_position + attention.out.rows;
      measured = end == total() || (end > options_.from_token && late_chunks_++ % options_.every_chunk == 0);
    }
    if (measured && !slides(attention.layer.index)) measure(attention, cancel);
  });
  try {
    engine_.prefill_chunk(*context_, std::span(tokens_).subspan(static_cast<size_t>(done())), cancel);
  } catch (const Error&) {
    if (measured) keep_part();
    throw;
  }
  if (measured) keep_part();
  return done() < total();
}

void Calibration::measure(const Forward::Attention& a, const CancelToken& cancel) {
  const ModelConfig& c = engine_.model().config;
  Backend& backend = engine_.backend();
  const auto index = static_cast<size_t>(a.layer.index), heads = static_cast<size_t>(c.heads);
  LayerTrials& layer = layers_[index];
  if (a.first_position < layer.measured_to) return;  // before the calibration was interrupted
  if (tried_.rows < a.out.rows) {
    if (tried_.data) backend.release(tried_);
    tried_ = backend.allocate(a.out.rows, a.out.cols);
  }
  if (!metrics_[index]) metrics_[index].emplace(engine_.model().weights.layers[static_cast<size_t>(c.attention_layer(a.layer.index))].attention_output, c.heads, c.head_dim);
  const Activation tried = backend.rows(tried_, 0, a.out.rows);
  const std::vector<int64_t> rows = sampled(a.out.rows);
  const std::vector<std::vector<float>> dense = read(a.out, rows);

  // Only a layer that is measured to its end counts.
  LayerTrials sums = layer;
  sums.measured_to = a.first_position + a.out.rows;
  sums.rows += static_cast<int64_t>(rows.size());
  std::vector<double> inputs;  // squared lengths
  for (const std::vector<float>& row : read(a.hidden, rows)) {
    double& input = inputs.emplace_back(1e-30);
    for (const float x : row) input += static_cast<double>(x) * static_cast<double>(x);
  }
  std::vector<HeadCoverage> coverage(layers_.size() * heads);
  const auto run = [&](const HeadPlan& plan) {
    const std::vector<HeadPlan> plans(heads, sparse::at_length(plan, a.first_position + a.q.rows, engine_.kv_shape().mean_tokens));
    backend.attention_sparse(a.q, engine_.kv_shape(), c.heads, a.layer, a.pages, a.first_position, plans, tried);
    return read(tried, rows);  // waits
  };
  run(candidates_.front());  // buffers grow
  for (size_t candidate = 0; candidate < candidates_.size(); ++candidate) {
    cancel.throw_if_cancelled();
    backend.take_coverage(coverage);  // of what came before
    const auto start = std::chrono::steady_clock::now();
    const std::vector<std::vector<float>> sparse = run(candidates_[candidate]);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    backend.take_coverage(coverage);
    const auto of_layer = std::span(coverage).subspan(index * heads, heads);
    double visited = 0;
    for (const HeadCoverage& head : of_layer) visited += head.visited;
    for (size_t h = 0; h < heads; ++h) {
      PlanTrial& trial = sums.trials[h * candidates_.size() + candidate];
      for (size_t row = 0; row < rows.size(); ++row) {
        const double error = metrics_[index]->squared(static_cast<int64_t>(h), sparse[row], dense[row]) / inputs[row];
        trial.error += error * error;
      }
      // A plan that nothing is known of would be taken for one that errs least.
      LONGVIEW_CHECK(std::isfinite(trial.error), kInvalidArgument, "What attention makes of this text in layer %lld is not finite: the model cannot be calibrated by it.", static_cast<long long>(a.layer.index));
      trial.coverage += of_layer[h];
      // All heads ran at once: each took its share of the time.
      trial.seconds += visited > 0 ? seconds * of_layer[h].visited / visited : 0;
    }
  }
  layer = std::move(sums);
}

std::vector<std::vector<float>> Calibration::read(Activation x, std::span<const int64_t> rows) const {
  std::vector<std::vector<float>> out;
  for (const int64_t row : rows) engine_.backend().read_row(x, row, out.emplace_back(static_cast<size_t>(x.cols)));
  return out;
}

void Calibration::keep_part() const {
  if (!options_.part.empty()) write_calibration_part(options_.part, identity_, layers_);
}

void Calibration::forget_part() const {
  std::error_code error;
  if (!options_.part.empty()) std::filesystem::remove(os::path_of(options_.part), error);
}

std::pair<size_t, size_t> Calibration::candidates_for(const ProfileUse& use) const {
  const bool minference = use.mode == PrefillMode::kMinference;
  LONGVIEW_CHECK(minference ? options_.minference : options_.adaptive, kInvalidArgument, "The plans of %s were not measured.", name(use));
  const size_t adaptive = options_.adaptive ? adaptive_candidates().size() : 0;
  return minference ? std::pair(adaptive, candidates_.size() - adaptive) : std::pair(size_t{0}, adaptive);
}

bool Calibration::slides(int64_t layer) const { return engine_.model().config.span(layer) > 0; }

double Calibration::uncalibrated_density(const ProfileUse& use) const {
  const auto [first, count] = candidates_for(use);
  const auto candidates = std::span(candidates_).subspan(first, count);
  const auto layers = static_cast<int64_t>(layers_.size());
  double sum = 0;
  int64_t heads = 0;
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (slides(layer)) continue;
    const auto found = std::find(candidates.begin(), candidates.end(), uncalibrated_plan(use, engine_.device().kind, is_late(layer, layers)));
    LONGVIEW_CHECK(found != candidates.end(), kInternal, "The plan of %s is not among those that were measured.", name(use));
    const std::vector<PlanTrial>& trials = layers_[static_cast<size_t>(layer)].trials;
    for (size_t i = first + static_cast<size_t>(found - candidates.begin()); i < trials.size(); i += candidates_.size(), ++heads) sum += density_of(trials[i].coverage);
  }
  return sum / static_cast<double>(heads);
}

HeadProfile Calibration::profile(const ProfileUse& use, double density) const {
  LONGVIEW_CHECK(density > 0, kInvalidArgument, "Calibration needs a density above 0.");
  const auto [first, count] = candidates_for(use);
  const Model& model = engine_.model();
  const auto heads = static_cast<size_t>(model.config.heads);
  std::vector<size_t> measured;  // heads
  std::vector<PlanMeasurement> measurements;
  const auto trial_of = [&](size_t head, size_t candidate) -> const PlanTrial& { return layers_[head / heads].trials[head % heads * candidates_.size() + first + candidate]; };
  const auto weight_of = [&](size_t head) { return is_late(static_cast<int64_t>(head / heads), model.config.attention_layers()) ? kLateWeight : 1.0; };
  for (size_t head = 0; head < layers_.size() * heads; ++head) {
    if (slides(static_cast<int64_t>(head / heads))) continue;
    measured.push_back(head);
    const auto rows = static_cast<double>(std::max<int64_t>(layers_[head / heads].rows, 1));
    for (size_t candidate = 0; candidate < count; ++candidate) {
      const PlanTrial& trial = trial_of(head, candidate);
      measurements.push_back({weight_of(head) * std::sqrt(trial.error / rows), density_of(trial.coverage), trial.seconds});
    }
  }
  const std::vector<int32_t> chosen = choose_plans(measurements, static_cast<int64_t>(count), density);
  HeadProfile profile;
  profile.model_fingerprint = model.fingerprint;
  profile.kernel_version = kProfileKernelVersion;
  profile.device = engine_.device().kind;
  profile.layers = model.config.attention_layers();
  profile.heads = model.config.heads;
  // Those of the others see what they see.
  profile.plans.resize(layers_.size() * heads);
  profile.density.resize(profile.plans.size(), 1.0f);
  profile.error.resize(profile.plans.size(), 0.0f);
  profile.recall.resize(profile.plans.size(), 1.0f);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const auto candidate = static_cast<size_t>(chosen[i]);
    const size_t head = measured[i];
    const PlanMeasurement& measurement = measurements[i * count + candidate];
    const HeadCoverage& coverage = trial_of(head, candidate).coverage;
    profile.plans[head] = candidates_[first + candidate];
    profile.density[head] = static_cast<float>(measurement.density);
    profile.error[head] = static_cast<float>(measurement.error / weight_of(head));
    if (coverage.probes > 0) profile.recall[head] = static_cast<float>(coverage.covered / static_cast<double>(coverage.probes));
  }
  return profile;
}

}  // namespace longview
