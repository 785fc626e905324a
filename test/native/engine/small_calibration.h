// A small model of random weights to calibrate, and what a part file holds of that.
#pragma once

#include <algorithm>
#include <random>

#include "base/half.h"
#include "engine/calibrate.h"
#include "engine/engine.h"
#include "model/files.h"
#include "sparse/pattern_search.h"

namespace longview::small_calibration {

inline EngineOptions adaptive() {
  EngineOptions options;
  options.cpu.precision = Precision::kFloat32;
  options.kv_format = KvFormat::kFloat32;
  options.chunk_tokens = 256;
  options.prefill.mode = PrefillMode::kAdaptive;
  return options;
}

inline std::string model() { return files::fixture("llama.Q8_0.gguf"); }

// Long enough that blocks lie behind the sink and before the window.
inline std::vector<int32_t> text(const Engine& engine, int64_t tokens = 1024) {
  std::mt19937 random(7);
  std::vector<int32_t> ids(static_cast<size_t>(std::min(tokens, engine.window())));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(engine.model().config.vocabulary));
  return ids;
}

inline CalibrationOptions every_chunk(int64_t from = 0, const std::string& part = "") { return {true, false, from, 1, part}; }

constexpr ProfileUse kFast{PrefillMode::kAdaptive, PrefillTarget::kFast}, kBalanced{PrefillMode::kAdaptive, PrefillTarget::kBalanced}, kMinference{PrefillMode::kMinference, PrefillTarget::kBalanced};

inline void finish(Calibration& calibration) {
  while (calibration.step(CancelToken())) {
  }
}

// The numbers of a part file (engine/calibration_part.cpp): 3, and for each layer 2 and 6 for each trial, [heads, candidates].
struct Part {
  Part(const std::string& path, const Engine& engine) : bytes(files::read(path)), heads(static_cast<size_t>(engine.model().config.heads)), candidates(adaptive_candidates().size()) {}
  template <typename T>
  T at(size_t layer, size_t number) const {
    return load<T>(bytes.data() + (3 + layer * (2 + 6 * heads * candidates) + number) * sizeof(T));
  }
  int64_t rows(size_t layer) const { return at<int64_t>(layer, 1); }
  // 0 its error, 1 seconds, 2 keys visited, 3 keys that are causal.
  double trial(size_t layer, size_t head, size_t candidate, size_t number) const { return at<double>(layer, 2 + 6 * (head * candidates + candidate) + number); }

  const std::string bytes;
  const size_t heads, candidates;
};

}  // namespace longview::small_calibration
