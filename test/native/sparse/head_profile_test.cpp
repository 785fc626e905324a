// Head profiles: ours there and back, MInference's as it publishes them, and damaged ones, each refused with a sentence.
#include "sparse/head_profile.h"

#include <sys/stat.h>

#include <cmath>
#include <set>

#include "base/error.h"
#include "check.h"
#include "model/files.h"
#include "model/mutations.h"

using namespace longview;

namespace {

const std::string kModel = "00112233445566778899aabbccddeeff";
const ProfiledModel kSmall{kModel, 2, 3};

HeadPlan plan(Pattern pattern) { return default_plan(pattern); }

// Two layers of three heads, every pattern among them, some heads measured.
HeadProfile sample() {
  HeadProfile profile;
  profile.model_fingerprint = kModel;
  profile.kernel_version = kProfileKernelVersion;
  profile.device = "cpu";
  profile.layers = 2;
  profile.heads = 3;
  profile.plans = {plan(Pattern::kDense), plan(Pattern::kAShape), plan(Pattern::kVerticalSlash), plan(Pattern::kBlockSparse), plan(Pattern::kAdaptive), plan(Pattern::kAdaptive)};
  profile.plans[4].threshold = 0.1f / 3;
  profile.plans[4].sink = 64;
  profile.plans[5].rule = AdaptiveRule::kMass;
  profile.plans[5].threshold = 2;
  const float none = std::nanf("");
  profile.density = {1, 0.25f, 1.0f / 3, none, 0.08f, 0};
  profile.recall = {none, 0.5f, none, none, none, 1};
  profile.error = {0, none, 1e-20f, none, 0.3f, 12345.678f};
  return profile;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))) return false;
  return true;
}

// A file of one layer and one head, in our format.
std::string one(const std::string& head, const std::string& rest = "\"format\": \"longview-head-profile\", \"version\": 1, \"model\": \"" + kModel + "\", \"kernel_version\": 2") {
  return "{" + rest + ", \"layers\": [[" + head + "]]}";
}
HeadProfile parse_one(const std::string& text) { return parse_head_profile(text, {kModel, 1, 1}, "The profile"); }

// The sentence that refuses `text`, or nothing where it is taken.
std::string refusal(const std::string& text, const ProfiledModel& model = {kModel, 1, 1}) {
  try {
    parse_head_profile(text, model, "The profile");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
bool says(const std::string& sentence, const std::string& part) {
  if (sentence.find(part) != std::string::npos && sentence.find("emove") != std::string::npos) return true;
  std::printf("  \"%s\" does not say \"%s\" and what to do\n", sentence.c_str(), part.c_str());
  return false;
}

const std::string kAdaptive = R"({"pattern": "adaptive", "sink": 128, "window": 512, "rule": "share", "threshold": 0.001})";

}  // namespace

TEST("a profile comes back from its file as it was") {
  const files::Scratch scratch;
  const std::string path = scratch.path("head.profile.json");
  files::write(path, "an older one");
  const HeadProfile profile = sample();
  write_head_profile(path, profile);
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path())) CHECK(entry.path() == path);  // nothing beside it
  const HeadProfile read = read_head_profile(path, kSmall);
  CHECK(read.model_fingerprint == kModel);
  CHECK(read.kernel_version == kProfileKernelVersion);
  CHECK(read.device == "cpu");
  CHECK(read.layers == 2 && read.heads == 3);
  CHECK(read.plans == profile.plans);
  CHECK(same(read.density, profile.density));
  CHECK(same(read.recall, profile.recall));
  CHECK(same(read.error, profile.error));
  CHECK(read.note.empty());
  CHECK(head_profile_json(read) == head_profile_json(profile));
}

TEST("a profile that would not be read back is not written") {
  const auto spoiled = [](const std::function<void(HeadProfile&)>& spoil) {
    HeadProfile profile = sample();
    spoil(profile);
    return profile;
  };
  CHECK_THROWS(head_profile_json(spoiled([](HeadProfile& p) { p.model_fingerprint = ""; })), kInvalidArgument);
  CHECK_THROWS(head_profile_json(spoiled([](HeadProfile& p) { p.model_fingerprint = "\"}"; })), kInvalidArgument);
  CHECK_THROWS(head_profile_json(spoiled([](HeadProfile& p) { p.device = "\"}"; })), kInvalidArgument);
  CHECK_THROWS(head_profile_json(spoiled([](HeadProfile& p) { p.plans.pop_back(); })), kInvalidArgument);
  CHECK_THROWS(head_profile_json(spoiled([](HeadProfile& p) { p.density.pop_back(); })), kInvalidArgument);
  CHECK_THROWS(head_profile_json(spoiled([](HeadProfile& p) { p.plans[1].window = -1; })), kInvalidArgument);
  CHECK_THROWS(head_profile_json(spoiled([](HeadProfile& p) { p.plans[4].threshold = std::nanf(""); })), kInvalidArgument);
  CHECK_THROWS(head_profile_json(spoiled([](HeadProfile& p) { p.error[0] = INFINITY; })), kInvalidArgument);
}

TEST("a file that cannot be written or is not there") {
  const files::Scratch scratch;
  CHECK_THROWS(write_head_profile(scratch.path("missing/head.json"), sample()), kCannotWrite);
  CHECK_THROWS(read_head_profile(scratch.path("head.json"), kSmall), kFileNotFound);
  CHECK_THROWS(read_head_profile(scratch.path(), kSmall), kInvalidArgument);
  CHECK(mkfifo(scratch.path("pipe").c_str(), 0600) == 0);
  CHECK_THROWS(read_head_profile(scratch.path("pipe"), kSmall), kInvalidArgument);  // without waiting for who writes to it
  CHECK_THROWS(read_head_profile(scratch.put("empty.json", ""), kSmall), kFileCorrupt);
}

TEST("MInference's published files are read") {
  // The form of minference/configs/*.json of github.com/microsoft/MInference; stream_llm and block_sparse as its search names them.
  const std::string text =
      R"([{"0": ["vertical_and_slash", 3500, 100, 0.675], "2": ["stream_llm", 100, 800, 1.0]},
          {"1": ["block_sparse", 1000, 6096, 0.9], "0": ["vertical_and_slash", 30, 800, 0.998]}])";
  const HeadProfile profile = parse_head_profile(text, kSmall, "The profile");
  CHECK(profile.layers == 2 && profile.heads == 3);
  CHECK(profile.model_fingerprint.empty());
  CHECK(profile.note.find("MInference") != std::string::npos);
  HeadPlan first = plan(Pattern::kVerticalSlash), fourth = first;
  first.columns = 3500;
  first.diagonals = 100;
  fourth.columns = 30;
  fourth.diagonals = 800;
  const HeadPlan unnamed = plan(Pattern::kVerticalSlash);
  CHECK(unnamed.columns == 1000 && unnamed.diagonals == 6096);
  CHECK(profile.plans == (std::vector<HeadPlan>{first, unnamed, plan(Pattern::kAShape), fourth, plan(Pattern::kBlockSparse), unnamed}));
  CHECK_NEAR(profile.recall[0], 0.675, 1e-6);
  CHECK(std::isnan(profile.recall[1]));
  CHECK(std::isnan(profile.density[0]));
}

TEST("where a published file's scores count the outputs that are off, no recall is taken from them, a count of 0 or 1 neither") {
  // Of minference/configs/Llama_3_8B_Instruct_262k_kv_out_v32_fit_o_best_pattern.json.
  const std::string text = R"([{"0": ["vertical_and_slash", 1000, 6096, 1], "1": ["vertical_and_slash", 30, 800, 185169], "2": ["vertical_and_slash", 3500, 100, 0]}])";
  const HeadProfile profile = parse_head_profile(text, {kModel, 1, 3}, "The profile");
  CHECK(profile.plans[0].columns == 1000 && profile.plans[1].columns == 30 && profile.plans[2].columns == 3500);
  CHECK(std::all_of(profile.recall.begin(), profile.recall.end(), [](float recall) { return std::isnan(recall); }));
}

TEST("MInference's files of other models, or damaged, are refused") {
  const auto layer = [](const std::string& head) { return refusal("[{" + head + "}]", {kModel, 1, 3}); };
  CHECK(layer(R"("2": ["stream_llm", 100, 800, 1])").empty());
  CHECK(says(layer(R"("3": ["stream_llm", 100, 800, 1])"), "names head \"3\""));
  for (const char* key : {"-1", "", "01", "1x", " 1", "99999999999999999999"}) CHECK(says(layer(std::string(1, '"').append(key) + R"(": ["stream_llm", 100, 800, 1])"), "names head"));
  CHECK(says(layer(R"("0": ["flex_prefill", 100, 800, 1])"), "unknown type \"flex_prefill\""));
  CHECK(says(layer(R"("0": [7, 100, 800, 1])"), "unknown type"));
  CHECK(says(layer(R"("0": ["stream_llm", 100, 800])"), "is no list of"));
  CHECK(says(layer(R"("0": {})"), "is no list of"));
  CHECK(says(layer(R"("0": ["stream_llm", 100, 0, 1])"), "no window between"));
  for (const char* score : {"-0.1", "1.1", "\"1\""}) CHECK(says(layer(std::string(R"("0": ["stream_llm", 100, 800, )") + score + "]"), "has a score that is not between 0 and 1"));
  CHECK(says(layer(R"("0": ["vertical_and_slash", -1, 100, 1])"), "no columns between"));
  CHECK(says(layer(R"("0": ["vertical_and_slash", 1, 1e300, 1])"), "no diagonals between"));
  CHECK(says(layer(R"("0": ["stream_llm", 100, 800, "x"])"), "score"));
  CHECK(says(refusal("[{}, {}]"), "number of layers is 2, this model's is 1"));
  CHECK(says(refusal("[[]]"), "layer 0 is no object"));
}

TEST("what is wrong with a profile is said") {
  CHECK(refusal(one(kAdaptive)).empty());
  const std::string fields = "\"format\": \"longview-head-profile\", \"version\": ";
  CHECK(says(refusal("7"), "is no head profile"));
  CHECK(says(refusal(one(kAdaptive, "\"format\": \"other\"")), "its format is \"other\""));
  CHECK(says(refusal(one(kAdaptive, fields + "2")), "is of version 2"));
  CHECK(says(refusal(one(kAdaptive, fields + "1, \"model\": \"beef\"")), "made for another model (beef"));
  CHECK(says(refusal(one(kAdaptive, fields + "1")), "made for another model (it names none"));
  CHECK(says(refusal(one(kAdaptive, fields + "1, \"model\": \"" + kModel + "\"")), "no kernel_version"));
  CHECK(says(refusal(one(kAdaptive), kSmall), "number of layers is 1, this model's is 2"));
  CHECK(says(refusal(one(kAdaptive), {kModel, 1, 3}), "number of heads in layer 0 is 1, this model's is 3"));
  CHECK(says(refusal(one(R"({"pattern": "spiral"})")), "unknown pattern \"spiral\""));
  CHECK(says(refusal(one(R"({})")), "unknown pattern"));
  CHECK(says(refusal(one("[]")), "is no object"));
  CHECK(says(refusal(one(R"({"pattern": "a_shape", "sink": 1})")), "no window between 1 and"));
  CHECK(says(refusal(one(R"({"pattern": "a_shape", "sink": 1, "window": 2147483648})")), "no window between 1 and"));
  CHECK(parse_one(one(R"({"pattern": "a_shape", "sink": 0, "window": 16777216})")).plans[0].window == 1 << 24);
  CHECK(says(refusal(one(R"({"pattern": "a_shape", "sink": 1, "window": 16777217})")), "no window between 1 and 16777216"));
  CHECK(says(refusal(one(R"({"pattern": "a_shape", "sink": 0.5, "window": 8})")), "no sink between"));
  CHECK(says(refusal(one(R"({"pattern": "block_sparse", "blocks": 0})")), "no blocks between 1 and"));
  CHECK(says(refusal(one(R"({"pattern": "dense", "window": 8})")), "does not know"));
  CHECK(says(refusal(one(R"({"pattern": "dense", "denisty": 1})")), "does not know"));
  CHECK(says(refusal(one(R"({"pattern": "dense", "density": -1})")), "no density from 0 on"));
  CHECK(says(refusal(one(R"({"pattern": "dense", "error": 1e300})")), "no error from 0 on"));
  CHECK(says(refusal(one(R"({"pattern": "adaptive", "sink": 1, "window": 1, "rule": "best", "threshold": 0})")), "no rule that is known"));
  CHECK(says(refusal(one(R"({"pattern": "adaptive", "sink": 1, "window": 1, "rule": "share", "threshold": 2.5})")), "no threshold between"));
  CHECK(says(refusal(one(R"({"pattern": "adaptive", "sink": 1, "window": 1, "rule": "share"})")), "no threshold between"));
  CHECK_THROWS(parse_one(one(kAdaptive).substr(1)), kFileCorrupt);
  CHECK_THROWS(parse_one(std::string(200, '[') + std::string(200, ']')), kFileCorrupt);
  CHECK(says(refusal(one(kAdaptive) + std::string(8'000'001, ' ')), "too large for a head profile: 8.0 MB"));
}

TEST("measured with other kernels, a profile is read and said to be") {
  const HeadProfile profile = parse_one(one(kAdaptive, "\"format\": \"longview-head-profile\", \"version\": 1, \"date\": \"2026-11-25\", \"model\": \"" + kModel + "\", \"kernel_version\": 99"));
  CHECK(profile.kernel_version == 99);
  CHECK(profile.plans.size() == 1 && profile.plans[0].pattern == Pattern::kAdaptive);
  CHECK(profile.note.find("version 99") != std::string::npos);
}

TEST("measured on another kind of device, a profile is read and said to be") {
  const std::string text = one(kAdaptive, "\"format\": \"longview-head-profile\", \"version\": 1, \"model\": \"" + kModel + "\", \"kernel_version\": 2, \"device\": \"cuda\"");
  CHECK(parse_head_profile(text, {kModel, 1, 1, "cuda"}, "The profile").note.empty());
  CHECK(parse_head_profile(text, {kModel, 1, 1, "cpu"}, "The profile").note.find("another kind of device (cuda; this one is cpu)") != std::string::npos);
  const std::string unnamed = one(kAdaptive, "\"format\": \"longview-head-profile\", \"version\": 1, \"model\": \"" + kModel + "\", \"kernel_version\": 2");
  CHECK(parse_head_profile(unnamed, {kModel, 1, 1, "cpu"}, "The profile").note.empty());
}

TEST("damaged copies are refused, or read as a profile that the kernels can run") {
  const std::string ours = head_profile_json(sample());
  const std::string theirs = R"([{"0": ["vertical_and_slash", 3500, 100, 0.675], "2": ["stream_llm", 100, 800, 1.0]}, {"1": ["block_sparse", 1000, 6096, 0.9]}])";
  int refused = 0, taken = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    mutations::Random random(seed);
    std::string text = seed % 4 == 3 ? theirs : ours;
    std::string what;
    for (size_t i = 0, count = 1 + random.below(3); i < count; ++i) what += mutations::damage_json(random, text) + "; ";
    try {
      const HeadProfile profile = parse_head_profile(text, kSmall, "The profile");
      ++taken;
      bool runs = profile.plans.size() == 6 && profile.density.size() == 6 && profile.recall.size() == 6 && profile.error.size() == 6;
      for (const HeadPlan& p : profile.plans) {
        for (const int32_t budget : {p.sink, p.window, p.columns, p.diagonals, p.blocks}) runs = runs && budget >= 0 && budget <= 1 << 24;
        runs = runs && p.threshold >= 0 && p.threshold <= 2 && (p.pattern != Pattern::kAShape || p.window > 0);
      }
      if (!runs) check::fail(__FILE__, __LINE__, what);
    } catch (const Error& error) {
      ++refused;
      if (std::strlen(error.what()) < 20 || std::strlen(error.what()) > 500) check::fail(__FILE__, __LINE__, what + error.what());
    }
  }
  CHECK(refused > 300);
  CHECK(taken > 20);
}

TEST_MAIN()
