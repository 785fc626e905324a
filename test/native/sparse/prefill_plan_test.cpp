// How a mode and a target become plans, and what happens to profiles that are found and cannot be used.
#include "sparse/prefill_plan.h"

#include <cmath>

#include "base/error.h"
#include "check.h"
#include "model/files.h"

using namespace longview;

namespace {

const ProfiledModel kModel{"00112233445566778899aabbccddeeff", 1, 2, "cpu"};

// A dense head, and an adaptive one whose recall was measured.
HeadProfile sample() {
  HeadProfile profile;
  profile.model_fingerprint = kModel.fingerprint;
  profile.kernel_version = kProfileKernelVersion;
  profile.device = "cpu";
  profile.layers = 1;
  profile.heads = 2;
  profile.plans = {default_plan(Pattern::kDense), default_plan(Pattern::kAdaptive)};
  profile.plans[1].threshold = 0.25f;
  profile.recall = {std::nanf(""), 0.5f};
  return profile;
}

PrefillPlan plan(PrefillMode mode, PrefillTarget target, const std::string& folder = "") { return {{mode, target, "", {folder}}, kModel, 8192}; }

}  // namespace

TEST("modes and targets") {
  CHECK(plan(PrefillMode::kDense, PrefillTarget::kFast).dense());
  CHECK(plan(PrefillMode::kAuto, PrefillTarget::kExact).dense());
  const PrefillPlan fast = plan(PrefillMode::kAuto, PrefillTarget::kFast), balanced = plan(PrefillMode::kAuto, PrefillTarget::kBalanced);
  CHECK(fast.heads().size() == 2 && fast.heads()[0].pattern == Pattern::kAdaptive && fast.heads()[0].threshold > balanced.heads()[0].threshold);
  CHECK(fast.identity() != balanced.identity());
  CHECK(fast.target_mass().size() == 2 && fast.target_mass()[0] < balanced.target_mass()[0]);
  CHECK(!balanced.applies(0, 8192) && balanced.applies(8192, 64) && !balanced.applies(8192, 63));
  CHECK(plan(PrefillMode::kVerticalSlash, PrefillTarget::kBalanced).target_mass().empty());
  CHECK(fast.target_mass()[0] == 0.5f && balanced.target_mass()[0] == 0.7f);
  // MInference's own rule; its patterns by name are for comparisons, from the first chunk on.
  const PrefillPlan minference = plan(PrefillMode::kMinference, PrefillTarget::kBalanced);
  CHECK(!minference.applies(0, 32768) && minference.applies(1, 32768) && minference.applies(32768, 64));
  for (const PrefillMode mode : {PrefillMode::kAShape, PrefillMode::kVerticalSlash, PrefillMode::kBlockSparse, PrefillMode::kAdaptive}) CHECK(plan(mode, PrefillTarget::kBalanced).applies(0, 64));
}

TEST("late layers visit fewer blocks of keys, and may miss more") {
  for (const auto& [device, shares] : {std::pair("cpu", kCpuShares), std::pair("cuda", kGpuShares)}) {
    const ProfiledModel model{kModel.fingerprint, 6, 2, device};
    const PrefillPlan balanced({PrefillMode::kAuto, PrefillTarget::kBalanced, "", {}}, model, 0), fast({PrefillMode::kAuto, PrefillTarget::kFast, "", {}}, model, 0);
    for (size_t head = 0; head < 12; ++head) {
      const bool late = head >= 8;
      CHECK(balanced.heads()[head].threshold == (late ? kLateShare : shares.balanced) && fast.heads()[head].threshold == (late ? kLateShare : shares.fast));
      CHECK((balanced.target_mass()[head] == fast.target_mass()[head]) == late);
    }
    CHECK(balanced.identity() != fast.identity());
  }
}

TEST("a found profile gives the plans, and asks each head for a part of the mass that it was measured with") {
  const files::Scratch scratch;
  write_head_profile(scratch.path(profile_name(kModel, {PrefillMode::kAdaptive, PrefillTarget::kBalanced})), sample());
  for (const PrefillMode mode : {PrefillMode::kAuto, PrefillMode::kAdaptive}) {
    const PrefillPlan found = plan(mode, PrefillTarget::kBalanced, scratch.path()), none = plan(mode, PrefillTarget::kBalanced);
    CHECK(std::vector<HeadPlan>(found.heads().begin(), found.heads().end()) == sample().plans);
    CHECK(found.note().empty() && found.identity() != none.identity());
    CHECK(found.target_mass()[0] == none.target_mass()[0]);
    CHECK_NEAR(found.target_mass()[1], 0.4, 1e-6);
  }
  // Of another target, or for MInference's patterns, which have one of their own.
  CHECK(plan(PrefillMode::kAuto, PrefillTarget::kFast, scratch.path()).identity() == plan(PrefillMode::kAuto, PrefillTarget::kFast).identity());
  CHECK(plan(PrefillMode::kMinference, PrefillTarget::kBalanced, scratch.path()).identity() == plan(PrefillMode::kMinference, PrefillTarget::kBalanced).identity());
}

TEST("what there is to say of a profile that is used is said") {
  const files::Scratch scratch;
  HeadProfile old = sample();
  old.kernel_version = 99;
  write_head_profile(scratch.path(profile_name(kModel, {PrefillMode::kAdaptive, PrefillTarget::kBalanced})), old);
  CHECK(plan(PrefillMode::kAuto, PrefillTarget::kBalanced, scratch.path()).note().find("version 99") != std::string::npos);
}

TEST("profiles with the same plans are told apart by the masses that they ask heads for") {
  const files::Scratch scratch;
  const auto identity = [&](float recall) {
    HeadProfile profile = sample();
    profile.recall[1] = recall;
    write_head_profile(scratch.path(profile_name(kModel, {PrefillMode::kAdaptive, PrefillTarget::kBalanced})), profile);
    return plan(PrefillMode::kAuto, PrefillTarget::kBalanced, scratch.path()).identity();
  };
  CHECK(identity(0.5f) != identity(0.6f));
  CHECK(identity(0.95f) == identity(0.9f));  // both are more than is asked for
}

TEST("MInference's mode has a profile of its own, whatever the target") {
  const files::Scratch scratch;
  CHECK(profile_use_of("minference") && profile_use_of("fast") && profile_use_of("balanced") && !profile_use_of("exact"));
  write_head_profile(scratch.path(profile_name(kModel, *profile_use_of("minference"))), sample());
  for (const PrefillTarget target : {PrefillTarget::kFast, PrefillTarget::kBalanced}) {
    const PrefillPlan found = plan(PrefillMode::kMinference, target, scratch.path());
    CHECK(std::vector<HeadPlan>(found.heads().begin(), found.heads().end()) == sample().plans);
    CHECK(plan(PrefillMode::kAuto, target, scratch.path()).identity() == plan(PrefillMode::kAuto, target).identity());
  }
}

TEST("a found profile that cannot be used leaves the heads as they are, and that is said; a given one is refused") {
  const files::Scratch scratch;
  const std::string name = profile_name(kModel, {PrefillMode::kAdaptive, PrefillTarget::kBalanced}), whole = head_profile_json(sample());
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  const PrefillPlan none = plan(PrefillMode::kAuto, PrefillTarget::kBalanced);
  struct Bad {
    std::string text, says;
  };
  for (const auto& [text, says] : {Bad{changed("0011", "1100"), "made for another model"}, Bad{changed("\"adaptive\"", "\"spiral\""), "unknown pattern"},
                                   Bad{changed("{\"pattern\": \"dense\"},", ""), "number of heads"}, Bad{changed("\"window\": 256", "\"window\": 1e12"), "no window between"},
                                   Bad{whole.substr(0, whole.size() / 2), "not valid JSON"}, Bad{"", name}, Bad{"[{}, {}]", "number of layers"}, Bad{std::string(9'000'000, '['), "too large"}}) {
    scratch.put(name, text);
    const PrefillPlan found = plan(PrefillMode::kAuto, PrefillTarget::kBalanced, scratch.path());
    CHECK(found.identity() == none.identity());
    CHECK(std::vector<HeadPlan>(found.heads().begin(), found.heads().end()) == std::vector<HeadPlan>(none.heads().begin(), none.heads().end()));
    if (found.note().find(says) == std::string::npos) check::fail(__FILE__, __LINE__, "\"" + found.note() + "\" does not say \"" + says + "\"");
    bool refused = false;
    try {
      PrefillPlan({PrefillMode::kAuto, PrefillTarget::kBalanced, scratch.path(name), {}}, kModel, 0);
    } catch (const Error&) {
      refused = true;
    }
    CHECK(refused);
  }
}

TEST("a profile behind one that cannot be used is found") {
  const files::Scratch first, second;
  const std::string name = profile_name(kModel, {PrefillMode::kAdaptive, PrefillTarget::kBalanced});
  first.put(name, "{}");
  write_head_profile(second.path(name), sample());
  const PrefillPlan found({PrefillMode::kAuto, PrefillTarget::kBalanced, "", {first.path(), second.path()}}, kModel, 0);
  CHECK(found.heads()[1].threshold == 0.25f);
}

TEST_MAIN()
