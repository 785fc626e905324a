#include "cache/checkpoint_file.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/half.h"
#include "cache/chain.h"
#include "cache/write_file.h"

namespace longview {
namespace {

constexpr char kMagic[8] = {'L', 'O', 'N', 'G', 'V', 'W', 'R', 'S'};
constexpr uint64_t kVersion = 1;

// Little-endian; the state's bytes follow. The checksum covers what stands before it, and seeds that of the bytes.
struct Header {
  char magic[8];
  uint64_t version, root, prefix;  // the hash of the tokens before it
  int64_t length, bytes;
  uint64_t content, checksum;
};
static_assert(sizeof(Header) == 64);

uint64_t checksum(const Header& header) { return hash64(&header, offsetof(Header, checksum), header.version); }

// Of the first `length` tokens, page by page.
uint64_t prefix_hash(const CacheIdentity& identity, std::span<const int32_t> tokens, int64_t length) {
  uint64_t hash = identity.root;
  for (int64_t at = 0; at < length; at += kPageTokens) hash = chain_hash(hash, tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(std::min(kPageTokens, length - at))));
  return hash;
}

std::string name_of(int64_t length, uint64_t prefix) { return format("state-%lld-%016llx.bin", static_cast<long long>(length), static_cast<unsigned long long>(prefix)); }

// How many tokens lie before the state in a file of this name; -1 where it is none.
int64_t length_of(const std::string& name) {
  long long length = -1;
  unsigned long long prefix = 0;
  const bool found = std::sscanf(name.c_str(), "state-%18lld-%16llx.bin", &length, &prefix) == 2 && length > 0 && name == name_of(length, prefix);
  return found ? length : -1;
}

std::shared_ptr<const Checkpoint> read_one(const std::string& path, const CacheIdentity& identity, uint64_t prefix, int64_t length, int64_t bytes) {
  const os::File file(path, os::Open::kReadNoLink);
  if (!file || file.status().kind != os::Kind::kFile || file.status().size != static_cast<int64_t>(sizeof(Header)) + bytes) return nullptr;
  Header header;
  if (file.read(0, std::as_writable_bytes(std::span(&header, 1))) != static_cast<int64_t>(sizeof(Header))) return nullptr;
  const bool sound = std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0 && header.checksum == checksum(header) && header.version == kVersion;
  if (!sound || header.root != identity.root || header.prefix != prefix || header.length != length || header.bytes != bytes) return nullptr;
  auto checkpoint = std::make_shared<Checkpoint>();
  checkpoint->length = length;
  checkpoint->bytes.resize(static_cast<size_t>(bytes));
  if (file.read(sizeof(Header), checkpoint->bytes) != bytes || hash64(checkpoint->bytes.data(), checkpoint->bytes.size(), prefix) != header.content) return nullptr;
  return checkpoint;
}

}  // namespace

int64_t save_checkpoints(const CacheWriter& writer, const CacheIdentity& identity, std::span<const int32_t> tokens, const Checkpoints& checkpoints, bool afresh) {
  int64_t written = 0;
  std::set<std::string> wanted;
  for (const auto& checkpoint : checkpoints) {
    const uint64_t prefix = prefix_hash(identity, tokens, checkpoint->length);
    const std::string name = name_of(checkpoint->length, prefix), path = writer.folder() + "/" + name, fresh = path + ".new";
    wanted.insert(name);
    const auto bytes = static_cast<int64_t>(checkpoint->bytes.size());
    if (!afresh && os::status(path).size == static_cast<int64_t>(sizeof(Header)) + bytes) continue;
    Header header{{}, kVersion, identity.root, prefix, checkpoint->length, bytes, hash64(checkpoint->bytes.data(), checkpoint->bytes.size(), prefix), 0};
    std::memcpy(header.magic, kMagic, sizeof(kMagic));
    header.checksum = checksum(header);
    writer.check_in_place();
    os::remove(fresh);  // whatever lies there
    {
      const os::File file(fresh, os::Open::kNew);
      if (!file) throw_errno(fresh + " could not be opened");
      write_at(file, 0, std::as_bytes(std::span(&header, 1)), fresh);
      write_at(file, sizeof(Header), checkpoint->bytes, fresh);
      sync(file, fresh);
    }
    writer.check_in_place();
    if (!os::rename_over(fresh, path)) throw_errno(path + " could not be written");
    written += static_cast<int64_t>(sizeof(Header)) + bytes;
  }
  const os::Folder folder(writer.folder());
  for (const std::string& name : folder ? folder.names() : std::vector<std::string>{}) {
    const std::string whole = name.ends_with(".new") ? name.substr(0, name.size() - 4) : name;
    if (length_of(whole) > 0 && !wanted.contains(name)) folder.remove(name);
  }
  return written;
}

ReadCheckpoints read_checkpoints(const std::string& folder, const CacheIdentity& identity, std::span<const int32_t> tokens, int64_t behind, int64_t bytes) {
  ReadCheckpoints read;
  Checkpoints& found = read.checkpoints;
  const os::Folder opened(folder);
  for (const std::string& name : opened ? opened.names() : std::vector<std::string>{}) {
    const int64_t length = length_of(name);
    if (length <= behind || length > static_cast<int64_t>(tokens.size()) || found.size() >= static_cast<size_t>(Recurrence::kMostCheckpoints)) continue;
    const uint64_t prefix = prefix_hash(identity, tokens, length);
    if (name != name_of(length, prefix)) continue;
    if (auto checkpoint = read_one(folder + "/" + name, identity, prefix, length, bytes)) found.push_back(std::move(checkpoint));
    else read.damaged = true;
  }
  std::ranges::sort(found, {}, [](const auto& checkpoint) { return checkpoint->length; });
  return read;
}

}  // namespace longview
