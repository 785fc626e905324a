#include "sparse/prefill_plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/hash.h"
#include "os/file.h"
#include "sparse/adaptive.h"

namespace longview {
namespace {

constexpr std::array kModes = {"dense", "auto", "adaptive", "minference", "a_shape", "vertical_slash", "block_sparse"};
constexpr std::array kTargets = {"fast", "balanced", "exact"};

// Tokens of context from which MInference's users switch it on.
constexpr int64_t kMinferenceFrom = 32768;
// A shorter chunk is a question or an edit: choosing costs more than it saves.
constexpr int64_t kLeastChunk = 64;

// A head under this has a mean that hides what it looks for: the built-in model reaches 0.91 and 0.84 on average.
constexpr float kFastMass = 0.5f, kBalancedMass = 0.7f;
// A calibrated head may have little mass to cover: under this part of what it had on the calibration text, that text was another.
constexpr float kOfCalibrated = 0.8f;

template <typename Value, size_t N>
std::optional<Value> find(const std::array<const char*, N>& names, std::string_view name) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return static_cast<Value>(i);
  return std::nullopt;
}

Pattern pattern_for(PrefillMode mode) {
  switch (mode) {
    case PrefillMode::kDense: return Pattern::kDense;
    case PrefillMode::kAuto:
    case PrefillMode::kAdaptive: return Pattern::kAdaptive;
    case PrefillMode::kAShape: return Pattern::kAShape;
    case PrefillMode::kBlockSparse: return Pattern::kBlockSparse;
    case PrefillMode::kMinference:
    case PrefillMode::kVerticalSlash: return Pattern::kVerticalSlash;
  }
  return Pattern::kDense;
}

std::string digest(const std::string& text) { return format("%016llx", static_cast<unsigned long long>(hash64(text.data(), text.size()))); }

std::string digest(std::span<const HeadPlan> plans) {
  std::string text;
  for (const HeadPlan& p : plans)
    text += format("%s %d %d %d %d %d %s %a;", name(p.pattern), p.sink, p.window, p.columns, p.diagonals, p.blocks, name(p.rule), static_cast<double>(p.threshold));
  return digest(text);
}

std::string digest(std::span<const float> masses) {
  std::string text;
  for (const float mass : masses) text += format("%a;", static_cast<double>(mass));
  return digest(text);
}

}  // namespace

const char* name(const ProfileUse& use) { return use.mode == PrefillMode::kMinference ? name(use.mode) : name(use.target); }

std::optional<ProfileUse> profile_use_of(std::string_view text) {
  for (const ProfileUse& use : {ProfileUse{PrefillMode::kAdaptive, PrefillTarget::kFast}, ProfileUse{PrefillMode::kAdaptive, PrefillTarget::kBalanced}, ProfileUse{PrefillMode::kMinference}})
    if (text == name(use)) return use;
  return std::nullopt;
}

std::string profile_name(const ProfiledModel& model, const ProfileUse& use) { return model.fingerprint + "." + model.device + "." + name(use) + ".profile.json"; }

HeadPlan uncalibrated_plan(const ProfileUse& use, const std::string& device, bool late) {
  HeadPlan plan = default_plan(pattern_for(use.mode));
  const Shares shares = device == "cpu" ? kCpuShares : kGpuShares;
  if (plan.pattern == Pattern::kAdaptive) plan.threshold = late ? kLateShare : use.target == PrefillTarget::kFast ? shares.fast : shares.balanced;
  return plan;
}

const char* name(PrefillMode mode) { return kModes[static_cast<size_t>(mode)]; }
const char* name(PrefillTarget target) { return kTargets[static_cast<size_t>(target)]; }
std::optional<PrefillMode> prefill_mode_of(std::string_view name) { return find<PrefillMode>(kModes, name); }
std::optional<PrefillTarget> prefill_target_of(std::string_view name) { return find<PrefillTarget>(kTargets, name); }

PrefillPlan::PrefillPlan(const PrefillOptions& options, const ProfiledModel& model, int64_t auto_from) {
  identity_ = "dense";
  if (options.mode == PrefillMode::kDense || options.target == PrefillTarget::kExact) return;
  // A mode that names one pattern for all heads is for comparisons: it stays what it says.
  const bool per_head = options.mode == PrefillMode::kAuto || options.mode == PrefillMode::kAdaptive || options.mode == PrefillMode::kMinference;
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    const auto count = static_cast<size_t>(model.heads);
    const bool late = is_late(layer, model.layers);
    heads_.insert(heads_.end(), count, uncalibrated_plan({options.mode, options.target}, model.device, late));
    if (per_head) target_mass_.insert(target_mass_.end(), count, late || options.target == PrefillTarget::kFast ? kFastMass : kBalancedMass);
  }
  if (options.mode == PrefillMode::kAuto) from_ = auto_from;
  if (options.mode == PrefillMode::kMinference) from_ = kMinferenceFrom;
  const std::vector<float> asked = target_mass_;
  if (per_head && !options.profile.empty()) use(read_head_profile(options.profile, model));
  else if (per_head) find_profile(options, model);
  identity_ = format("%s %s from %lld by %s to %lld blocks", name(options.mode), name(options.target), static_cast<long long>(from_), digest(heads_).c_str(), static_cast<long long>(sparse::kShareBlocks));
  if (target_mass_ != asked) identity_ += " for " + digest(target_mass_);  // when budgets rise
}

void PrefillPlan::find_profile(const PrefillOptions& options, const ProfiledModel& model) {
  for (const std::string& folder : options.profile_folders) {
    const std::string path = os::utf8_of(os::path_of(folder) / profile_name(model, {options.mode, options.target}));
    if (os::status(path).kind == os::Kind::kNothing) continue;
    try {
      return use(read_head_profile(path, model));
    } catch (const Error& unusable) {
      note_ = unusable.what();
    }
  }
}

void PrefillPlan::use(HeadProfile profile) {
  heads_ = std::move(profile.plans);
  note_ = std::move(profile.note);
  for (size_t i = 0; i < target_mass_.size(); ++i)
    if (!std::isnan(profile.recall[i])) target_mass_[i] = std::min(target_mass_[i], kOfCalibrated * profile.recall[i]);
}

bool PrefillPlan::applies(int64_t position, int64_t tokens) const { return !dense() && tokens >= kLeastChunk && position + tokens > from_; }

}  // namespace longview
