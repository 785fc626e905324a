#include "cache/cache_file.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/half.h"
#include "cache/chain.h"
#include "cache/write_file.h"

namespace longview {
namespace {

constexpr uint64_t kManifestVersion = 1;
constexpr int64_t kSegmentBytes = int64_t{256} << 20;
constexpr int64_t kMaxManifestBytes = int64_t{1} << 30;
constexpr int32_t kMaxSegments = 100000;
constexpr char kMagic[8] = {'L', 'O', 'N', 'G', 'V', 'W', 'K', 'V'};
constexpr const char* kManifest = "/manifest.bin";
constexpr const char* kLock = "/lock";

// The manifest, little-endian: one header, then records to the end of the file. Every checksum covers what stands before it.
struct Header {
  char magic[8];
  uint64_t version, root, page_tokens;
  int64_t page_bytes;
  uint64_t checksum;
};
static_assert(sizeof(Header) == 48);

struct Record {
  uint64_t page_checksum;  // hash64 of the page's bytes, seeded with its place in the chain
  int64_t offset;
  int32_t segment, parent, count, reserved;
  int32_t tokens[kPageTokens];  // -1 behind `count`
  uint64_t checksum;            // seeded with the root and the record's number
};
static_assert(sizeof(Record) == 40 + 4 * kPageTokens);

uint64_t checksum(const Header& header) { return hash64(&header, offsetof(Header, checksum), header.version); }
uint64_t checksum(const Record& record, uint64_t root, int64_t number) { return hash64(&record, offsetof(Record, checksum), root + static_cast<uint64_t>(number)); }

std::string segment_name(int32_t segment) { return format("/pages-%05d.bin", segment); }

void make_folder(const std::string& folder) {
  std::filesystem::path part;
  for (const std::filesystem::path& each : os::path_of(folder)) {
    part /= each;
    const std::string name = os::utf8_of(part);
    if (part != part.root_path() && part != part.root_name() && !os::make_folder(name)) throw_errno("The folder " + name + " could not be made");
  }
}

// Calls `visit` with the number of each segment that lies in the folder.
void each_segment(const os::Folder& folder, const std::function<void(int32_t segment)>& visit) {
  if (!folder) return;
  for (const std::string& name : folder.names()) {
    int segment = -1;
    if (std::sscanf(name.c_str(), "pages-%d.bin", &segment) == 1 && segment_name(segment) == "/" + name) visit(segment);
  }
}

// Whether the folder of that name is the one whose lock is held. Who clears the cache moves the folder away first, and another
// writer may have made a new one in its place since.
bool in_place(const os::File& lock, const std::string& folder) { return lock.status().is_of(os::status(folder + kLock)); }

}  // namespace

// --- reading --------------------------------------------------------------------------------------------------------

CacheReader::CacheReader(std::string folder, const CacheIdentity& identity) : folder_(std::move(folder)), identity_(identity) {
  read_manifest();
  for (const Page& page : pages_) {
    if (page.count == 0 || segments_.contains(page.segment)) continue;
    os::File file(folder_ + segment_name(page.segment), os::Open::kReadNoLink);  // a pipe has no pages, and is not waited for
    if (file) file.expect_sequential_reads();
    segments_.emplace(page.segment, std::move(file));
  }
}

void CacheReader::read_manifest() {
  const os::File file(folder_ + kManifest, os::Open::kReadNoLink);
  if (!file) return;  // nothing was saved yet
  const os::Status status = file.status();
  if (status.kind != os::Kind::kFile || status.size > kMaxManifestBytes) return;
  std::vector<std::byte> bytes(static_cast<size_t>(status.size));
  const int64_t size = file.read(0, bytes);
  const auto damaged = [&] { note_ = "The saved state is damaged; what of it is sound is used."; };
  if (size < static_cast<int64_t>(sizeof(Header))) return damaged();
  const auto header = load<Header>(bytes.data());
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 || header.checksum != checksum(header)) return damaged();
  foreign_ = header.version != kManifestVersion || header.root != identity_.root || header.page_bytes != identity_.page_bytes || header.page_tokens != kPageTokens;
  if (foreign_) return;

  const int64_t records = (size - static_cast<int64_t>(sizeof(Header))) / static_cast<int64_t>(sizeof(Record));
  if (size != static_cast<int64_t>(sizeof(Header) + static_cast<size_t>(records) * sizeof(Record)) || size != status.size) damaged();
  pages_.resize(static_cast<size_t>(records));  // a record that is not sound stays empty: nothing follows it
  for (int64_t i = 0; i < records; ++i) {
    const auto record = load<Record>(bytes.data() + sizeof(Header) + static_cast<size_t>(i) * sizeof(Record));
    const bool sound = record.checksum == checksum(record, identity_.root, i) && record.count >= 1 && record.count <= kPageTokens && record.parent >= kRoot && record.parent < i &&
                       (record.parent == kRoot || pages_[static_cast<size_t>(record.parent)].count == kPageTokens) && record.segment >= 0 && record.segment < kMaxSegments &&
                       record.offset >= 0 && record.offset <= kSegmentBytes;
    if (!sound) {
      damaged();
      continue;
    }
    Page& page = pages_[static_cast<size_t>(i)];
    std::copy_n(record.tokens, kPageTokens, page.tokens.begin());
    page.count = record.count;
    page.parent = record.parent;
    page.hash = chain_hash(hash_of(page.parent), std::span(page.tokens).first(static_cast<size_t>(page.count)));
    page.checksum = record.page_checksum;
    page.offset = record.offset;
    page.segment = record.segment;
    by_hash_.emplace(page.hash, static_cast<int32_t>(i));
  }
}

int32_t CacheReader::add(const Page& page) {
  pages_.push_back(page);
  const auto number = static_cast<int32_t>(pages_.size() - 1);
  by_hash_.emplace(page.hash, number);
  return number;
}

std::span<const int32_t> CacheReader::tokens(int32_t page) const {
  const Page& p = pages_[static_cast<size_t>(page)];
  return std::span(p.tokens).first(static_cast<size_t>(p.count));
}

int32_t CacheReader::find_exactly(int32_t parent, std::span<const int32_t> tokens) const {
  const auto found = by_hash_.find(chain_hash(hash_of(parent), tokens));
  if (found == by_hash_.end()) return kNone;
  const Page& page = pages_[static_cast<size_t>(found->second)];
  const bool same = page.parent == parent && page.count == static_cast<int32_t>(tokens.size()) && std::equal(tokens.begin(), tokens.end(), page.tokens.begin());
  return same ? found->second : kNone;
}

int32_t CacheReader::find(int32_t parent, std::span<const int32_t> tokens) const {
  if (by_hash_.empty()) return kNone;
  for (size_t count = std::min(tokens.size(), static_cast<size_t>(kPageTokens)); count > 0; --count)
    if (const int32_t page = find_exactly(parent, tokens.first(count)); page != kNone) return page;
  return kNone;
}

bool CacheReader::read(int32_t page, std::span<std::byte> out) const {
  const Page& p = pages_[static_cast<size_t>(page)];
  const auto segment = segments_.find(p.segment);
  if (segment == segments_.end() || !segment->second || static_cast<int64_t>(out.size()) != identity_.page_bytes) return false;
  return segment->second.read(p.offset, out) == identity_.page_bytes && hash64(out.data(), out.size(), p.hash) == p.checksum;
}

// --- writing --------------------------------------------------------------------------------------------------------

std::unique_ptr<CacheWriter> CacheWriter::open(const std::string& folder, const CacheIdentity& identity) {
  LONGVIEW_CHECK(identity.page_bytes > 0, kInternal, "pages have no size");
  make_folder(folder);
  const std::string path = folder + kLock;
  os::File lock(path, os::Open::kReadWrite);
  if (!lock) throw_errno(path + " could not be opened");
  if (!lock.try_lock() || !in_place(lock, folder)) return nullptr;
  // The owner's id is for people: the lock itself ends with its process.
  const std::string owner = format("%d\n", os::process_id());
  if (!lock.resize(0)) throw_errno(path + " could not be written");
  write_at(lock, 0, std::as_bytes(std::span(owner)), path);
  return std::unique_ptr<CacheWriter>(new CacheWriter(folder, identity, std::move(lock)));
}

CacheWriter::CacheWriter(const std::string& folder, const CacheIdentity& identity, os::File lock) : folder_(folder), lock_(std::move(lock)), known_(folder, identity) {
  for (const CacheReader::Page& page : known_.pages_)
    if (page.count > 0) ends_[page.segment] = std::max(ends_[page.segment], page.offset + identity.page_bytes);
  committed_ = ends_;
  if (known_.foreign_) each_segment(os::Folder(folder_), [this](int32_t segment) { foreign_ = std::max(foreign_, segment); });
  else remove_strays();
  if (!known_.note().empty()) start_afresh();
}

CacheWriter::~CacheWriter() {
  file_ = os::File();
  if (!in_place(lock_, folder_)) return;
  for (const auto& [segment, end] : ends_) {
    const std::string path = folder_ + segment_name(segment);
    const auto before = committed_.find(segment);
    if (before == committed_.end()) os::remove(path);
    else if (before->second < end && !os::resize(path, before->second)) continue;  // a stray end does no harm
  }
}

// Segments that no page lies in: left by a process that ended before its commit, or of another identity's state.
void CacheWriter::remove_strays() {
  if (!in_place(lock_, folder_)) return;
  const os::Folder folder(folder_);
  each_segment(folder, [&](int32_t segment) {
    if (!ends_.contains(segment)) folder.remove(segment_name(segment).substr(1));
  });
}

int32_t CacheWriter::find(int32_t parent, std::span<const int32_t> tokens) const { return known_.find(parent, tokens); }

int64_t CacheWriter::segment_bytes() const {
  int64_t bytes = 0;
  for (const auto& [segment, end] : ends_) bytes += end;
  return bytes;
}

void CacheWriter::start_afresh() {
  known_.pages_.clear();
  known_.by_hash_.clear();
  ends_.clear();
  file_ = os::File();
  segment_ = -1;
  dirty_ = true;
}

void CacheWriter::open_segment() {
  const int64_t page = known_.page_bytes();
  // The last segment while it has room; a number that was ever used is not used for other pages.
  int32_t wanted = std::max({foreign_, ends_.empty() ? -1 : ends_.rbegin()->first, committed_.empty() ? -1 : committed_.rbegin()->first});
  const auto last = ends_.find(wanted);
  if (last == ends_.end() || (last->second > 0 && last->second + page > kSegmentBytes)) ++wanted;
  LONGVIEW_CHECK(wanted < kMaxSegments, kCannotWrite, "The saved state in %s has too many parts. Clear the cache.", folder_.c_str());
  if (wanted == segment_ && file_) return;
  if (file_) sync(file_, folder_ + segment_name(segment_));
  check_in_place();
  const std::string path = folder_ + segment_name(wanted);
  file_ = os::File(path, os::Open::kReadWrite);
  if (!file_) throw_errno(path + " could not be opened");
  segment_ = wanted;
}

int32_t CacheWriter::append(int32_t parent, std::span<const int32_t> tokens, std::span<const std::byte> bytes) {
  LONGVIEW_CHECK(!tokens.empty() && tokens.size() <= static_cast<size_t>(kPageTokens) && static_cast<int64_t>(bytes.size()) == known_.page_bytes(), kInternal, "not a page");
  open_segment();
  CacheReader::Page page;
  page.hash = chain_hash(known_.hash_of(parent), tokens);
  page.checksum = hash64(bytes.data(), bytes.size(), page.hash);
  page.segment = segment_;
  page.offset = ends_[segment_];
  page.parent = parent;
  page.count = static_cast<int32_t>(tokens.size());
  page.tokens.fill(-1);
  std::copy(tokens.begin(), tokens.end(), page.tokens.begin());
  write_at(file_, page.offset, bytes, folder_ + segment_name(segment_));
  ends_[segment_] += known_.page_bytes();
  dirty_ = true;
  return known_.add(page);
}

void CacheWriter::check_in_place() const {
  LONGVIEW_CHECK(in_place(lock_, folder_), kCannotWrite, "The saved state in %s was cleared while more was written. The state stays in memory.", folder_.c_str());
}

std::string CacheWriter::manifest() const {
  Header header{{}, kManifestVersion, known_.identity_.root, kPageTokens, known_.page_bytes(), 0};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.checksum = checksum(header);
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  for (size_t i = 0; i < known_.pages_.size(); ++i) {
    const CacheReader::Page& page = known_.pages_[i];
    Record record{page.checksum, page.offset, page.segment, page.parent, page.count, 0, {}, 0};
    std::copy(page.tokens.begin(), page.tokens.end(), record.tokens);
    record.checksum = checksum(record, known_.identity_.root, static_cast<int64_t>(i));
    bytes.append(reinterpret_cast<const char*>(&record), sizeof(record));
  }
  return bytes;
}

void CacheWriter::commit() {
  if (!dirty_) return;
  if (file_) sync(file_, folder_ + segment_name(segment_));
  check_in_place();
  const os::Folder folder(folder_);
  if (!folder) throw_errno(folder_ + " could not be opened");
  const std::string path = folder_ + kManifest, fresh = folder_ + "/manifest.new";
  std::map<int32_t, int64_t> ends = ends_;
  os::remove(fresh);  // whatever lies there
  {
    const os::File file(fresh, os::Open::kNew);
    if (!file) throw_errno(fresh + " could not be opened");
    const std::string bytes = manifest();
    write_at(file, 0, std::as_bytes(std::span(bytes)), fresh);
    sync(file, fresh);
  }
  check_in_place();
  if (!os::rename_over(fresh, path)) throw_errno(path + " could not be written");
  // From here on the manifest names the new pages: whatever fails, they stay.
  committed_ = std::move(ends);
  dirty_ = false;
  if (!folder.sync()) throw_errno(folder_ + " could not be written");
  remove_strays();
}

}  // namespace longview
