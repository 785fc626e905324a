// The operations of backend.h on the CPU. Activations are float32; the fast products are in linear.cpp and attention.cpp.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>
#include <unordered_set>

#include "backend/backend.h"
#include "base/error.h"
#include "cpu/attention.h"
#include "cpu/attention_focus.h"
#include "cpu/cpu_features.h"
#include "cpu/delta_net.h"
#include "cpu/each_row.h"
#include "cpu/experts.h"
#include "cpu/hadamard.h"
#include "cpu/kv_pages.h"
#include "cpu/linear.h"
#include "cpu/page_references.h"
#include "cpu/rope.h"
#include "cpu/sparse_attention.h"
#include "model/quant_formats.h"

namespace longview {
namespace cpu {
namespace {

// Matrices stay where they are mapped; vectors (norms, biases) are kept as floats.
class CpuWeight final : public DeviceWeight {
 public:
  explicit CpuWeight(const TensorView& source) : view(source) {
    if (source.rows != 1) return;
    values.resize(static_cast<size_t>(source.cols));
    dequantize_row(source.type, source.data, values.data(), source.cols);
  }
  const TensorView view;
  std::vector<float> values;
};

class CpuExperts final : public DeviceWeight {
 public:
  explicit CpuExperts(std::span<const TensorView> matrices) : views(matrices.begin(), matrices.end()) {}
  const std::vector<TensorView> views;
};

const std::vector<TensorView>& views(const DeviceWeight& experts) { return static_cast<const CpuExperts&>(experts).views; }
const CpuWeight& cpu(const DeviceWeight& weight) { return static_cast<const CpuWeight&>(weight); }
const float* floats(const DeviceWeight* vector) { return vector ? static_cast<const CpuWeight*>(vector)->values.data() : nullptr; }
CpuAttentionLayer cpu(const AttentionLayer& layer) { return {layer.index, layer.span, floats(layer.sinks)}; }
float* floats(Activation x) { return static_cast<float*>(x.data); }

// A row gives keys that it does not see a weight of 0, and 0 times an infinity or a NaN is NaN. In the place of such a V lie zeros, behind
// a K that is NaN: only rows that see it become NaN. The bound leaves room for rounding to bf16 and for sums of blocks.
void hide_fault(float* key, float* value, int64_t d) {
  if (std::all_of(value, value + d, [](float x) { return std::fabs(x) < 0x1p120f; })) return;
  std::fill_n(key, d, std::numeric_limits<float>::quiet_NaN());
  std::fill_n(value, d, 0.0f);
}

// Shorter prompts are read in seconds, and hardly faster.
constexpr int64_t kSparseFrom = 4096;

class CpuBackend final : public Backend {
 public:
  CpuBackend(const Kernels& kernels, Precision precision, int threads)
      : kernels_(kernels), pool_(threads), linear_(kernels, precision, pool_), experts_(kernels, precision, pool_), attention_(kernels, precision, pool_), sparse_(kernels, precision, pool_), focus_(kernels, precision, pool_), delta_net_(kernels, pool_) {}

  ~CpuBackend() override {
    for (void* buffer : buffers_) os::free_aligned(buffer);
  }

  DeviceInfo info() const override {
    DeviceInfo info;
    info.kind = "cpu";
    info.isa = kernels_.isa;
    info.threads = pool_.threads();
    info.name = processor_name() + ", " + std::to_string(info.threads) + (info.threads == 1 ? " thread, " : " threads, ") + kernels_.title;
    info.memory_bytes = os::total_memory();
    info.free_memory_bytes = os::available_memory();
    return info;
  }

  // Weights stay mapped, and the system can drop them, but without them in memory nothing is fast.
  int64_t weight_bytes(const TensorView& weight, WeightUse) const override { return weight.bytes; }
  int64_t activation_bytes() const override { return sizeof(float); }
  int64_t kv_page_bytes(const KvShape& shape) const override { return CpuKvStorage::page_bytes(shape); }
  // Copies of a product's input in the kernels' format, at most as large as all activations together.
  int64_t scratch_bytes(const ModelConfig& c, int64_t chunk_tokens) const override {
    return 4 * chunk_tokens * (2 * c.hidden + 2 * c.q_dim() + 2 * c.kv_dim() + 2 * c.ffn) + ExpertMixture::scratch_bytes(c, chunk_tokens);
  }

  WeightHandle upload(const TensorView& weight, WeightUse) override { return std::make_unique<CpuWeight>(weight); }
  WeightHandle upload_experts(std::span<const TensorView> matrices) override { return std::make_unique<CpuExperts>(matrices); }
  std::unique_ptr<DeviceRope> upload_rope(const RopeConfig& rope) override { return std::make_unique<CpuRope>(rope); }

  Activation allocate(int64_t rows, int64_t cols) override {
    const size_t bytes = static_cast<size_t>(rows * cols) * sizeof(float);
    void* data = os::allocate_aligned(bytes);
    LONGVIEW_CHECK(data, kOutOfMemory, "Not enough memory: %.1f MB more are needed for %lld tokens at a time.", static_cast<double>(bytes) / 1e6, static_cast<long long>(rows));
    buffers_.insert(data);
    return {data, rows, cols};
  }
  void release(Activation& activation) override {
    if (buffers_.erase(activation.data) > 0) os::free_aligned(activation.data);
    activation = {};
  }
  Activation rows(Activation x, int64_t first, int64_t count) const override { return {floats(x) + first * x.cols, count, x.cols}; }

  std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, int64_t pages) override { return std::make_unique<CpuKvStorage>(shape, pages); }
  void copy_page(KvStorage& storage, int32_t from, int32_t to, int64_t) override { static_cast<CpuKvStorage&>(storage).copy(from, to); }
  void discard_page(KvStorage& storage, int32_t page) override { static_cast<CpuKvStorage&>(storage).discard(page); }
  void read_page(KvStorage& storage, int32_t page, std::span<std::byte> out) override {
    std::ranges::copy(static_cast<CpuKvStorage&>(storage).bytes(page), out.begin());
  }
  void write_page(KvStorage& storage, int32_t page, std::span<const std::byte> bytes) override {
    static_cast<CpuKvStorage&>(storage).fill(page, bytes);
  }

  int64_t recurrent_bytes(const RecurrentShape& shape) const override { return shape.layers * CpuRecurrentState::layer_floats(shape.config) * static_cast<int64_t>(sizeof(float)); }
  std::unique_ptr<RecurrentState> allocate_recurrent(const RecurrentShape& shape) override { return std::make_unique<CpuRecurrentState>(shape); }
  void clear_recurrent(RecurrentState& state) override { std::ranges::fill(static_cast<CpuRecurrentState&>(state).all(), 0.0f); }
  void read_recurrent(const RecurrentState& state, std::span<std::byte> out) override {
    std::ranges::copy(std::as_bytes(static_cast<const CpuRecurrentState&>(state).all()), out.begin());
  }
  void write_recurrent(RecurrentState& state, std::span<const std::byte> bytes) override {
    std::ranges::copy(bytes, std::as_writable_bytes(static_cast<CpuRecurrentState&>(state).all()).begin());
  }

  void embed(const DeviceWeight& embedding, std::span<const int32_t> tokens, float scale, Activation out) override {
    const TensorView& view = cpu(embedding).view;
    const int64_t bytes = row_bytes(view.type, view.cols);
    each_row(pool_, out.rows, [&](int64_t t) {
      const std::span row(floats(out) + t * out.cols, static_cast<size_t>(out.cols));
      kernels_.dequantize(view.type, view.data + tokens[static_cast<size_t>(t)] * bytes, row.data(), out.cols);
      if (scale != 1)
        for (float& value : row) value *= scale;
    });
  }

  void rms_norm(Activation x, const DeviceWeight& weight, float epsilon, Activation out) override {
    each_row(pool_, x.rows, [&](int64_t t) { kernels_.rms_norm(floats(x) + t * x.cols, cpu(weight).values.data(), epsilon, floats(out) + t * x.cols, x.cols); });
  }

  void linear(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation out) override {
    linear_.run(floats(x), x.rows, cpu(weight).view, floats(bias), floats(out));
  }

  void norm_add_experts(Activation sum, const DeviceWeight& norm, float epsilon, Activation normed, const Experts& experts) override {
    rms_norm(sum, norm, epsilon, normed);
    experts_.add(floats(normed), sum.rows, {cpu(*experts.router).view, views(*experts.gates), views(*experts.ups), views(*experts.downs), experts.used, experts.normalised,
                                            floats(experts.router_bias), floats(experts.gate_biases), floats(experts.up_biases), floats(experts.down_biases), experts.clamped},
                 floats(sum));
  }

  void rms_norm_heads(Activation q, const DeviceWeight& q_weight, Activation k, const DeviceWeight& k_weight, int64_t head_dim, float epsilon) override {
    for (const auto& [x, weight] : {std::pair(q, &q_weight), std::pair(k, &k_weight)})
      each_row(pool_, x.rows, [&, row = x, norm = cpu(*weight).values.data()](int64_t t) {
        for (float* head = floats(row) + t * row.cols; head < floats(row) + (t + 1) * row.cols; head += head_dim) kernels_.rms_norm(head, norm, epsilon, head, head_dim);
      });
  }

  void scale_queries(Activation q, const RopeConfig& rope, int64_t first_position) override {
    each_row(pool_, q.rows, [&](int64_t t) {
      const auto scale = static_cast<float>(rope.query_scale(first_position + t));
      float* row = floats(q) + t * q.cols;
      std::transform(row, row + q.cols, row, [&](float x) { return x * scale; });
    });
  }

  void split_gates(Activation both, int64_t head_dim, Activation q, Activation gates) override {
    each_row(pool_, q.rows, [&](int64_t t) {
      const float* from = floats(both) + t * both.cols;
      for (int64_t at = 0; at < q.cols; at += head_dim, from += 2 * head_dim) {
        std::copy_n(from, head_dim, floats(q) + t * q.cols + at);
        std::copy_n(from + head_dim, head_dim, floats(gates) + t * q.cols + at);
      }
    });
  }

  void multiply_gates(Activation x, Activation gates) override {
    each_row(pool_, x.rows, [&](int64_t t) { kernels_.sigmoid_mul(floats(x) + t * x.cols, floats(gates) + t * x.cols, x.cols); });
  }

  void scale_rows(Activation x, Activation input, const DeviceWeight& weight) override {
    each_row(pool_, x.rows, [&](int64_t t) {
      float* row = floats(x) + t * x.cols;
      const float scale = 1 / (1 + std::exp(-kernels_.dot(floats(input) + t * input.cols, floats(&weight), input.cols)));
      std::transform(row, row + x.cols, row, [&](float value) { return value * scale; });
    });
  }

  void delta_net(Activation mixed, Activation gate, Activation alpha, Activation beta, const DeltaWeights& weights, float epsilon, const RecurrentShape& shape, int64_t layer,
                 const RecurrentStates& states, Activation out) override {
    const int64_t at = layer * CpuRecurrentState::layer_floats(shape.config);
    delta_net_.run(floats(mixed), floats(gate), floats(alpha), floats(beta), mixed.rows,
                   {shape.config, floats(weights.taps), floats(weights.decay), floats(weights.decay_bias), floats(weights.value_norm), epsilon,
                    static_cast<const CpuRecurrentState&>(*states.before).all().data() + at, static_cast<CpuRecurrentState&>(*states.after).all().data() + at},
                   floats(out));
  }

  void rope_and_append_kv(Activation q, Activation k, Activation v, DeviceRope& rope, const KvShape& shape, int64_t layer, const KvPages& pages, int64_t first_position) override {
    // The angles of a chunk are made by its first layer and found again by the others.
    auto& angles = static_cast<CpuRope&>(rope);
    angles.prepare(first_position, q.rows);
    const auto& storage = static_cast<const CpuKvStorage&>(*pages.storage);
    const int64_t d = shape.head_dim;
    const bool four_bits = shape.format == KvFormat::kQ4;
    const auto write = [&](int64_t t) {
      const int64_t position = first_position + t;
      const int32_t page = pages.page_slots[static_cast<size_t>(position / kPageTokens)];
      for (int64_t h = 0; h < shape.kv_heads; ++h) storage.write(page, layer, h, position % kPageTokens, floats(k) + t * k.cols + h * d, floats(v) + t * v.cols + h * d);
    };
    each_row(pool_, q.rows, [&](int64_t t) {
      const auto turn = [&](float* head) {
        angles.rotate(head, t);
        if (four_bits) hadamard(head, d);
      };
      for (int64_t h = 0; h < q.cols / d; ++h) turn(floats(q) + t * q.cols + h * d);
      for (int64_t h = 0; h < shape.kv_heads; ++h) {
        float* key = floats(k) + t * k.cols + h * d;
        turn(key);
        hide_fault(key, floats(v) + t * v.cols + h * d, d);
      }
      if (!four_bits) write(t);
    });
    if (four_bits) {
      pool_.parallel_for(shape.kv_heads, [&](int64_t h, int) { write_references(storage, pages.page_slots, layer, h, floats(k) + h * d, k.cols, first_position, q.rows); });
      each_row(pool_, q.rows, write);
    }
    if (shape.mean_tokens == 0) return;
    // Of every block whose last token this chunk has written.
    const int64_t first = first_position / shape.mean_tokens, blocks = (first_position + q.rows) / shape.mean_tokens - first;
    pool_.parallel_for(std::max<int64_t>(blocks, 0) * shape.kv_heads, [&](int64_t item, int) {
      const int64_t head = item % shape.kv_heads;
      make_block_means({storage, pages.page_slots, layer, head}, first + item / shape.kv_heads, floats(k) + head * d, floats(v) + head * d, k.cols, first_position);
    });
  }

  void attention(Activation q, const KvShape&, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, Activation out) override {
    attention_.run(floats(q), q.rows, heads, cpu(layer), static_cast<const CpuKvStorage&>(*pages.storage), pages.page_slots, first_position, floats(out));
  }

  int64_t sparse_block_tokens(const KvShape&) const override { return kMeanTokens; }
  int64_t sparse_from() const override { return kSparseFrom; }
  void attention_sparse(Activation q, const KvShape&, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, std::span<const HeadPlan> plans, Activation out) override {
    sparse_.run(floats(q), q.rows, heads, cpu(layer), static_cast<const CpuKvStorage&>(*pages.storage), pages.page_slots, first_position, plans, floats(out));
  }
  void take_coverage(std::span<HeadCoverage> out) override { sparse_.take_coverage(out); }

  bool add_focus(Activation q, const KvShape&, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, int64_t keys) override {
    focus_.add(floats(q), q.rows, heads, cpu(layer), static_cast<const CpuKvStorage&>(*pages.storage), pages.page_slots, first_position, keys);
    return true;
  }
  void take_focus(std::span<float> out) override { focus_.take(out); }

  void gate_mul(Activation gate, Activation up, GateCurve curve) override {
    each_row(pool_, gate.rows, [&](int64_t t) { kernels_.gate_mul(floats(gate) + t * gate.cols, floats(up) + t * gate.cols, curve, gate.cols); });
  }

  void add(Activation x, Activation y) override {
    each_row(pool_, x.rows, [&](int64_t t) { kernels_.add(floats(x) + t * x.cols, floats(y) + t * x.cols, x.cols); });
  }

  void read_row(Activation x, int64_t row, std::span<float> out) override {
    std::memcpy(out.data(), floats(x) + row * x.cols, out.size() * sizeof(float));
  }

 private:
  const Kernels& kernels_;
  ThreadPool pool_;
  Linear linear_;
  ExpertMixture experts_;
  Attention attention_;
  SparseAttention sparse_;
  AttentionFocus focus_;
  DeltaNet delta_net_;
  std::unordered_set<void*> buffers_;
};

}  // namespace
}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  const std::vector<const cpu::Kernels*> available = cpu::available_kernels();
  const cpu::Kernels* chosen = options.isa.empty() ? available.front() : nullptr;
  for (const cpu::Kernels* kernels : available)
    if (options.isa == kernels->isa) chosen = kernels;
  LONGVIEW_CHECK(chosen, kInvalidArgument, "This machine cannot run the code path \"%s\".", options.isa.c_str());
  LONGVIEW_CHECK(options.precision != Precision::kBFloat16 || chosen->gemm_bf16, kInvalidArgument, "The code path \"%s\" has no bf16 products.", chosen->isa);
  LONGVIEW_CHECK(options.precision != Precision::kInt8 || chosen->dots_int8, kInvalidArgument, "The code path \"%s\" has no 8-bit products.", chosen->isa);
  LONGVIEW_CHECK(options.threads >= 0 && options.threads <= 1024, kInvalidArgument, "%d threads were asked for; 0 means as many as the machine has.", options.threads);
  const int threads = options.threads > 0 ? options.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::make_unique<cpu::CpuBackend>(*chosen, options.precision, threads);
}

std::vector<std::string> available_cpu_isas() {
  std::vector<std::string> names;
  for (const cpu::Kernels* kernels : cpu::available_kernels()) names.emplace_back(kernels->isa);
  return names;
}

}  // namespace longview
