// The parts of launch_rope_append, which has checked the arguments, that write pages of 8 and 4 bits, and a token to others whose heads are normed first.
#pragma once

#include "kernels/api/cache.h"

namespace longview::kernels {

Status launch_rope_append_q8(const RopeAppendArgs& args, Stream stream);
Status launch_rope_append_q4(const RopeAppendArgs& args, Stream stream);
Status launch_rope_append_e4m3(const RopeAppendArgs& args, Stream stream);
Status launch_rope_append_normed(const RopeAppendArgs& args, Stream stream);

}  // namespace longview::kernels
