// The options of an engine as JavaScript has them: EngineOptions of server/engine/engine.ts.
#pragma once

#include <napi.h>

#include "engine/engine.h"

namespace longview::binding {

// Throws Error `invalid_argument` where a name is none of the known ones, as settings are typed by hand.
EngineOptions read_options(const Napi::Object& from);

}  // namespace longview::binding
