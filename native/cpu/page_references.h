// The references of q4 pages: what keys of a page are written less, so that codes of 4 bits hold what differs among them.
#pragma once

#include <span>

#include "cpu/kv_pages.h"

namespace longview::cpu {

// Writes the references of one head for the pages that begin in a chunk, before its keys are written. A page has the mean of those of its keys
// that the chunk holds, where they are 32 at least or the page is the first; else that of the page before. keys: float rows of the chunk, as
// pages will keep them, from first_position on and `stride` apart; those that are not finite do not count. A single token at position 0 has 0.
void write_references(const CpuKvStorage& storage, std::span<const int32_t> page_slots, int64_t layer, int64_t kv_head, const float* keys, int64_t stride, int64_t first_position, int64_t tokens);

}  // namespace longview::cpu
