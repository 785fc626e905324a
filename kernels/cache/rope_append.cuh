// The part of launch_rope_append, which has checked the arguments, that writes q8 pages.
#pragma once

#include "kernels/api/cache.h"

namespace longview::kernels {

Status launch_rope_append_q8(const RopeAppendArgs& args, Stream stream);

}  // namespace longview::kernels
