#pragma once

#include "model/config.h"
#include "model/model_file.h"

namespace longview {

// Reads and range-checks the configuration of a model. Throws kUnsupportedArchitecture (named) or kFileCorrupt.
ModelConfig read_config(const ModelFile& file);

}  // namespace longview
