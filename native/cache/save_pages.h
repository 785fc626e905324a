// Writes a sequence's pages to a folder, beside the work on them: pages are fetched in batches and written meanwhile.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "base/cancel.h"
#include "cache/cache_file.h"
#include "cache/checkpoint_file.h"

namespace longview {

struct SaveOptions {
  int64_t max_bytes = 0;  // of the folder's segments and checkpoints; 0: no limit. What does not fit is left out from the end
  Checkpoints checkpoints;  // of recurrent layers; those behind what is saved are left out
  bool afresh = false;    // write every page and checkpoint anew: something there is damaged
  std::function<void()> give_way = [] {};  // called before each page is written; returns when nothing is more urgent
};

struct SaveResult {
  int64_t tokens = 0;         // of the sequence, from its beginning, that are on disk now
  int64_t written_bytes = 0;  // by this call
  bool busy = false;          // another process is writing to the folder: nothing was done
};

// Copies page `number` of the sequence to `out`, now or later, and then calls `done`; false: it is gone, and the save ends.
using FetchPage = std::function<void(int64_t number, std::span<std::byte> out, std::function<void(bool)> done)>;
// Tokens on disk so far, of all.
using SaveProgress = std::function<void(int64_t done, int64_t total)>;

// Saves what of `tokens` is not there yet. Cancelled, it keeps what it has written. Throws kDiskFull and kCannotWrite; then
// the folder's state is as of the last commit.
SaveResult save_pages(const std::string& folder, const CacheIdentity& identity, std::span<const int32_t> tokens, const SaveOptions& options, const FetchPage& fetch,
                      const CancelToken& cancel, const SaveProgress& progress);

}  // namespace longview
