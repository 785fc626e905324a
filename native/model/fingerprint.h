// Tells one model from another in well under a second, whatever its size.
#pragma once

#include <string>

#include "model/model_file.h"

namespace longview {

// 32 hexadecimal digits from the size, the whole header (config.json too) and 256 samples of the weights of
// each part; the path and the file times do not count. KV pages on disk carry it. It is no protection against
// someone who edits a model to keep its fingerprint, and a change of a few weights between samples goes
// unseen.
std::string fingerprint(const ModelFile& file);

}  // namespace longview
