// KV pages on disk: a folder with segments (pages-00000.bin .. of up to 256 MiB, appended only) and a manifest that lists
// the pages in them, each with the page it follows, its token ids, its place and its checksum.
//
// Kill -9 or a power cut at any moment leaves the state of the last commit: segments are written and synced first, then the
// manifest under another name, then renamed over the former. Nothing read is believed: a damaged record or page is as good
// as missing, and a manifest of another model, layout or version is as good as none.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "os/file.h"

namespace longview {

// What the pages of a folder belong to.
struct CacheIdentity {
  uint64_t root = 0;  // chain_root()
  int64_t page_bytes = 0;
};

// The pages that a folder had when it was opened. Later commits of others do not change it.
class CacheReader {
 public:
  static constexpr int32_t kRoot = -1;
  static constexpr int32_t kNone = -2;

  // A folder without a readable manifest has no pages; `note()` says why where that is worth a line.
  CacheReader(std::string folder, const CacheIdentity& identity);

  int64_t size() const { return static_cast<int64_t>(pages_.size()); }
  const std::string& note() const { return note_; }
  int64_t page_bytes() const { return identity_.page_bytes; }

  // The longest page that follows `parent` and whose token ids `tokens` begin with: a full one, else a ragged one; or kNone.
  int32_t find(int32_t parent, std::span<const int32_t> tokens) const;
  // Token ids of a page, 1 to kPageTokens.
  std::span<const int32_t> tokens(int32_t page) const;
  // Reads and checks a page's bytes; false where they are missing or damaged. May be called by several threads at once.
  bool read(int32_t page, std::span<std::byte> out) const;

 private:
  friend class CacheWriter;
  struct Page {
    uint64_t hash = 0, checksum = 0;
    int64_t offset = 0;
    int32_t segment = 0, parent = kRoot, count = 0;
    std::array<int32_t, kPageTokens> tokens{};
  };

  uint64_t hash_of(int32_t page) const { return page == kRoot ? identity_.root : pages_[static_cast<size_t>(page)].hash; }
  int32_t find_exactly(int32_t parent, std::span<const int32_t> tokens) const;
  int32_t add(const Page& page);
  void read_manifest();

  std::string folder_;
  CacheIdentity identity_;
  std::string note_;
  bool foreign_ = false;  // there is a manifest of another model, layout or version
  std::vector<Page> pages_;
  std::unordered_map<uint64_t, int32_t> by_hash_;
  std::map<int32_t, os::File> segments_;
};

// Appends pages to a folder. Holds the folder's lock, which the system frees when the process ends in whatever way. A folder that
// is moved away meanwhile is not written to any more, nor is another one of its name.
class CacheWriter {
 public:
  // Makes the folder (0700) where it is missing. Null where another process writes to it, or clears it, at this time. A damaged
  // manifest is replaced by the first commit. Throws kDiskFull or kCannotWrite.
  static std::unique_ptr<CacheWriter> open(const std::string& folder, const CacheIdentity& identity);
  // What was not committed is given back to the disk.
  ~CacheWriter();

  // As in CacheReader; pages appended here count.
  int32_t find(int32_t parent, std::span<const int32_t> tokens) const;
  std::span<const int32_t> tokens(int32_t page) const { return known_.tokens(page); }
  // Adds a page behind `parent`, which must be full. Throws kDiskFull or kCannotWrite; then it is not added.
  int32_t append(int32_t parent, std::span<const int32_t> tokens, std::span<const std::byte> bytes);
  // Makes everything appended so far last. Throws as append does; the former state, or all of the new one, is kept then.
  void commit();
  // Forgets every page that is there, for a commit to put others in their place.
  void start_afresh();

  int64_t page_bytes() const { return known_.page_bytes(); }
  const std::string& folder() const { return folder_; }
  // Throws kCannotWrite where the folder was moved away since it was opened.
  void check_in_place() const;
  // Bytes of all segments that hold pages.
  int64_t segment_bytes() const;

 private:
  CacheWriter(const std::string& folder, const CacheIdentity& identity, os::File lock);
  // Opens the segment that the next page goes to.
  void open_segment();
  void remove_strays();
  std::string manifest() const;

  const std::string folder_;
  os::File lock_;
  CacheReader known_;
  std::map<int32_t, int64_t> ends_;       // segments with pages: where the last page ends
  std::map<int32_t, int64_t> committed_;  // the same as of the last commit
  int32_t segment_ = -1;                  // the one being written, open in file_
  int32_t foreign_ = -1;                  // the last segment of another identity's state, which stays until a commit replaces it
  os::File file_;
  bool dirty_ = false;
};

}  // namespace longview
