// The name of a page: a hash over everything that its content follows from. H(page) = hash(H(page before), its token ids);
// the first page follows the root, which stands for model, layout and settings. A hash only finds: whoever reuses a page
// compares its token ids and the page before it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/hash.h"

namespace longview {

// Rises when pages of the former kind must not be read any more.
constexpr uint64_t kCacheVersion = 1;

// `identity` names all that the content of pages depends on beside token ids.
inline uint64_t chain_root(const std::string& identity) { return hash64(identity.data(), identity.size(), kCacheVersion); }

inline uint64_t chain_hash(uint64_t parent, std::span<const int32_t> tokens) { return hash64(tokens.data(), tokens.size_bytes(), parent); }

}  // namespace longview
