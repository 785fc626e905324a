#include "cache/save_pages.h"

#include <algorithm>
#include <condition_variable>
#include <iterator>
#include <memory>
#include <mutex>
#include <vector>

namespace longview {
namespace {

constexpr int64_t kBatchBytes = int64_t{32} << 20;
// A crash in a long save loses no more than this.
constexpr int64_t kCommitBytes = int64_t{1} << 30;
// Pages of former states may lie about up to this, or as much as the present state; then everything is written anew.
constexpr int64_t kToleratedWaste = int64_t{256} << 20;

// Pages first .. first + count - 1, being fetched. Shared with the fetches: it outlives a save that gives up.
struct Batch {
  int64_t first = 0, count = 0;
  std::vector<std::byte> bytes;
  std::mutex mutex;
  std::condition_variable changed;
  int64_t open = 0;
  bool failed = false;

  bool wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return open == 0; });
    return !failed;
  }
};

std::shared_ptr<Batch> fetch_batch(int64_t first, int64_t count, int64_t page_bytes, const FetchPage& fetch) {
  auto batch = std::make_shared<Batch>();
  batch->first = first;
  batch->count = batch->open = count;
  batch->bytes.resize(static_cast<size_t>(count * page_bytes));
  for (int64_t i = 0; i < count; ++i)
    fetch(first + i, std::span(batch->bytes).subspan(static_cast<size_t>(i * page_bytes), static_cast<size_t>(page_bytes)), [batch](bool ok) {
      const std::lock_guard lock(batch->mutex);
      batch->failed |= !ok;
      --batch->open;
      batch->changed.notify_all();
    });
  return batch;
}

// Pages of the sequence that the folder has from the beginning on; `last` is set to the last of them.
int64_t present(const CacheWriter& writer, std::span<const int32_t> tokens, int32_t& last) {
  last = CacheReader::kRoot;
  int64_t pages = 0;
  for (size_t at = 0; at < tokens.size(); at += kPageTokens, ++pages) {
    const std::span<const int32_t> page = tokens.subspan(at, std::min(tokens.size() - at, static_cast<size_t>(kPageTokens)));
    const int32_t found = writer.find(last, page);
    if (found == CacheReader::kNone || writer.tokens(found).size() < page.size()) break;
    last = found;
  }
  return pages;
}

// The limit that is left for pages; 0: there is none.
int64_t most_page_bytes(const SaveOptions& options) {
  int64_t left = options.max_bytes;
  for (const auto& checkpoint : options.checkpoints) left -= static_cast<int64_t>(checkpoint->bytes.size());
  return options.max_bytes > 0 ? std::max<int64_t>(left, 1) : 0;
}

// The pages alone.
SaveResult write_pages(CacheWriter& writer, const CacheIdentity& identity, std::span<const int32_t> tokens, const SaveOptions& options, const FetchPage& fetch, const CancelToken& cancel,
                      const SaveProgress& progress) {
  SaveResult result;
  const int64_t max_bytes = most_page_bytes(options);
  const auto total = static_cast<int64_t>(tokens.size());
  const auto up_to = [total](int64_t pages) { return std::min(total, pages * kPageTokens); };
  int64_t pages = pages_of(total);
  int32_t last = CacheReader::kRoot;
  int64_t done = present(writer, tokens, last);
  const bool over = max_bytes > 0 && done * identity.page_bytes > max_bytes;  // the limit was larger before
  if (done == pages && !options.afresh && !over) {
    result.tokens = total;
    return result;
  }
  const int64_t needed = pages * identity.page_bytes, waste = writer.segment_bytes() - done * identity.page_bytes;
  const bool full = max_bytes > 0 && waste + needed > max_bytes;
  const bool afresh = options.afresh || over || waste > std::max(needed, kToleratedWaste) || (full && waste > 0);
  if (afresh) {
    writer.start_afresh();
    done = 0;
    last = CacheReader::kRoot;
  }
  if (max_bytes > 0) pages = std::min(pages, max_bytes / identity.page_bytes);

  const int64_t batch_pages = std::clamp<int64_t>(kBatchBytes / identity.page_bytes, 1, 64);
  const auto begin_fetch = [&](int64_t first) { return first < pages ? fetch_batch(first, std::min(batch_pages, pages - first), identity.page_bytes, fetch) : nullptr; };
  int64_t uncommitted = 0;
  std::shared_ptr<Batch> batch = begin_fetch(done);
  while (batch && batch->wait() && !cancel.cancelled()) {
    const std::shared_ptr<Batch> current = std::exchange(batch, begin_fetch(batch->first + batch->count));
    for (int64_t i = 0; i < current->count && !cancel.cancelled(); ++i, ++done) {
      options.give_way();
      const auto bytes = std::span(current->bytes).subspan(static_cast<size_t>(i * identity.page_bytes), static_cast<size_t>(identity.page_bytes));
      last = writer.append(last, tokens.subspan(static_cast<size_t>(done * kPageTokens), static_cast<size_t>(up_to(done + 1) - done * kPageTokens)), bytes);
      result.written_bytes += identity.page_bytes;
      uncommitted += identity.page_bytes;
    }
    if (uncommitted >= kCommitBytes && !afresh) {
      writer.commit();
      uncommitted = 0;
    }
    progress(up_to(done), total);
  }
  // What is written anew takes the place of the former state only when it is complete.
  if (afresh && done < pages) return {};
  writer.commit();
  result.tokens = up_to(done);
  return result;
}

}  // namespace

SaveResult save_pages(const std::string& folder, const CacheIdentity& identity, std::span<const int32_t> tokens, const SaveOptions& options, const FetchPage& fetch,
                      const CancelToken& cancel, const SaveProgress& progress) {
  const auto writer = CacheWriter::open(folder, identity);
  if (!writer) return {.busy = true};
  SaveResult result = write_pages(*writer, identity, tokens, options, fetch, cancel, progress);
  if (options.checkpoints.empty() || cancel.cancelled()) return result;
  Checkpoints of_pages;
  std::ranges::copy_if(options.checkpoints, std::back_inserter(of_pages), [&](const auto& checkpoint) { return checkpoint->length <= result.tokens; });
  result.written_bytes += save_checkpoints(*writer, identity, tokens, of_pages, options.afresh);
  return result;
}

}  // namespace longview
