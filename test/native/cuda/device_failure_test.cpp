// A kernel that fails takes everything on the device along: the error says so, and a new engine works as the first one did.
#include "base/error.h"
#include "check.h"
#include "cuda/library.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;

TEST("after a failure the engine says that the device is lost, and can be opened anew") {
  const cuda::Loaded& loaded = cuda::load_library();
  if (!loaded.library) SKIP("no CUDA device: " + loaded.why);
  const std::string path = files::fixture("qwen3-tied");
  const std::vector<int32_t> tokens = files::references(path + "/reference.safetensors").at("tokens").values<int32_t>();
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  const auto answer = [&](Engine& engine) {
    const auto context = engine.create_context();
    engine.prefill(*context, tokens, CancelToken());
    return std::vector<float>(context->logits().begin(), context->logits().end());
  };
  std::vector<float> before;
  {
    Engine engine(path, options);
    before = answer(engine);
    // Reads far outside of any memory: what a fault in a kernel or in the hardware looks like from outside.
    kernels::Stream stream = nullptr;
    CHECK(loaded.library->open_device(0, &stream) == kernels::kOk);
    float* out = nullptr;
    CHECK(loaded.library->allocate(reinterpret_cast<void**>(&out), 4096) == kernels::kOk);
    const auto* nowhere = reinterpret_cast<const int32_t*>(uintptr_t{0x7000000000000});
    CHECK(loaded.library->embed({out, kernels::WeightType::kBFloat16, nowhere, out, 1, 64}, stream) == kernels::kOk);
    CHECK(loaded.library->synchronize(stream) > 0);
    CHECK_THROWS(answer(engine), kDeviceLost);
    CHECK_THROWS(answer(engine), kDeviceLost);
  }
  Engine engine(path, options);
  CHECK(answer(engine) == before);
}

TEST_MAIN()
