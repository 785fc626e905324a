// A kernel that fails takes everything on the device along: the error says so, nothing crashes, and another process works.
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "check.h"
#include "cuda/library.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;

namespace {

std::vector<float> answer(Engine& engine) {
  const std::string reference = files::fixture("qwen3-tied/reference.safetensors");
  const std::vector<int32_t> tokens = files::references(reference).at("tokens").values<int32_t>();
  const auto context = engine.create_context();
  engine.prefill(*context, tokens, CancelToken());
  return std::vector<float>(context->logits().begin(), context->logits().end());
}

EngineOptions on_gpu() {
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  return options;
}

}  // namespace

// Run by the other one, in a process of its own.
TEST("failing") {
  if (!std::getenv("LONGVIEW_FAIL_DEVICE")) SKIP("only in a process of its own");
  const kernels::Library& library = *cuda::load_library().library;
  Engine engine(files::fixture("qwen3-tied"), on_gpu());
  answer(engine);
  // Reads far outside of any memory: what a fault in a kernel or in the hardware looks like from outside.
  kernels::Stream stream = nullptr;
  float* out = nullptr;
  CHECK(library.open_device(0, &stream) == kernels::kOk && library.allocate(reinterpret_cast<void**>(&out), 4096) == kernels::kOk);
  const auto* nowhere = reinterpret_cast<const int32_t*>(uintptr_t{0x7000000000000});
  CHECK(library.embed({out, kernels::WeightType::kBFloat16, nowhere, out, 1, 64}, stream) == kernels::kOk);
  CHECK(library.synchronize(stream) > 0);
  CHECK_THROWS(answer(engine), kDeviceLost);
  CHECK_THROWS(answer(engine), kDeviceLost);
}

TEST("after a failure the engine says that the device is lost, and the next process works") {
  const cuda::Loaded& loaded = cuda::load_library();
  if (!loaded.library) SKIP("no CUDA device: " + loaded.why);
  Engine before(files::fixture("qwen3-tied"), on_gpu());
  const std::vector<float> wanted = answer(before);
  setenv("LONGVIEW_FAIL_DEVICE", "1", 1);
  const int result = std::system((std::filesystem::read_symlink("/proc/self/exe").string() + " failing").c_str());
  unsetenv("LONGVIEW_FAIL_DEVICE");
  CHECK(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  Engine after(files::fixture("qwen3-tied"), on_gpu());
  CHECK(answer(after) == wanted);
}

TEST_MAIN()
