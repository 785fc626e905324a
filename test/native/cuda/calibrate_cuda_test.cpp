// Calibration on a GPU: its own kernels are timed, and what comes out is read back by the same device.
#include "engine/calibrate.h"

#include <numeric>

#include "base/error.h"
#include "check.h"
#include "cuda/beside.h"

using namespace longview;
using namespace longview::beside;

namespace {

constexpr ProfileUse kBalanced{PrefillMode::kAdaptive, PrefillTarget::kBalanced}, kMinference{PrefillMode::kMinference, PrefillTarget::kBalanced};

EngineOptions on_gpu(PrefillMode mode, const std::string& profile = "") {
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  options.prefill.mode = mode;
  options.prefill.profile = profile;
  return options;
}

}  // namespace

TEST("the built-in model: profiles within their density, of this device, by which it then reads") {
  const std::string path = built_in_model();
  if (const std::string why = why_not_cuda(open_model(path).config); !why.empty()) SKIP("no CUDA device: " + why);
  Engine engine(path, on_gpu(PrefillMode::kAdaptive));
  const std::vector<int32_t> tokens = some_tokens(engine, 12000);
  Calibration calibration(engine, tokens, {true, true, 4000, 1, ""});
  while (calibration.step(CancelToken())) {
  }
  for (const ProfileUse& use : {kBalanced, kMinference}) {
    const double wanted = 0.7;
    const HeadProfile profile = calibration.profile(use, wanted);
    const double density = std::accumulate(profile.density.begin(), profile.density.end(), 0.0) / static_cast<double>(profile.density.size());
    CHECK(density > 0 && density <= wanted);
    const files::Scratch scratch;
    Engine reader(path, on_gpu(use.mode, scratch.put("profile.json", head_profile_json(profile))));
    const auto context = reader.create_context();
    reader.prefill(*context, tokens, CancelToken(), true);
    const double visited = density_of(reader.counters().coverage);
    std::printf("  %s: density %.3f where it was measured, %.3f of the whole text\n", name(use), density, visited);
    CHECK(use.mode == PrefillMode::kMinference || visited < 1);  // MInference reads short texts densely
  }
}

TEST_MAIN()
