// The command-line tool, as a process: ids and logits of the fixtures' models, and what it says when it is used wrongly.
#include <sys/wait.h>

#include <sstream>

#include "check.h"
#include "model/files.h"

namespace {

struct Result {
  int code = -1;
  std::string output;  // both streams
};

Result tool(const std::string& arguments, const std::string& input = "") {
  files::Scratch scratch;
  const std::string command = std::string(LONGVIEW_TOOL) + " " + arguments + " 2>&1 < " + scratch.put("input", input);
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) throw std::runtime_error("cannot run " + command);
  Result result;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.output.append(buffer, n);
  const int status = pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

std::string joined(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    if (!text.empty()) text += ' ';
    text += std::to_string(id);
  }
  return text;
}

void check_model(const std::string& model, const std::string& reference, float tolerance) {
  const auto expected = files::references(reference);
  const std::vector<float> logits = expected.at("logits").values<float>();
  float largest = 0;
  for (const float x : logits) largest = std::max(largest, std::fabs(x));
  files::Scratch scratch;
  const Result result = tool(model + " --float32 --generate 0 --top 1 --logits " + scratch.path("logits"), joined(expected.at("tokens").values<int32_t>()));
  CHECK(result.code == 0);
  const auto written = files::references(scratch.path("logits"));
  CHECK(written.at("logits").shape == expected.at("logits").shape);
  const std::vector<float> got = written.at("logits").values<float>();
  CHECK(got.size() == logits.size());
  float worst = 0;
  for (size_t i = 0; i < std::min(got.size(), logits.size()); ++i) worst = std::max(worst, std::fabs(got[i] - logits[i]));
  std::printf("  %s: worst %.1e of the largest logit\n", model.substr(model.rfind('/') + 1).c_str(), static_cast<double>(worst / largest));
  CHECK(worst <= tolerance * largest);
  // The line "top ID LOGIT" is the largest of the last row.
  const auto vocabulary = static_cast<size_t>(expected.at("logits").shape[1]);
  const auto last = got.end() - static_cast<std::ptrdiff_t>(vocabulary);
  const auto best = std::max_element(last, got.end());
  CHECK(result.output.rfind("top " + std::to_string(best - last) + " ", 0) == 0);
}

}  // namespace

TEST("logits after every token are the reference's, from GGUF and from safetensors") {
  check_model(files::fixture("llama.Q8_0.gguf"), files::fixture("llama.Q8_0.reference.safetensors"), 1e-3f);
  // This reference was made with rounded RoPE frequencies, which engine/golden_test copies and the tool cannot.
  check_model(files::fixture("qwen3-tied"), files::fixture("qwen3-tied/reference.safetensors"), 3e-2f);
}

TEST("greedy ids of the built-in model are the reference's, with ids from the arguments or from standard input") {
  const longview::Json reference = longview::Json::parse(files::read(files::fixture("longview-135m.json")), "the reference");
  const std::string model = files::root() + "/media/model/longview-135m-64k.Q5_0.gguf";
  const auto ids = [](const longview::Json& array) {
    std::vector<int32_t> out;
    for (const longview::Json& item : *array.array()) out.push_back(static_cast<int32_t>(*item.number()));
    return out;
  };
  const longview::Json& question = (*reference.find("questions")->array())[0];
  const std::vector<int32_t> greedy = ids(*question.find("greedy"));
  const std::string prompt = joined(ids(*reference.find("packedTokens"))) + " " + joined(ids(*question.find("turnTokens")));
  const Result result = tool(model + " --generate " + std::to_string(greedy.size()), prompt);
  CHECK(result.code == 0);
  CHECK(result.output == "greedy " + joined(greedy) + "\n");
  CHECK(tool(model + " --generate 3 -- 1 9690 198").output == tool(model + " --generate 3 -", "1,9690\n198").output);
}

TEST("calibration leaves a profile of the model") {
  const files::Scratch scratch;
  const std::string model = files::fixture("llama.Q8_0.gguf"), path = scratch.path("profile.json");
  std::vector<int32_t> ids(1200);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * i * 7 % 300);
  const Result result = tool(model + " --calibrate " + path + " --density 850 --threads 2", joined(ids));
  CHECK(result.code == 0);
  CHECK(result.output.empty());
  const longview::Json profile = longview::Json::parse(files::read(path), path);
  CHECK(profile.string_or("format", "") == "longview-head-profile");
  CHECK(profile.string_or("model", "").size() == 32);
  CHECK(profile.find("layers")->array()->size() == 2);
  CHECK(tool(model + " --calibrate " + path + " --density 0 1 2 3").code == 1);
  CHECK(tool(model + " --calibrate /nowhere/profile.json 1 2 3").code == 1);
}

TEST("wrong usage and bad input get a sentence and their exit codes") {
  const std::string model = files::fixture("llama.Q8_0.gguf");
  const auto says = [](const Result& result, int code, const char* sentence) {
    CHECK(result.code == code);
    if (result.output.find(sentence) == std::string::npos) check::fail(__FILE__, __LINE__, "got: " + result.output);
  };
  says(tool(""), 2, "A model is missing.");
  says(tool(model + " --rate 3 1"), 2, "no option --rate");
  says(tool(model + " --generate x 1"), 2, "x is no number of tokens");
  says(tool(model), 2, "no token ids");
  says(tool(model + " 1 -2"), 2, "no option -2");
  says(tool(model + " 1x"), 2, "1x is no token id");
  says(tool(model + " 9999999"), 1, "outside the model's vocabulary");
  says(tool(model + " --isa altivec 1"), 1, "cannot run the code path \"altivec\"");
  says(tool("/nowhere.gguf 1"), 1, "/nowhere.gguf");
  says(tool(model + " --generate 0 --logits /nowhere/logits 1"), 1, "cannot be written");
}

TEST_MAIN()
