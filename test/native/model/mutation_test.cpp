// Damaged models must open or say in a sentence why not; nothing may crash, hang or read out of bounds. Built
// with -DLONGVIEW_SANITIZE=ON the sanitizers watch.
#include "base/error.h"
#include "base/text.h"
#include "check.h"
#include "model/hybrid_builders.h"
#include "model/model_file.h"
#include "model/mutations.h"
#include "model/quant_formats.h"
#include "model/weights.h"

using namespace longview;

namespace {

struct Tally {
  int opened = 0, refused = 0;
};

bool inside(const TensorView& view, const ModelFile& file) {
  for (const ModelPart& part : file.parts())
    if (view.data >= part.file->data() + part.header_bytes &&
        view.data + view.bytes <= part.file->data() + part.file->size())
      return true;
  return false;
}

// Reads the first and the last byte of every tensor, and dequantises the first and the last row of those that
// are used. A mapping ends with its page, not with its file, so the bounds are also compared.
void touch(const Model& model) {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : model.file->tensors()) {
    const TensorView& view = tensor.view;
    if (view.empty()) continue;
    CHECK(inside(view, *model.file));
    sum += std::to_integer<uint64_t>(view.data[0]) + std::to_integer<uint64_t>(view.data[view.bytes - 1]);
  }
  const auto rows = [&](const TensorView& view) {
    if (view.empty()) return;
    std::vector<float> row(static_cast<size_t>(view.cols));
    for (const int64_t i : {int64_t{0}, view.rows - 1})
      dequantize_row(view.type, view.data + i * row_bytes(view.type, view.cols), row.data(), view.cols);
  };
  for (const LayerWeights& layer : model.weights.layers) {
    layer.each(rows);
    for (const TensorView* view : {&layer.router, &layer.alpha, &layer.beta}) rows(*view);
    layer.each_expert(rows);
  }
  for (const TensorView* view : {&model.weights.embedding, &model.weights.output_norm, &model.weights.output})
    rows(*view);
  volatile uint64_t used = sum;
  (void)used;
}

void check_sentence(const Error& error, const std::string& what) {
  const std::string text = error.what();
  bool good =
      error.code != ErrorCode::kInternal && text.size() > 20 && text.size() < 1000 && text.back() == '.';
  for (std::string_view rest = text; good && !rest.empty();) {
    const size_t length = utf8_length(rest);
    good = length > 1 || (length == 1 && rest[0] >= 0x20);
    rest.remove_prefix(std::max<size_t>(length, 1));
  }
  if (!good) check::fail(__FILE__, __LINE__, what + " gave the sentence: " + text);
}

void open_damaged(const std::string& path, const std::string& what, Tally& tally) {
  try {
    const Model model = open_model(path);
    touch(model);
    ++tally.opened;
  } catch (const Error& error) {
    check_sentence(error, what);
    ++tally.refused;
  } catch (const std::exception& error) {
    check::fail(__FILE__, __LINE__, what + " threw " + error.what());
  }
}

// Damage that is always survived, or never, would be no test.
void check_both(const Tally& tally, int count) {
  std::printf("  %d opened, %d refused\n", tally.opened, tally.refused);
  CHECK(tally.opened + tally.refused == count);
  CHECK(tally.opened > count / 50);
  CHECK(tally.refused > count / 4);
}

void damage_gguf(const std::string& bytes, int count, uint64_t seed) {
  Tally tally;
  mutations::each_gguf(bytes, count, seed, [&](const std::string& path, const std::string& what) {
    open_damaged(path, what, tally);
  });
  check_both(tally, count);
}

void damage_safetensors(const std::string& config, const std::string& model, int count, uint64_t seed) {
  Tally tally;
  mutations::each_safetensors(
      config, model, count, seed,
      [&](const std::string& path, const std::string& what) { open_damaged(path, what, tally); });
  check_both(tally, count);
}

}  // namespace

TEST("damaged GGUF files, made small") {
  builders::Gguf gguf = builders::tiny_gguf();
  gguf.set_string("llama.rope.scaling.type", "yarn").set_f32("llama.rope.scaling.factor", 4);
  gguf.set_u32("llama.rope.scaling.original_context_length", 64).set_u32("general.alignment", 32);
  gguf.add("rope_freqs.weight", {8});
  std::vector<float> ones(8, 1.0f);
  std::memcpy(gguf.tensor("rope_freqs.weight").bytes.data(), ones.data(), 32);
  damage_gguf(gguf.build(), 2000, 1);
}

TEST("damaged GGUF files, quantised") {
  damage_gguf(files::read(files::fixture("llama.Q8_0.gguf")), 600, 10'000);
}

TEST("damaged safetensors, made small") {
  builders::HubConfig config = builders::tiny_config();
  config["rope_scaling"] = R"({"rope_type":"yarn","factor":4,"original_max_position_embeddings":64})";
  damage_safetensors(builders::text(config), builders::tiny_safetensors().build(), 2000, 20'000);
}

TEST("damaged safetensors with fused matrices and LongRoPE") {
  builders::HubConfig config = builders::tiny_config("phi3");
  config["rope_scaling"] = R"({"type":"longrope","short_factor":[1,1,1,1,1,1,1,1],"long_factor":[1,2,3,4,5,6,7,8],
    "original_max_position_embeddings":64})";
  damage_safetensors(builders::text(config), builders::tiny_fused_safetensors().build(), 1000, 40'000);
}

TEST("damaged GGUF files with fused matrices and norms behind") {
  damage_gguf(builders::tiny_fused_gguf("glm4").build(), 1000, 50'000);
  damage_gguf(builders::tiny_gemma3_gguf().build(), 1000, 120'000);
}

TEST("damaged files with recurrent layers and a shared expert") {
  damage_gguf(builders::tiny_hybrid_gguf().build(), 1000, 80'000);
  damage_gguf(builders::tiny_hybrid_experts_gguf().build(), 1000, 90'000);
  damage_gguf(builders::tiny_next_gguf().build(), 1000, 110'000);
  damage_safetensors(builders::text(builders::tiny_hybrid_config(true)), builders::tiny_hybrid_safetensors(true).build(), 1000, 100'000);
}

TEST("damaged files with experts") {
  damage_gguf(builders::tiny_experts_gguf().build(), 1000, 60'000);
  damage_gguf(builders::tiny_gpt_oss_gguf().build(), 1000, 65'000);
  damage_safetensors(builders::text(builders::tiny_experts_config()), builders::tiny_experts_safetensors().build(), 1000, 70'000);
}

TEST("damaged safetensors of a real tool") {
  damage_safetensors(files::read(files::fixture("qwen3-tied/config.json")),
                     files::read(files::fixture("qwen3-tied/model.safetensors")), 600, 30'000);
}

TEST("damaged copies of the same seed are the same") {
  std::vector<std::string> first, second;
  for (std::vector<std::string>* all : {&first, &second})
    mutations::each_gguf(
        builders::tiny_gguf().build(), 50, 7,
        [&](const std::string& path, const std::string&) { all->push_back(files::read(path)); });
  CHECK(first == second);
}

TEST_MAIN()
