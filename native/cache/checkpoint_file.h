// Checkpoints of recurrent layers on disk, in the folder of the pages that lead to them (cache_file.h): a file for each, named by the tokens
// before it and whole in itself, so that it is of use with whatever pages are there. Nothing read is believed.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/cache_file.h"
#include "cache/recurrence.h"

namespace longview {

// Makes `checkpoints`, all of the sequence `tokens`, the only ones of the folder; those that are there already stay as they are, but not
// `afresh`. Returns bytes written. Throws kDiskFull or kCannotWrite.
int64_t save_checkpoints(const CacheWriter& writer, const CacheIdentity& identity, std::span<const int32_t> tokens, const Checkpoints& checkpoints, bool afresh = false);

struct ReadCheckpoints {
  Checkpoints checkpoints;  // in the order of their lengths
  bool damaged = false;     // one was not sound: the next save should write all anew
};
// Those of the folder that lie in the sequence `tokens` behind its first `behind`: each of `bytes` bytes.
ReadCheckpoints read_checkpoints(const std::string& folder, const CacheIdentity& identity, std::span<const int32_t> tokens, int64_t behind, int64_t bytes);

}  // namespace longview
