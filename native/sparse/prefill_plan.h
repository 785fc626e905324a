// How a prompt is read: the mode and the target that a user sets, as a plan for every head.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sparse/head_profile.h"
#include "sparse/pattern.h"

namespace longview {

enum class PrefillMode : uint8_t {
  kDense,
  kAuto,       // dense where that is faster or `exact` is asked for, else adaptive
  kAdaptive,   // adaptive as soon as there is anything to choose among
  kMinference, // MInference's patterns: each head by its profile, vertical_slash without one; dense below 32,768 tokens
  kAShape,     // one pattern for all heads, for comparisons
  kVerticalSlash,
  kBlockSparse,
};

// What to pay for speed with. kExact: nothing; attention is dense.
enum class PrefillTarget : uint8_t { kFast, kBalanced, kExact };

// "dense", "auto", "adaptive", "minference", "a_shape", "vertical_slash", "block_sparse"; "fast", "balanced", "exact".
const char* name(PrefillMode mode);
const char* name(PrefillTarget target);
std::optional<PrefillMode> prefill_mode_of(std::string_view name);
std::optional<PrefillTarget> prefill_target_of(std::string_view name);

struct PrefillOptions {
  PrefillMode mode = PrefillMode::kDense;
  PrefillTarget target = PrefillTarget::kBalanced;
  std::string profile;  // a head profile's file (sparse/head_profile.h), for auto, adaptive and minference; empty: none
  // Where one that is named as profile_name() says is looked for, in this order, when none is given. One that cannot be used is
  // passed over, and note() says why.
  std::vector<std::string> profile_folders;
};

// What a head profile is for. Profiles of auto and adaptive are the same, one for each target; MInference's is for any.
struct ProfileUse {
  PrefillMode mode = PrefillMode::kAdaptive;
  PrefillTarget target = PrefillTarget::kBalanced;
};
// "fast", "balanced", "minference".
const char* name(const ProfileUse& use);
std::optional<ProfileUse> profile_use_of(std::string_view name);

// The file name of the profile of a model on a kind of device ("cpu", "cuda").
std::string profile_name(const ProfiledModel& model, const ProfileUse& use);

// What a head of such a layer is read by on a kind of device when no profile names it.
HeadPlan uncalibrated_plan(const ProfileUse& use, const std::string& device, bool late);

class PrefillPlan {
 public:
  // `auto_from`: tokens of context from which auto is sparse. Reads the profile where one is given or found; throws as
  // read_head_profile does where the given one cannot be used.
  PrefillPlan(const PrefillOptions& options, const ProfiledModel& model, int64_t auto_from);

  bool dense() const { return heads_.empty(); }
  // Of all heads, [layers * heads]; empty where all is dense.
  std::span<const HeadPlan> heads() const { return heads_; }
  // Whether a chunk of `tokens` tokens behind `position` others is read by these plans.
  bool applies(int64_t position, int64_t tokens) const;
  // The share of the mass that each head's attention must put where dense attention puts it, [layers * heads]; below it the
  // head's budget rises. Empty where budgets stay as they are.
  std::span<const float> target_mass() const { return target_mass_; }
  // Names everything that the KV state of a sparse reading depends on.
  const std::string& identity() const { return identity_; }
  // What there is to say of the profile, a sentence; mostly empty.
  const std::string& note() const { return note_; }

 private:
  void find_profile(const PrefillOptions& options, const ProfiledModel& model);
  void use(HeadProfile profile);

  std::vector<HeadPlan> heads_;
  int64_t from_ = 0;
  std::vector<float> target_mass_;
  std::string identity_, note_;
};

}  // namespace longview
