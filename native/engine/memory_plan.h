// What a model will need on a device, reckoned before anything is allocated: one budget for the weights, the KV pool and the
// workspace.
#pragma once

#include <optional>
#include <string>

#include "backend/backend.h"
#include "model/weights.h"

namespace longview {

struct MemoryPlan {
  int64_t weight_bytes = 0;
  int64_t workspace_bytes = 0;  // activations of a chunk, and what the device's operations keep beside them and beside the pages
  int64_t page_bytes = 0;       // of the KV state
  int64_t pages = 0;
  int64_t chunk_tokens = 0;  // the largest chunk that there is room for
};

struct MemoryLimits {
  int64_t kv_budget_bytes = 0;  // 0: what the window needs, within free memory
  int64_t chunk_tokens = 0;     // the largest chunk that will be asked for
};

// The format of the KV state and the plan with it. `note`: a sentence where the format is not what one would expect.
struct KvChoice {
  KvFormat format;
  MemoryPlan plan;
  std::string note;
  int64_t window_in_4_bits = 0;  // tokens that there would be room for in q4, up to the model's window; 0: no more than there is, or not in 8 bits
};

// Shrinks the chunk before it shrinks the window. Throws kOutOfMemory, with the numbers and what helps, where not even a
// small window fits.
MemoryPlan plan_memory(const Backend& backend, const Model& model, const KvShape& kv, const MemoryLimits& limits);

// plan_memory with `wanted`, or without one with bf16 where the model's window fits so, and with q8 where it does not. A device without
// 8-bit floats keeps q8 in their place. kv's own format is not looked at.
KvChoice choose_kv_format(const Backend& backend, const Model& model, KvShape kv, std::optional<KvFormat> wanted, const MemoryLimits& limits);

}  // namespace longview
