#include "sparse/head_profile.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>
#include <system_error>

#include "base/error.h"
#include "base/json.h"
#include "base/replace_file.h"
#include "base/text.h"
#include "os/file.h"

namespace longview {
namespace {

constexpr const char* kFormat = "longview-head-profile";
constexpr int64_t kVersion = 1;
// 126 layers of 128 heads, a large model of today, take 2 MB.
constexpr size_t kMaxBytes = 8'000'000;
// More than any context holds; far enough from what 32 bits do that sums of budgets cannot overflow.
constexpr int64_t kMaxBudget = 1 << 24;
// A share is at most 1: above it no block is kept, whatever the arithmetic rounds to.
constexpr double kMaxThreshold = 2;
constexpr const char* kAdvice = "Remove it or put another in its place; without a profile all heads are read alike.";
constexpr double kMostRecall = 1.001;  // sums of rounded shares
constexpr float kUnmeasured = std::numeric_limits<float>::quiet_NaN();

struct Budget {
  const char* name;
  int32_t HeadPlan::*member;
  int64_t least;
};
// All that the kernels can run: a row sees itself, so that a window or a block it must have.
std::span<const Budget> budgets_of(Pattern pattern) {
  static constexpr std::array kAShape = {Budget{"sink", &HeadPlan::sink, 0}, Budget{"window", &HeadPlan::window, 1}};
  static constexpr std::array kVerticalSlash = {Budget{"columns", &HeadPlan::columns, 0}, Budget{"diagonals", &HeadPlan::diagonals, 0}};
  static constexpr std::array kBlockSparse = {Budget{"blocks", &HeadPlan::blocks, 1}};
  static constexpr std::array kAdaptive = {Budget{"sink", &HeadPlan::sink, 0}, Budget{"window", &HeadPlan::window, 0}};
  switch (pattern) {
    case Pattern::kDense: return {};
    case Pattern::kAShape: return kAShape;
    case Pattern::kVerticalSlash: return kVerticalSlash;
    case Pattern::kBlockSparse: return kBlockSparse;
    case Pattern::kAdaptive: return kAdaptive;
  }
  return {};
}

struct Measurement {
  const char* name;
  std::vector<float> HeadProfile::*member;
};
constexpr std::array kMeasurements = {Measurement{"density", &HeadProfile::density}, Measurement{"recall", &HeadProfile::recall}, Measurement{"error", &HeadProfile::error}};

// Where in the document something is wrong.
struct Place {
  const std::string& what;
  int64_t layer, head;

  [[noreturn]] void fail(const std::string& why) const {
    LONGVIEW_THROW(kFileCorrupt, "%s cannot be used: layer %lld, head %lld %s. %s", what.c_str(), static_cast<long long>(layer), static_cast<long long>(head), why.c_str(), kAdvice);
  }
};

int32_t checked(const Json* value, const Budget& budget, const Place& place) {
  const int64_t count = value ? value->integer_or(-1) : -1;
  if (count < budget.least || count > kMaxBudget)
    place.fail(format("has no %s between %lld and %lld", budget.name, static_cast<long long>(budget.least), static_cast<long long>(kMaxBudget)));
  return static_cast<int32_t>(count);
}

HeadPlan plan_of(const Json& head, const Place& place) {
  if (!head.object()) place.fail("is no object");
  const std::string named = head.string_or("pattern", "");
  const std::optional<Pattern> pattern = pattern_of(named);
  if (!pattern) place.fail("has the unknown pattern \"" + printable(named) + "\"");
  HeadPlan plan;
  plan.pattern = *pattern;
  size_t known = 1;
  for (const Budget& each : budgets_of(*pattern)) {
    plan.*each.member = checked(head.find(each.name), each, place);
    ++known;
  }
  if (*pattern == Pattern::kAdaptive) {
    const std::optional<AdaptiveRule> rule = adaptive_rule_of(head.string_or("rule", ""));
    if (!rule) place.fail("has no rule that is known (relative, share or mass)");
    plan.rule = *rule;
    const double threshold = head.number_or("threshold", -1);
    if (!(threshold >= 0 && threshold <= kMaxThreshold)) place.fail("has no threshold between 0 and 2");
    plan.threshold = static_cast<float>(threshold);
    known += 2;
  }
  for (const Measurement& each : kMeasurements) known += head.find(each.name) != nullptr;
  if (head.object()->size() != known) place.fail(format("has members that the pattern %s does not know", name(*pattern)));
  return plan;
}

float measured(const Json& head, const char* member, const Place& place) {
  const Json* value = head.find(member);
  if (!value) return kUnmeasured;
  if (!value->number() || *value->number() < 0 || *value->number() > static_cast<double>(std::numeric_limits<float>::max()))
    place.fail(format("has no %s from 0 on", member));
  return static_cast<float>(*value->number());
}

// MInference's kernel takes 100 blocks whatever its files say.
HeadPlan minference_plan(const Json& head, const Place& place) {
  const Json::Array* entry = head.array();
  if (!entry || entry->size() != 4) place.fail("is no list of type, vertical size, slash size and score");
  const std::string type = (*entry)[0].string() ? *(*entry)[0].string() : "";
  const std::optional<Pattern> pattern = type == "vertical_and_slash" ? std::optional(Pattern::kVerticalSlash)
                                         : type == "stream_llm"       ? std::optional(Pattern::kAShape)
                                         : type == "block_sparse"     ? std::optional(Pattern::kBlockSparse)
                                                                      : std::nullopt;
  if (!pattern) place.fail("has the unknown type \"" + printable(type) + "\"");
  HeadPlan plan = default_plan(*pattern);
  if (*pattern == Pattern::kBlockSparse) return plan;
  const std::span<const Budget> budgets = budgets_of(*pattern);
  for (size_t i = 0; i < budgets.size(); ++i) plan.*budgets[i].member = checked(&(*entry)[i + 1], budgets[i], place);
  return plan;
}

void check_count(size_t count, int64_t expected, const std::string& what, const std::string& things) {
  LONGVIEW_CHECK(count == static_cast<size_t>(expected), kInvalidArgument, "%s is another model's: its number of %s is %zu, this model's is %lld. %s", what.c_str(), things.c_str(),
                 count, static_cast<long long>(expected), kAdvice);
}

HeadProfile empty_profile(const ProfiledModel& model) {
  HeadProfile profile;
  profile.layers = model.layers;
  profile.heads = model.heads;
  const auto heads = static_cast<size_t>(model.layers * model.heads);
  profile.plans.resize(heads);
  for (const Measurement& each : kMeasurements) (profile.*each.member).assign(heads, kUnmeasured);
  return profile;
}

HeadProfile parse_minference(const Json::Array& layers, const ProfiledModel& model, const std::string& what) {
  check_count(layers.size(), model.layers, what, "layers");
  HeadProfile profile = empty_profile(model);
  std::fill(profile.plans.begin(), profile.plans.end(), default_plan(Pattern::kVerticalSlash));
  bool counts = false;  // how many outputs are off, as the file of Llama-3-8B-262k has it, in the place of the mass recalled
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    const Json::Object* heads = layers[static_cast<size_t>(layer)].object();
    LONGVIEW_CHECK(heads, kFileCorrupt, "%s cannot be used: layer %lld is no object. %s", what.c_str(), static_cast<long long>(layer), kAdvice);
    for (const auto& [key, entry] : *heads) {
      int64_t head = -1;
      const auto [end, wrong] = std::from_chars(key.data(), key.data() + key.size(), head);
      LONGVIEW_CHECK(wrong == std::errc() && end == key.data() + key.size() && head >= 0 && head < model.heads && key == std::to_string(head), kInvalidArgument,
                     "%s is another model's: layer %lld names head \"%s\", this model has heads 0 to %lld. %s", what.c_str(), static_cast<long long>(layer),
                     printable(key).c_str(), static_cast<long long>(model.heads - 1), kAdvice);
      const Place place{what, layer, head};
      const auto at = static_cast<size_t>(layer * model.heads + head);
      profile.plans[at] = minference_plan(entry, place);
      const double* score = (*entry.array())[3].number();
      const bool count = score && *score > kMostRecall && *score == std::floor(*score);
      if (!score || *score < 0 || (*score > kMostRecall && !count)) place.fail("has a score that is not between 0 and 1, and no number of outputs");
      counts = counts || count;
      profile.recall[at] = static_cast<float>(*score);
    }
  }
  if (counts) profile.recall.assign(profile.recall.size(), kUnmeasured);
  profile.note = what + " is in MInference's format, which does not say what model it is of.";
  return profile;
}

HeadProfile parse_own(const Json& document, const ProfiledModel& model, const std::string& what) {
  const std::string format_name = document.string_or("format", "");
  LONGVIEW_CHECK(format_name == kFormat, kUnknownFormat, "%s is no head profile: its format is \"%s\". %s", what.c_str(), printable(format_name).c_str(), kAdvice);
  const int64_t version = document.integer_or("version", -1);
  LONGVIEW_CHECK(version == kVersion, kUnknownFormat, "%s is of version %lld, this Longview reads version %lld. Update Longview, or remove the profile.", what.c_str(),
                 static_cast<long long>(version), static_cast<long long>(kVersion));
  const std::string owner = document.string_or("model", "");
  LONGVIEW_CHECK(!owner.empty() && owner == model.fingerprint, kInvalidArgument, "%s was made for another model (%s; this one is %s). %s", what.c_str(),
                 owner.empty() ? "it names none" : printable(owner).c_str(), model.fingerprint.c_str(), kAdvice);
  const Json* list = document.find("layers");
  LONGVIEW_CHECK(list && list->array(), kFileCorrupt, "%s has no list of layers. %s", what.c_str(), kAdvice);
  const Json::Array& layers = *list->array();
  check_count(layers.size(), model.layers, what, "layers");

  HeadProfile profile = empty_profile(model);
  profile.model_fingerprint = owner;
  const int64_t kernels = document.integer_or("kernel_version", -1);
  LONGVIEW_CHECK(kernels >= 0 && kernels <= std::numeric_limits<int32_t>::max(), kFileCorrupt, "%s has no kernel_version. %s", what.c_str(), kAdvice);
  profile.kernel_version = static_cast<int32_t>(kernels);
  profile.device = document.string_or("device", "");
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    const Json::Array* heads = layers[static_cast<size_t>(layer)].array();
    LONGVIEW_CHECK(heads, kFileCorrupt, "%s cannot be used: layer %lld is no list. %s", what.c_str(), static_cast<long long>(layer), kAdvice);
    check_count(heads->size(), model.heads, what, format("heads in layer %lld", static_cast<long long>(layer)));
    for (int64_t head = 0; head < model.heads; ++head) {
      const Place place{what, layer, head};
      const Json& entry = (*heads)[static_cast<size_t>(head)];
      const auto at = static_cast<size_t>(layer * model.heads + head);
      profile.plans[at] = plan_of(entry, place);
      for (const Measurement& each : kMeasurements) (profile.*each.member)[at] = measured(entry, each.name, place);
    }
  }
  if (profile.kernel_version != kProfileKernelVersion)
    profile.note = format("%s was measured with version %d of the attention kernels, these are version %d: its densities may not hold.", what.c_str(), profile.kernel_version,
                          kProfileKernelVersion);
  else if (!profile.device.empty() && !model.device.empty() && profile.device != model.device)
    profile.note = format("%s was measured on another kind of device (%s; this one is %s): its densities may not hold.", what.c_str(), printable(profile.device).c_str(),
                          model.device.c_str());
  return profile;
}

// The shortest digits that give the same float again, whatever the locale.
std::string digits(float value) {
  std::array<char, 32> text;
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

std::string head_json(const HeadProfile& profile, size_t at) {
  const HeadPlan& plan = profile.plans[at];
  std::string text = format("{\"pattern\": \"%s\"", name(plan.pattern));
  for (const Budget& each : budgets_of(plan.pattern)) text += format(", \"%s\": %d", each.name, plan.*each.member);
  if (plan.pattern == Pattern::kAdaptive) text += format(", \"rule\": \"%s\", \"threshold\": ", name(plan.rule)) + digits(plan.threshold);
  for (const Measurement& each : kMeasurements) {
    const std::vector<float>& values = profile.*each.member;
    if (!values.empty() && !std::isnan(values[at])) text += format(", \"%s\": ", each.name) + digits(values[at]);
  }
  return text + "}";
}

// No more than what shows that it is too large.
std::string read_file(const std::string& path) {
  const os::Kind kind = os::status(path).kind;
  LONGVIEW_CHECK(kind == os::Kind::kNothing || kind == os::Kind::kFile, kInvalidArgument, "%s is %s, not a head profile.", path.c_str(),
                 kind == os::Kind::kFolder ? "a folder" : "a pipe or a device");
  const os::File file(path, os::Open::kRead);
  LONGVIEW_CHECK(file, kFileNotFound, "The head profile %s could not be opened: %s.", path.c_str(), std::generic_category().message(errno).c_str());
  std::string text(kMaxBytes + 1, '\0');
  const int64_t size = file.read(0, std::as_writable_bytes(std::span(text)));
  LONGVIEW_CHECK(size >= 0, kFileNotFound, "The head profile %s could not be read.", path.c_str());
  text.resize(static_cast<size_t>(size));
  return text;
}

}  // namespace

HeadProfile parse_head_profile(std::string_view text, const ProfiledModel& model, const std::string& what) {
  LONGVIEW_CHECK(text.size() <= kMaxBytes, kUnknownFormat, "%s is too large for a head profile: %s, at most %s. %s", what.c_str(),
                 human_size(static_cast<int64_t>(text.size())).c_str(), human_size(static_cast<int64_t>(kMaxBytes)).c_str(), kAdvice);
  const Json document = Json::parse(text, what);
  if (document.array()) return parse_minference(*document.array(), model, what);
  LONGVIEW_CHECK(document.object(), kUnknownFormat, "%s is no head profile: it is neither an object nor a list of layers. %s", what.c_str(), kAdvice);
  return parse_own(document, model, what);
}

HeadProfile read_head_profile(const std::string& path, const ProfiledModel& model) { return parse_head_profile(read_file(path), model, path); }

std::string head_profile_json(const HeadProfile& profile) {
  const auto heads = static_cast<size_t>(profile.layers * profile.heads);
  LONGVIEW_CHECK(profile.plans.size() == heads, kInvalidArgument, "A head profile of %zu heads needs as many plans, not %zu.", heads, profile.plans.size());
  for (const Measurement& each : kMeasurements)
    LONGVIEW_CHECK((profile.*each.member).empty() || (profile.*each.member).size() == heads, kInvalidArgument, "A head profile of %zu heads has %zu values of %s.", heads,
                   (profile.*each.member).size(), each.name);
  LONGVIEW_CHECK(!profile.model_fingerprint.empty() && profile.model_fingerprint.find_first_not_of("0123456789abcdef") == std::string::npos, kInvalidArgument,
                 "A head profile needs the fingerprint of its model.");
  LONGVIEW_CHECK(profile.device.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string::npos, kInvalidArgument, "A head profile's device is no kind of device.");
  std::string text = format("{\n\"format\": \"%s\",\n\"version\": %lld,\n\"model\": \"%s\",\n\"kernel_version\": %d,\n", kFormat, static_cast<long long>(kVersion),
                            profile.model_fingerprint.c_str(), profile.kernel_version);
  if (!profile.device.empty()) text += "\"device\": \"" + profile.device + "\",\n";
  text += "\"layers\": [";
  for (int64_t layer = 0; layer < profile.layers; ++layer) {
    text += layer == 0 ? "\n[" : ",\n[";
    for (int64_t head = 0; head < profile.heads; ++head) {
      text += head == 0 ? "\n  " : ",\n  ";
      text += head_json(profile, static_cast<size_t>(layer * profile.heads + head));
    }
    text += "\n]";
  }
  text += "\n]\n}\n";
  // What cannot be read again is never written: budgets out of range, infinite thresholds.
  try {
    parse_head_profile(text, {profile.model_fingerprint, profile.layers, profile.heads}, "The profile to be written");
  } catch (const Error& error) {
    LONGVIEW_THROW(kInvalidArgument, "%s", error.what());
  }
  return text;
}

void write_head_profile(const std::string& path, const HeadProfile& profile) { replace_file(path, head_profile_json(profile)); }

}  // namespace longview
