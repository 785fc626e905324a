// SmolLM2-135M-Instruct on a GPU (bf16 activations, bf16 KV) against outputs of PyTorch in float32.
#include "engine/smollm2.h"
#include "model/model_file.h"

using namespace longview;
using namespace longview::smollm2;

TEST("SmolLM2 on the GPU agrees with the reference, teacher-forced, wherever its margin is above 0.25") {
  const std::string path = model();
  if (const std::string why = why_not_cuda(open_model(path).config); !why.empty()) SKIP("no CUDA device: " + why);
  EngineOptions options;
  options.device = DeviceChoice::kCuda;
  Engine engine(path, options);
  check_agreement(engine, engine.device().name);
}

TEST_MAIN()
