#include "cuda/blas.h"

#include "cuda/blas_api.h"

namespace longview::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;  // what NVIDIA advises for compute capability 9.0
constexpr size_t kMostPlans = 1024;                     // the last chunks of prompts have lengths of their own

}  // namespace

// The choice of a kernel for one shape. cuBLASLt counts columns first, so it multiplies transposes: its A is the weight, its
// B is x, and its D is out.
struct Blas::Plan {
  const BlasApi& api;
  void *description = nullptr, *weight = nullptr, *x = nullptr, *out = nullptr;
  LtHeuristicResult choice{};

  explicit Plan(const BlasApi& functions) : api(functions) {}
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    if (description) api.destroy_description(description);
    for (void* layout : {weight, x, out})
      if (layout) api.destroy_layout(layout);
  }
};

std::unique_ptr<Blas> Blas::open(const Device& device) {
  const BlasApi* api = load_blas();
  return api ? open(device, *api) : nullptr;
}

std::unique_ptr<Blas> Blas::open(const Device& device, const BlasApi& api) {
  std::unique_ptr<Blas> blas(new Blas(device, api));  // without a handle: for the workspace there may be no room
  return api.create(&blas->handle_) == 0 ? std::move(blas) : nullptr;
}

Blas::Blas(const Device& device, const BlasApi& api) : device_(device), api_(api), workspace_(device, kWorkspaceBytes, "cuBLASLt's workspace") {
  const size_t version = api.get_version();  // 130100: 13.1.0
  name_ = format("cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
}

Blas::~Blas() {
  plans_.clear();
  if (handle_) api_.destroy(handle_);
}

// Null where there is no kernel for the shape.
std::unique_ptr<Blas::Plan> Blas::plan(const Product& p) const {
  auto plan = std::make_unique<Plan>(api_);
  const int32_t in = p.e4m3 ? kLtE4M3 : kLtBFloat16;
  const auto m = static_cast<uint64_t>(p.m), n = static_cast<uint64_t>(p.n), k = static_cast<uint64_t>(p.k);
  bool good = api_.create_description(&plan->description, kLtComputeFloat32, kLtFloat32) == 0 && api_.create_layout(&plan->weight, in, k, n, p.k) == 0 &&
              api_.create_layout(&plan->x, in, k, m, p.k) == 0 && api_.create_layout(&plan->out, p.add ? kLtFloat32 : kLtBFloat16, n, m, p.n) == 0;
  const auto describe = [&](int32_t attribute, const auto& value) { good = good && api_.set_description(plan->description, attribute, &value, sizeof(value)) == 0; };
  describe(kLtTransposeA, int32_t{kLtTransposed});
  describe(kLtTransposeB, int32_t{kLtPlain});
  if (p.bias) {
    describe(kLtEpilogue, int32_t{kLtEpilogueBias});
    describe(kLtBiasType, int32_t{kLtBFloat16});
  }
  if (p.e4m3) {
    describe(kLtFastAccumulation, int8_t{0});  // sums in float32, not as the tensor cores round them
    describe(kLtScaleModeA, int32_t{kLtScaleRows});
    describe(kLtScaleModeB, int32_t{kLtScaleRows});
  }
  good = good && point(*plan, p);
  void* preference = nullptr;
  good = good && api_.create_preference(&preference) == 0;
  if (good) {
    const auto bytes = static_cast<uint64_t>(kWorkspaceBytes);
    int found = 0;
    good = api_.set_preference(preference, kLtMaxWorkspaceBytes, &bytes, sizeof(bytes)) == 0 &&
           api_.choose(handle_, plan->description, plan->weight, plan->x, plan->out, plan->out, preference, 1, &plan->choice, &found) == 0 && found == 1 && plan->choice.status == 0;
  }
  if (preference) api_.destroy_preference(preference);
  return good ? std::move(plan) : nullptr;
}

// Sets what differs between products of one plan.
bool Blas::point(const Plan& plan, const Product& p) {
  const auto set = [&](int32_t attribute, const void* pointer) { return plan.api.set_description(plan.description, attribute, &pointer, sizeof(pointer)) == 0; };
  if (p.bias && !set(kLtBiasPointer, p.bias)) return false;
  if (!p.e4m3) return true;
  return set(kLtScalePointerA, static_cast<const std::byte*>(p.weight) + p.n * p.k) && set(kLtScalePointerB, static_cast<const std::byte*>(p.x) + p.m * p.k);
}

bool Blas::multiply(const Product& p) {
  const Key key{p.m, p.n, p.k, p.bias != nullptr, p.add, p.e4m3};
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    if (plans_.size() >= kMostPlans) plans_.clear();
    found = plans_.emplace(key, plan(p)).first;
  }
  const Plan* plan = found->second.get();
  if (!plan || !point(*plan, p)) return false;
  const float one = 1, kept = p.add ? 1 : 0;
  const int status = api_.matmul(handle_, plan->description, &one, p.weight, plan->weight, p.x, plan->x, &kept, p.out, plan->out, p.out, plan->out, &plan->choice.algorithm, workspace_.as(),
                                 static_cast<size_t>(workspace_.bytes()), device_.stream());
  return status == 0;
}

}  // namespace longview::cuda
