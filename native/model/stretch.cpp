#include "model/stretch.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "model/rope.h"

namespace longview {
namespace {

// What models of these families were trained on, by the window that their files name: 40,960 are 32,768 and room for an answer. 0 for
// others, which somebody else stretched.
int64_t trained_window(int64_t window) { return window == 40960 ? 32768 : window == 32768 || window == 262144 ? window : 0; }

constexpr std::string_view kFamilies[] = {"qwen2", "qwen3", "qwen3moe", "qwen3_moe", "qwen3next", "qwen35", "qwen3_5_text", "qwen35moe", "qwen3_5_moe_text"};

}  // namespace

bool stretches(const ModelConfig& config) {
  return config.rope.plain_theta > 0 && trained_window(config.window / config.stretch) > 0 && std::ranges::find(kFamilies, config.architecture) != std::end(kFamilies);
}

void stretch_window(ModelConfig& config, int64_t factor) {
  LONGVIEW_CHECK(factor == 1 || factor == 2 || factor == kMostStretch, kInvalidArgument, "A window cannot be stretched %lld times. Set longview.window.stretch to 1, 2 or 4.", static_cast<long long>(factor));
  if (factor == 1) return;
  if (!stretches(config)) {
    config.note += (config.note.empty() ? "" : " ") + std::string("This model's window is not stretched: its makers do not recommend it (those of Qwen2.5, Qwen3 and Qwen3.5 do).");
    return;
  }
  RopeConfig& rope = config.rope;
  const int64_t trained = trained_window(config.window);
  rope.attention_scale = scale_yarn(rope.inverse_frequencies, rope.plain_theta, {.factor = static_cast<double>(factor), .original_window = static_cast<double>(trained)});
  config.window = factor * trained;
  config.stretch = factor;
}

}  // namespace longview
