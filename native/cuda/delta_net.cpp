#include "cuda/delta_net.h"

namespace longview::cuda {
namespace {

int64_t layer_bytes(const RecurrentConfig& c) { return kernels::delta_state_bytes(c.key_heads, c.value_heads, c.head_dim); }
int64_t workspace_bytes(const RecurrentConfig& c, int64_t tokens) { return kernels::delta_net_workspace_bytes(tokens, c.key_heads, c.value_heads, c.head_dim); }

}  // namespace

int64_t DeltaNet::state_bytes(const RecurrentShape& shape) { return shape.layers * layer_bytes(shape.config); }

int64_t DeltaNet::scratch_bytes(const ModelConfig& config, int64_t tokens) { return config.recurrent.interval > 0 ? workspace_bytes(config.recurrent, tokens) : 0; }

std::string DeltaNet::why_not(const ModelConfig& config) {
  const RecurrentConfig& c = config.recurrent;
  if (c.interval == 0 || (c.taps == kernels::kConvWidth && (c.head_dim == 32 || c.head_dim == 64 || c.head_dim == 128))) return "";
  return format("This model has recurrent heads of %lld dimensions; the GPU code takes 32, 64 and 128.", static_cast<long long>(c.head_dim));
}

void DeltaNet::run(const Inputs& x, const DeltaWeights& weights, float epsilon, const RecurrentShape& shape, int64_t layer, const RecurrentStates& states, void* const* moving, Activation out) {
  const RecurrentConfig& c = shape.config;
  const auto vector = [](const DeviceWeight* weight) { return cuda(*weight).buffer->as<float>(); };
  const int64_t offset = layer * layer_bytes(c);
  scratch_.grow(device_, workspace_bytes(c, x.mixed.rows), "recurrent layers");
  kernels::DeltaNetArgs args{};
  args.qkv = x.mixed.data;
  args.z = x.gate.data;
  args.alpha = x.alpha.data;
  args.beta = x.beta.data;
  args.conv = vector(weights.taps);
  args.decay = vector(weights.decay);
  args.dt_bias = vector(weights.decay_bias);
  args.norm = vector(weights.value_norm);
  args.out = out.data;
  if (moving) {
    args.states = moving;
    args.state_offset = offset;
  } else {
    args.before = cuda(*states.before).buffer.as<char>() + offset;
    args.after = cuda(*states.after).buffer.as<char>() + offset;
  }
  args.workspace = scratch_.as();
  args.tokens = x.mixed.rows;
  args.key_heads = c.key_heads;
  args.value_heads = c.value_heads;
  args.head_dim = c.head_dim;
  args.epsilon = epsilon;
  args.tiled = c.tiled;
  if (x.alpha_weight) {
    args.input = x.normed.data;
    args.alpha_weight = cuda(*x.alpha_weight).buffer->as();
    args.beta_weight = cuda(*x.beta_weight).buffer->as();
    args.k = x.normed.cols;
  }
  device_.check(device_.library().delta_net(args, device_.stream()), "running recurrent layers");
}

}  // namespace longview::cuda
