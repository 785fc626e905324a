#include "cache/cache_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/half.h"
#include "cache/chain.h"

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

[[noreturn]] void throw_errno(const std::string& what) {
  const int error = errno;
  if (error == ENOSPC || error == EDQUOT) LONGVIEW_THROW(kDiskFull, "The disk is full: %s. The state stays in memory; free some space, or clear the cache.", what.c_str());
  LONGVIEW_THROW(kCannotWrite, "%s: %s. The state stays in memory.", what.c_str(), std::strerror(error));
}

// Bytes read at `offset`, less than asked for at the end of the file; -1 on error.
int64_t read_at(int file, int64_t offset, std::span<std::byte> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = pread(file, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return static_cast<int64_t>(done);
}

void write_at(int file, int64_t offset, std::span<const std::byte> bytes, const std::string& path) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = pwrite(file, bytes.data() + done, bytes.size() - done, offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno(path + " could not be written");
    done += static_cast<size_t>(count);
  }
}

void sync(int file, const std::string& path) {
  if (fsync(file) != 0) throw_errno(path + " could not be written");
}

void make_folder(const std::string& folder) {
  for (size_t slash = folder.find('/', 1);; slash = folder.find('/', slash + 1)) {
    const std::string part = folder.substr(0, slash);
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST && errno != EISDIR) throw_errno("The folder " + part + " could not be made");
    if (slash == std::string::npos) return;
  }
}

// Calls `visit` with the folder's descriptor and the number of each segment that lies there.
void each_segment(const std::string& path, const std::function<void(int folder, int32_t segment)>& visit) {
  DIR* folder = opendir(path.c_str());
  if (!folder) return;
  while (const dirent* entry = readdir(folder)) {
    int segment = -1;
    if (std::sscanf(entry->d_name, "pages-%d.bin", &segment) == 1 && segment_name(segment) == std::string("/") + entry->d_name) visit(dirfd(folder), segment);
  }
  closedir(folder);
}

// Whether the folder of that name is the one whose lock is held. Who clears the cache moves the folder away first, and another
// writer may have made a new one in its place since.
bool in_place(const FileHandle& lock, const std::string& folder) {
  struct stat held{}, named{};
  return fstat(lock.get(), &held) == 0 && stat((folder + kLock).c_str(), &named) == 0 && held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

void check_in_place(const FileHandle& lock, const std::string& folder) {
  LONGVIEW_CHECK(in_place(lock, folder), kCannotWrite, "The saved state in %s was cleared while more was written. The state stays in memory.", folder.c_str());
}

}  // namespace

FileHandle::~FileHandle() {
  if (descriptor_ >= 0) close(descriptor_);
}

// --- reading --------------------------------------------------------------------------------------------------------

CacheReader::CacheReader(std::string folder, const CacheIdentity& identity) : folder_(std::move(folder)), identity_(identity) {
  read_manifest();
  for (const Page& page : pages_) {
    if (page.count == 0 || segments_.contains(page.segment)) continue;
    FileHandle file(::open((folder_ + segment_name(page.segment)).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));  // a pipe has no pages, and is not waited for
    if (file) posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    segments_.emplace(page.segment, std::move(file));
  }
}

void CacheReader::read_manifest() {
  const FileHandle file(::open((folder_ + kManifest).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return;  // nothing was saved yet
  struct stat status{};
  if (fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > kMaxManifestBytes) return;
  std::vector<std::byte> bytes(static_cast<size_t>(status.st_size));
  const int64_t size = read_at(file.get(), 0, bytes);
  const auto damaged = [&] { note_ = "The saved state is damaged; what of it is sound is used."; };
  if (size < static_cast<int64_t>(sizeof(Header))) return damaged();
  const auto header = load<Header>(bytes.data());
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 || header.checksum != checksum(header)) return damaged();
  foreign_ = header.version != kManifestVersion || header.root != identity_.root || header.page_bytes != identity_.page_bytes || header.page_tokens != kPageTokens;
  if (foreign_) return;

  const int64_t records = (size - static_cast<int64_t>(sizeof(Header))) / static_cast<int64_t>(sizeof(Record));
  if (size != static_cast<int64_t>(sizeof(Header) + static_cast<size_t>(records) * sizeof(Record)) || size != status.st_size) damaged();
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
  return read_at(segment->second.get(), p.offset, out) == identity_.page_bytes && hash64(out.data(), out.size(), p.hash) == p.checksum;
}

// --- writing --------------------------------------------------------------------------------------------------------

std::unique_ptr<CacheWriter> CacheWriter::open(const std::string& folder, const CacheIdentity& identity) {
  LONGVIEW_CHECK(identity.page_bytes > 0, kInternal, "pages have no size");
  make_folder(folder);
  const std::string path = folder + kLock;
  FileHandle lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) throw_errno(path + " could not be opened");
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0 || !in_place(lock, folder)) return nullptr;
  // The owner's id is for people: the lock itself ends with its process.
  const std::string owner = format("%d\n", static_cast<int>(getpid()));
  if (ftruncate(lock.get(), 0) != 0) throw_errno(path + " could not be written");
  write_at(lock.get(), 0, std::as_bytes(std::span(owner)), path);
  return std::unique_ptr<CacheWriter>(new CacheWriter(folder, identity, std::move(lock)));
}

CacheWriter::CacheWriter(const std::string& folder, const CacheIdentity& identity, FileHandle lock) : folder_(folder), lock_(std::move(lock)), known_(folder, identity) {
  for (const CacheReader::Page& page : known_.pages_)
    if (page.count > 0) ends_[page.segment] = std::max(ends_[page.segment], page.offset + identity.page_bytes);
  committed_ = ends_;
  if (known_.foreign_) each_segment(folder_, [this](int, int32_t segment) { foreign_ = std::max(foreign_, segment); });
  else remove_strays();
  if (!known_.note().empty()) start_afresh();
}

CacheWriter::~CacheWriter() {
  file_ = FileHandle();
  if (!in_place(lock_, folder_)) return;
  for (const auto& [segment, end] : ends_) {
    const std::string path = folder_ + segment_name(segment);
    const auto before = committed_.find(segment);
    if (before == committed_.end()) unlink(path.c_str());
    else if (before->second < end && truncate(path.c_str(), before->second) != 0) continue;  // a stray end does no harm
  }
}

// Segments that no page lies in: left by a process that ended before its commit, or of another identity's state.
void CacheWriter::remove_strays() {
  if (!in_place(lock_, folder_)) return;
  each_segment(folder_, [this](int folder, int32_t segment) {
    if (!ends_.contains(segment)) unlinkat(folder, segment_name(segment).c_str() + 1, 0);
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
  file_ = FileHandle();
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
  if (file_) sync(file_.get(), folder_ + segment_name(segment_));
  check_in_place(lock_, folder_);
  const std::string path = folder_ + segment_name(wanted);
  file_ = FileHandle(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
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
  write_at(file_.get(), page.offset, bytes, folder_ + segment_name(segment_));
  ends_[segment_] += known_.page_bytes();
  dirty_ = true;
  return known_.add(page);
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
  if (file_) sync(file_.get(), folder_ + segment_name(segment_));
  check_in_place(lock_, folder_);
  const FileHandle folder(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) throw_errno(folder_ + " could not be opened");
  const std::string path = folder_ + kManifest, fresh = folder_ + "/manifest.new";
  std::map<int32_t, int64_t> ends = ends_;
  unlink(fresh.c_str());  // whatever lies there
  {
    const FileHandle file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) throw_errno(fresh + " could not be opened");
    const std::string bytes = manifest();
    write_at(file.get(), 0, std::as_bytes(std::span(bytes)), fresh);
    sync(file.get(), fresh);
  }
  check_in_place(lock_, folder_);
  if (rename(fresh.c_str(), path.c_str()) != 0) throw_errno(path + " could not be written");
  // From here on the manifest names the new pages: whatever fails, they stay.
  committed_ = std::move(ends);
  dirty_ = false;
  if (fsync(folder.get()) != 0 && errno != EINVAL && errno != ENOTSUP) throw_errno(folder_ + " could not be written");  // some file systems sync no folders
  remove_strays();
}

}  // namespace longview
