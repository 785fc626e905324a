// The operations that a device offers: the only interface between the layer loop (engine/forward.cpp) and a device.
//
// Letters: T tokens of a chunk, H query heads, G KV heads, D head dim. Activations are row-major [T, cols]; their element
// type is the device's own affair (float32 on the CPU, bfloat16 on CUDA), so the engine never looks inside: it allocates,
// passes on, and reads logits back. Operations are queued in order; only read_*, largest and draw wait.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/argmax.h"
#include "base/draw.h"
#include "base/tensor.h"
#include "model/config.h"
#include "sparse/pattern.h"

namespace longview {

constexpr int64_t kPageTokens = 128;  // tokens of a KV page
constexpr int64_t pages_of(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

struct DeviceInfo {
  std::string kind;  // "cpu" or "cuda"
  std::string note;  // why this device and not a GPU, and what else is not as one would expect, in sentences; mostly empty
  std::string name;  // "AMD EPYC 9555, 2 threads, AVX-512 BF16"
  std::string isa;   // "scalar", "avx2", "avxvnni", "avx512", "avx512bf16", "amx", "neon", "neondot": the code path in use; "sm90" of a GPU
  std::string arithmetic;  // " fp8" where weights of layers are kept so: saved state of other arithmetic is not read; else empty
  int threads = 0;
  int64_t memory_bytes = 0;       // of the device
  int64_t free_memory_bytes = 0;  // at the time of asking
};

// Arithmetic of the matrix products. kFloat32 is exact to rounding and is the reference; kAuto takes the fastest path
// that the device has (for prefill bf16 on AMX and AVX512-BF16, 16-bit integers of quantised weights on AVX512-VNNI and AVX-VNNI, float32
// elsewhere; int8 dot products for decode).
enum class Precision { kAuto, kFloat32, kBFloat16, kInt8 };

// kQ8: int8 codes in blocks of 32 with a scale (cpu/q8.h), about half of bf16; means stay bf16. kE4M3: 8-bit floats with a scale for
// K and one for V of a page and head, on GPUs that have them. kQ4: codes of 4 bits (cpu/q4.h), a bit over a quarter of bf16; queries and keys
// go through a Walsh-Hadamard transform behind RoPE, and keys are kept less the mean of their page.
enum class KvFormat { kFloat32, kBFloat16, kQ8, kE4M3, kQ4 };
constexpr const char* kKvFormatNames[] = {"f32", "bf16", "q8", "fp8", "q4"};
constexpr const char* name(KvFormat format) { return kKvFormatNames[static_cast<int>(format)]; }
constexpr std::optional<KvFormat> kv_format_of(std::string_view named) {
  for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8, KvFormat::kE4M3, KvFormat::kQ4})
    if (named == name(format)) return format;
  return std::nullopt;
}

// A dense matrix [rows, cols] on the device; the first rows of a larger one are a matrix too.
struct Activation {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  bool wide = false;      // float32 on a device whose activations are narrower
  void* codes = nullptr;  // for_products(): where the device has it in its own form for products, in the place of data
};

// A weight as the device holds it; on the CPU the mapped bytes themselves.
class DeviceWeight {
 public:
  virtual ~DeviceWeight() = default;
};
using WeightHandle = std::unique_ptr<DeviceWeight>;

// What a weight is for. A device may keep what only products of layers read in fewer bits, where it was asked to, and the few rows that make
// the gates of recurrent layers in more than the file does.
enum class WeightUse { kAny, kLayerProduct, kGates };

// out = x * weight^T (+ bias, where it is not null).
struct Projection {
  const DeviceWeight* weight;
  const DeviceWeight* bias;
  Activation out;
};

// A layer's mixture of experts: the router [experts, hidden], and by upload_experts() the matrices of all experts, of the shapes that one
// FFN has.
struct Experts {
  const DeviceWeight *router, *gates, *ups, *downs;
  int64_t used;     // for each token
  bool normalised;  // the weights of those add up to 1
  // [1, experts], [1, experts * ffn] twice, [1, experts * hidden]: all of them, or null.
  const DeviceWeight *router_bias = nullptr, *gate_biases = nullptr, *up_biases = nullptr, *down_biases = nullptr;
  bool clamped = false;  // gate, at most 7, times sigmoid(1.702 gate), times 1 + up within -7 .. 7, in the place of silu(gate) * up
};

// Which layer attends, and what a row of it sees beside the causal rule.
struct AttentionLayer {
  int64_t index;     // of those with K and V
  int64_t span = 0;  // tokens up to itself; 0: all
  const DeviceWeight* sinks = nullptr;  // [1, H]: of each head a score that takes its share of the softmax and gives nothing; null: there are none
};
// The first token that one at `position` sees in a layer with such a span.
constexpr int64_t first_seen(int64_t position, int64_t span) { return span > 0 ? std::max<int64_t>(position + 1 - span, 0) : 0; }

// K and V of all layers for `pages` pages of kPageTokens tokens. The layout inside a page is the device's own.
class KvStorage {
 public:
  virtual ~KvStorage() = default;
  virtual int64_t pages() const = 0;
  virtual int64_t page_bytes() const = 0;  // of all layers
  // Names format and layout of a page's bytes: pages written to disk are read back only where it is the same.
  virtual std::string layout() const = 0;
};

struct KvShape {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  KvFormat format = KvFormat::kBFloat16;
  // Beside its K and V each page keeps the means of both over every block of so many tokens, which attention_sparse reads:
  // made as the last token of a block is written, from K (after RoPE) and V before they are rounded, or on the GPU from what the
  // page keeps. 0: none are kept.
  int64_t mean_tokens = 0;
};

// One context's pages in order: token p lives in slot page_slots[p / kPageTokens] at p % kPageTokens.
struct KvPages {
  KvStorage* storage = nullptr;
  std::span<const int32_t> page_slots;
};

// What the recurrent layers of a model keep of one sequence: of each layer a matrix for every value head, in float32, and the last inputs of
// its convolution.
class RecurrentState {
 public:
  virtual ~RecurrentState() = default;
};

struct RecurrentShape {
  RecurrentConfig config;
  int64_t layers = 0;  // recurrent ones; 0: the model has none
};

// What a chunk begins with, and where it leaves what the next one begins with: two states, so that a chunk that is stopped changes nothing.
// Null for models without recurrent layers.
struct RecurrentStates {
  const RecurrentState* before = nullptr;
  RecurrentState* after = nullptr;
};

// A recurrent layer's small weights (model/weights.h).
struct DeltaWeights {
  const DeviceWeight *taps, *decay, *decay_bias, *value_norm;
};

// What makes its inputs: mixed, gate, alpha and beta, in this order.
using DeltaProjections = std::array<Projection, 4>;

// What becomes of a layer's heads in front of rotation, and of its results. Without data and null where nothing does.
struct HeadSteps {
  Activation both, gates;  // split_gates takes the first apart into q and the second
  const DeviceWeight *q_norm = nullptr, *k_norm = nullptr;
  float epsilon = 0;
};

// cos/sin source of RoPE on the device.
class DeviceRope {
 public:
  virtual ~DeviceRope() = default;
};

// One token behind a context, and what the work on it depends on.
struct TokenStep {
  const void* caller;  // whose weights and activations: alike for all that does the same operations with them
  int32_t token;
  int64_t position;
  int64_t heads;  // query heads
  const KvShape& shape;
  const KvPages& pages;
  std::array<DeviceRope*, 2> ropes;  // of the layers that see all, and of those that slide
  RecurrentStates states;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual DeviceInfo info() const = 0;
  // Tokens of a chunk that keep the device busy, read densely or sparsely; 0: the engine's own choice.
  virtual int64_t preferred_chunk_tokens(bool sparse) const {
    (void)sparse;
    return 0;
  }

  // How many times as long a pass of several tokens takes as one of one token, in a matrix like this one.
  virtual double few_tokens_cost(const TensorView& weight) const {
    (void)weight;
    return 1.5;
  }

  // --- memory -----------------------------------------------------------------------------------------------------
  // What upload(), an element of allocate(), a page of allocate_kv() and the operations on chunks of so many tokens (beside
  // the activations) will take, in bytes, for a plan made before any of it is allocated.
  virtual int64_t weight_bytes(const TensorView& weight, WeightUse use = WeightUse::kAny) const = 0;
  virtual int64_t activation_bytes() const = 0;
  virtual int64_t kv_page_bytes(const KvShape& shape) const = 0;
  // Why this device does not keep the KV state in 8-bit floats, a sentence; empty where it does.
  virtual std::string why_not_e4m3_kv() const { return "A KV state in fp8 needs a GPU of compute capability 8.9 or newer"; }
  // Beside a page: what operations keep for each page that a context may have.
  virtual int64_t kv_scratch_page_bytes(const KvShape& shape) const {
    (void)shape;
    return 0;
  }
  virtual int64_t scratch_bytes(const ModelConfig& config, int64_t chunk_tokens) const = 0;
  virtual WeightHandle upload(const TensorView& weight, WeightUse use = WeightUse::kAny) = 0;
  // Matrices of one shape and type, one of each expert.
  virtual WeightHandle upload_experts(std::span<const TensorView> matrices) = 0;
  virtual std::unique_ptr<DeviceRope> upload_rope(const RopeConfig& rope) = 0;
  // Uninitialised [rows, cols]; freed by the backend's destructor or by release().
  virtual Activation allocate(int64_t rows, int64_t cols) = 0;
  // The same in float32 on every device: the residual stream and the logits.
  virtual Activation allocate_float(int64_t rows, int64_t cols) { return allocate(rows, cols); }
  virtual void release(Activation& activation) = 0;
  // Rows first .. first + count - 1 of x, without a copy.
  virtual Activation rows(Activation x, int64_t first, int64_t count) const = 0;
  // Reserves address space for `pages` pages; memory is taken as pages are first written. Throws kOutOfMemory with the
  // numbers when it cannot be had.
  virtual std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, int64_t pages) = 0;
  // Copies the first `tokens` tokens of page `from` to page `to`, all layers (copy on write of a ragged tail).
  virtual void copy_page(KvStorage& storage, int32_t from, int32_t to, int64_t tokens) = 0;
  // Gives the memory of an unused page back to the system; its content is lost.
  virtual void discard_page(KvStorage& storage, int32_t page) = 0;
  // Copies the bytes of a page (page_bytes() of them, as layout() says) to the host, and back. Both wait.
  virtual void read_page(KvStorage& storage, int32_t page, std::span<std::byte> out) = 0;
  virtual void write_page(KvStorage& storage, int32_t page, std::span<const std::byte> bytes) = 0;

  // Of a state, in bytes.
  virtual int64_t recurrent_bytes(const RecurrentShape& shape) const = 0;
  // A state with any content.
  virtual std::unique_ptr<RecurrentState> allocate_recurrent(const RecurrentShape& shape) = 0;
  // Makes it that of an empty sequence.
  virtual void clear_recurrent(RecurrentState& state) = 0;
  // Copies the bytes of a state (recurrent_bytes() of them) to the host, and back. Both wait.
  virtual void read_recurrent(const RecurrentState& state, std::span<std::byte> out) = 0;
  virtual void write_recurrent(RecurrentState& state, std::span<const std::byte> bytes) = 0;

  // --- operations, in the order of a layer ------------------------------------------------------------------------
  // How to write what only products with all of `weights` will read: as x, or in the form in which the device multiplies fastest
  // (x with codes; its data then has any content). rms_norm and linear_gated write that form, products read it. It is good until
  // something else is written in that form, or multiplied that is not in it.
  virtual Activation for_products(Activation x, std::initializer_list<const DeviceWeight*> weights) {
    (void)weights;
    return x;
  }
  // Calls `work`, operations from embed() of one token on that differ between calls in what `token` holds alone: a device may
  // repeat what it did for an earlier token instead of calling it.
  virtual void run_token(const TokenStep& token, const std::function<void()>& work) {
    (void)token;
    work();
  }
  // out[t] = embedding[tokens[t]] * scale. Token ids have been checked against the vocabulary. out [T, hidden].
  virtual void embed(const DeviceWeight& embedding, std::span<const int32_t> tokens, float scale, Activation out) = 0;
  // out = x / sqrt(mean(x^2) + epsilon) * weight, by row. x, out [T, hidden]; may be the same, but not where out has codes.
  virtual void rms_norm(Activation x, const DeviceWeight& weight, float epsilon, Activation out) = 0;
  // out = x * weight^T (+ bias). x [T, in], weight [out, in], out [T, out]; bias may be null.
  virtual void linear(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation out) = 0;
  // The same for several weights at once. A device may do it in one go, which pays where few tokens meet many bytes.
  virtual void linear_all(Activation x, std::span<const Projection> projections) {
    for (const Projection& p : projections) linear(x, *p.weight, p.bias, p.out);
  }
  // The same of x normed first, as rms_norm does it. `normed` has the shape of x and any content.
  virtual void norm_linear_all(Activation x, const DeviceWeight& norm, float epsilon, Activation normed, std::span<const Projection> projections) {
    rms_norm(x, norm, epsilon, normed);
    linear_all(normed, projections);
  }
  // sum += x * weight^T (+ bias). `scratch` has the shape of sum and any content.
  virtual void linear_add(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation scratch, Activation sum) {
    linear(x, weight, bias, scratch);
    add(sum, scratch);
  }
  // out = g * sigmoid(g * (linear + cubic * g^2)) * (x * up^T), where g is x * gate^T and the rest is the curve's. `scratch` has the shape of out and
  // any content.
  virtual void linear_gated(Activation x, const DeviceWeight& gate, const DeviceWeight& up, GateCurve curve, Activation scratch, Activation out) {
    linear(x, gate, nullptr, out);
    linear(x, up, nullptr, scratch);
    gate_mul(out, scratch, curve);
  }
  // The same of x normed first, as rms_norm does it. `normed` has the shape of x and any content.
  virtual void norm_linear_gated(Activation x, const DeviceWeight& norm, float epsilon, Activation normed, const DeviceWeight& gate, const DeviceWeight& up, GateCurve curve, Activation scratch, Activation out) {
    rms_norm(x, norm, epsilon, normed);
    linear_gated(normed, gate, up, curve, scratch, out);
  }
  // sum += of each row's experts e, the `used` ones with the largest softmax(x * router^T), in float32: weight_e * down_e(silu(gate_e(x)) * up_e(x)),
  // where x is sum normed first, as rms_norm does it, and biases are added where there are any. sum [T, hidden], float32; `normed` has its shape and any content, and x afterwards.
  virtual void norm_add_experts(Activation sum, const DeviceWeight& norm, float epsilon, Activation normed, const Experts& experts) = 0;
  // RMSNorm of each head by itself (Qwen3's QK-norm), in place. q [T, H*D], k [T, G*D], the weights [1, D].
  virtual void rms_norm_heads(Activation q, const DeviceWeight& q_weight, Activation k, const DeviceWeight& k_weight, int64_t head_dim, float epsilon) = 0;
  // q *= RopeConfig::query_scale of its positions first_position .. +T-1. q [T, H*D].
  virtual void scale_queries(Activation q, const RopeConfig& rope, int64_t first_position) = 0;
  // Takes apart what Q's matrix gives where it has gates: of each head its dims, then as many gates. both [T, 2*H*D], q and gates [T, H*D].
  virtual void split_gates(Activation both, int64_t head_dim, Activation q, Activation gates) = 0;
  // x *= sigmoid(gates). Same shape.
  virtual void multiply_gates(Activation x, Activation gates) = 0;
  // Each row of x [T, cols] *= sigmoid(the same row of input . weight). input [T, hidden], weight [1, hidden].
  virtual void scale_rows(Activation x, Activation input, const DeviceWeight& weight) = 0;
  // A recurrent layer between its products (Gated DeltaNet, as transformers' Qwen3.5 computes it), of T tokens behind those that
  // states.before has seen. mixed [T, channels] goes through a causal convolution of each channel and SiLU, and is then q and k of the key
  // heads, each by its length, q by sqrt(head_dim) too, and v of the value heads. Of a value head, in float32, token by token, with
  // b = sigmoid(beta): S = exp(decay * softplus(alpha + decay_bias)) S; S += k (b (v - S^T k))^T; o = S^T q. out [T, value_dim] is o normed by
  // value_norm, times silu(gate). alpha, beta [T, value_heads], gate [T, value_dim]; what becomes of the inputs is not said. `layer` counts
  // recurrent layers. before and after are two states.
  virtual void delta_net(Activation mixed, Activation gate, Activation alpha, Activation beta, const DeltaWeights& weights, float epsilon, const RecurrentShape& shape, int64_t layer,
                         const RecurrentStates& states, Activation out) = 0;
  // The same of x normed first, as rms_norm does it, and multiplied with the layer's matrices. `normed` has the shape of x and any content.
  virtual void norm_delta_net(Activation x, const DeviceWeight& norm, Activation normed, const DeltaProjections& projections, const DeltaWeights& weights, float epsilon, const RecurrentShape& shape, int64_t layer,
                              const RecurrentStates& states, Activation out) {
    const auto& [mixed, gate, alpha, beta] = projections;
    norm_linear_all(x, norm, epsilon, normed, projections);
    delta_net(mixed.out, gate.out, alpha.out, beta.out, weights, epsilon, shape, layer, states, out);
  }
  // Rotates q and k by their positions first_position .. +T-1 and writes k and v of `layer` into the pages. q in place.
  // q [T, H*D], k and v [T, G*D].
  virtual void rope_and_append_kv(Activation q, Activation k, Activation v, DeviceRope& rope, const KvShape& shape,
                                  int64_t layer, const KvPages& pages, int64_t first_position) = 0;
  // Causal attention of T queries at first_position .. +T-1 over the tokens up to each that the layer lets it see, read from the pages, by
  // block-wise online softmax. Scale 1/sqrt(D). q, out [T, H*D].
  virtual void attention(Activation q, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages,
                         int64_t first_position, Activation out) = 0;
  // split_gates and rms_norm_heads, where the layer has them.
  void prepare_heads(Activation q, Activation k, const HeadSteps& steps, int64_t head_dim) {
    if (steps.both.data) split_gates(steps.both, head_dim, q, steps.gates);
    if (steps.q_norm) rms_norm_heads(q, *steps.q_norm, k, *steps.k_norm, head_dim, steps.epsilon);
  }
  // Of one token: prepare_heads, rope_and_append_kv, attention, and multiply_gates where there are gates. q, out [1, H*D], k and v [1, G*D]; what
  // becomes of q, k and the gates is not said. A device may do it in one go.
  virtual void append_and_attend(Activation q, Activation k, Activation v, const HeadSteps& steps, DeviceRope& rope, const KvShape& shape, int64_t heads,
                                 const AttentionLayer& layer, const KvPages& pages, int64_t position, Activation out) {
    prepare_heads(q, k, steps, shape.head_dim);
    rope_and_append_kv(q, k, v, rope, shape, layer.index, pages, position);
    attention(q, shape, heads, layer, pages, position, out);
    if (steps.both.data) multiply_gates(out, steps.gates);
  }
  // Tokens of a block of means (KvShape::mean_tokens) that this device's attention_sparse wants; 0: it has none.
  virtual int64_t sparse_block_tokens(const KvShape&) const { return 0; }
  // Tokens of context from which sparse attention is worth what it costs in accuracy on this device: `auto` begins there.
  virtual int64_t sparse_from() const { return 0; }
  // The same as attention(), but head h visits the keys of plans[h]. plans [H]; pages with means. Which keys that are is
  // decided on the device, from these queries; the plans of a KV group's heads may differ. The layer has no span.
  virtual void attention_sparse(Activation q, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages,
                                int64_t first_position, std::span<const HeadPlan> plans, Activation out) {
    (void)plans;
    attention(q, shape, heads, layer, pages, first_position, out);
  }
  // Waits, and takes what attention_sparse counted since the last call: out [layers * H].
  virtual void take_coverage(std::span<HeadCoverage> out) { (void)out; }
  // Adds to what take_focus() gives, for each key 0 .. keys - 1, the squares of the weights that attention() gives it: of all rows of q
  // and all heads. False where the device cannot tell. The layer has no span.
  virtual bool add_focus(Activation q, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, int64_t keys) {
    (void)q, (void)shape, (void)heads, (void)layer, (void)pages, (void)first_position, (void)keys;
    return false;
  }
  // Waits, and takes what was added since the last call: out [keys].
  virtual void take_focus(std::span<float> out) { std::fill(out.begin(), out.end(), 0.0f); }
  // gate = gate * sigmoid(gate * (linear + cubic * gate^2)) * up. Both [T, ffn].
  virtual void gate_mul(Activation gate, Activation up, GateCurve curve) = 0;
  // x += y. Same shape.
  virtual void add(Activation x, Activation y) = 0;
  // sum += x, normed as rms_norm does it. Same shape; what becomes of x is not said.
  virtual void add_normed(Activation sum, Activation x, const DeviceWeight& weight, float epsilon) {
    rms_norm(x, weight, epsilon, x);
    add(sum, x);
  }

  // Waits for everything queued and copies row `row` to float32. out has x.cols elements.
  virtual void read_row(Activation x, int64_t row, std::span<float> out) = 0;
  // The same, but only what argmax() gives for the row comes to the host.
  virtual int32_t largest(Activation x, int64_t row) {
    std::vector<float> values(static_cast<size_t>(x.cols));
    read_row(x, row, values);
    return argmax(values);
  }
  // That, and what draw() gives (base/draw.h).
  virtual Drawn draw(Activation x, int64_t row, const Sampling& sampling, uint64_t random) {
    std::vector<float> values(static_cast<size_t>(x.cols));
    read_row(x, row, values);
    return {argmax(values), longview::draw(values, sampling, random)};
  }
};

struct CpuOptions {
  int threads = 0;                           // 0: as many as the machine has
  Precision precision = Precision::kAuto;
  std::string isa;                           // "" picks the best; else one of DeviceInfo::isa, for tests
};

// cpu/cpu_backend.cpp. Throws kInvalidArgument where `isa` is unknown or this machine lacks it.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

// Weights of layers on a GPU: as the file has them, or as 8-bit floats (e4m3) with a scale for each row, made as they are loaded.
// With these activations too meet them in 8 bits.
enum class GpuWeights { kStored, kFp8 };

struct GpuOptions {
  GpuWeights weights = GpuWeights::kStored;
};

// cuda/cuda_backend.cpp. Throws kInvalidArgument with the reason where there is no GPU to use.
std::unique_ptr<Backend> make_cuda_backend(const GpuOptions& options = {});

// Why this machine's GPU cannot do what `options` ask for and does without, a sentence; empty where it can.
std::string why_not_options(const GpuOptions& options);

// Why this model cannot run on a GPU here, a sentence; empty where it can.
std::string why_not_cuda(const ModelConfig& config);

enum class DeviceChoice { kAuto, kCpu, kCuda };

// choose_backend.cpp. kAuto takes a GPU where there is one that runs the model, else the CPU, and says why in
// DeviceInfo::note; kCuda throws kInvalidArgument instead.
std::unique_ptr<Backend> choose_backend(DeviceChoice choice, const ModelConfig& config, const CpuOptions& cpu, const GpuOptions& gpu, std::string& note);

// Names of the code paths that this machine can run, best first; always ends with "scalar".
std::vector<std::string> available_cpu_isas();

}  // namespace longview
