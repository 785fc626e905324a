// Gated DeltaNet against the recurrence in double, token by token: every way that a call is cut, states that are read and written, and
// the gates and keys that chunks find hard.
#include "kernels/delta_net_case.h"

using namespace longview;
using namespace delta_net_case;

TEST("every number of tokens, width and grouping of heads, from a state that is not zero") {
  std::mt19937_64 random(1);
  const std::vector<int64_t> lengths{1, 2, 3, 15, 16, 17, 63, 64, 65, 200, 1000};
  Worst worst;
  for (const int64_t dim : {32, 64, 128})
    for (const int64_t value_heads : {2, 4, 6})
      for (const bool tiled : {false, true}) {
        if (value_heads == 2 && tiled) continue;  // the same
        const Inputs in = make({2, value_heads, dim, tiled}, lengths.back(), random);
        const Reference wanted = reference(in, lengths);
        for (size_t i = 0; i < lengths.size(); ++i)
          for (const int32_t architecture : architectures(dim)) worst.check(in, run(in, {lengths[i]}, architecture), wanted, i, lengths[i], bounds_of(lengths[i]), "lengths");
      }
  worst.print();
}

TEST("heads enough that blocks take more columns") {
  std::mt19937_64 random(7);
  Worst worst;
  for (const auto& [dim, columns] : {std::pair<int64_t, int64_t>{128, 4}, {64, 2}}) {
    const int64_t value_heads = gpu::properties().multiprocessors / columns / 2 * 2 + 2;
    const Inputs in = make({2, value_heads, dim, true}, 150, random);
    const Reference wanted = reference(in, {150});
    for (const int32_t architecture : architectures(dim)) worst.check(in, run(in, {150}, architecture), wanted, 0, 150, kChunks, "many heads");
  }
  worst.print();
}

TEST("a sequence in pieces, and one that is longer than a part") {
  std::mt19937_64 random(2);
  Worst worst;
  for (const int64_t dim : {32, 128}) {
    const Inputs in = make({2, 4, dim, true}, 200, random);
    const Reference wanted = reference(in, {48, 200});
    for (const std::vector<int64_t>& pieces : {std::vector<int64_t>{200}, {64, 136}, {17, 1, 1, 16, 2, 63, 100}, {3, 190, 7}})
      for (const int32_t architecture : architectures(dim)) worst.check(in, run(in, pieces, architecture), wanted, 1, 200, kChunks, "pieces");
    worst.check(in, run(in, {16, 16, 1, 2, 3, 10}), wanted, 0, 48, kRow, "rows");
  }
  for (const int64_t dim : {32, 128})
    for (const int64_t tokens : {kernels::kDeltaPartTokens + 1, kernels::kDeltaPartTokens + 3, kernels::kDeltaPartTokens + 16, kernels::kDeltaPartTokens + 70}) {
      const Inputs in = make({1, 2, dim, false}, tokens, random);
      const Reference wanted = reference(in, {tokens});
      for (const int32_t architecture : architectures(dim)) worst.check(in, run(in, {tokens}, architecture), wanted, 0, tokens, kChunks, "parts");
    }
  worst.print();
}

TEST("calls right behind each other, as far as if each was waited for") {
  std::mt19937_64 random(9);
  const Shape shape{2, 64, 128, true};
  const std::vector<int64_t> pieces{1, 1, 1, 2, 1, 16, 1, 3, 1, 1, 5, 1, 1};
  const Inputs in = make(shape, 35, random);
  const Result waited = run(in, pieces);
  const std::vector<uint8_t> begin = bytes_of(shape, in.s, in.past);
  const Memory<uint8_t> states[2] = {Memory<uint8_t>(begin), Memory<uint8_t>(begin.size())};
  const Memory<uint16_t> out(waited.out.size());
  const Device device(in);
  int64_t first = 0, from = 0;
  for (const int64_t piece : pieces) {
    DeltaNetArgs args = device.args(in, first, piece);
    args.out = out.get() + first * shape.values(), args.before = states[from].get(), args.after = states[1 - from].get();
    GPU(delta_net(args, stream()));
    from = 1 - from, first += piece;
  }
  CHECK(Result({out.read(), states[from].read()}) == waited);
}

// Stages of the scan come by the copy engine: one that came too early would be seen now and then.
TEST("heads on every multiprocessor give the same bits again and again") {
  std::mt19937_64 random(9);
  const Inputs in = make({16, 64, 128, false}, 1500, random);
  const Result first = run(in, {1500});
  int different = 0;
  for (int i = 0; i < 40; ++i) different += !(run(in, {1500}) == first);
  CHECK(different == 0);
}

TEST("gates that keep nothing, all, or either; keys that are nearly one") {
  std::mt19937_64 random(3);
  const std::vector<int64_t> lengths{16, 64, 200, 1000};
  Worst worst;
  for (const Gates gates : {Gates::kAny, Gates::kStrong, Gates::kNone, Gates::kBoth})
    for (const bool near_keys : {false, true})
      for (const int64_t dim : {32, 128}) {
        const Inputs in = make({2, 4, dim, false}, lengths.back(), random, gates, near_keys);
        const Reference wanted = reference(in, lengths);
        for (size_t i = 0; i < lengths.size(); ++i) {
          const std::string what = "gates " + std::to_string(static_cast<int>(gates)) + (near_keys ? ", keys nearly one" : "");
          for (const int32_t architecture : architectures(dim)) worst.check(in, run(in, {lengths[i]}, architecture), wanted, i, lengths[i], bounds_of(lengths[i], near_keys), what.c_str());
        }
      }
  worst.print();
}

TEST("values that are small, and large") {
  std::mt19937_64 random(8);
  const std::vector<int64_t> lengths{16, 300};
  Worst worst;
  for (const float scale : {1.0f / 256, 1.0f / 16, 64.0f, 2048.0f})
    for (const int64_t dim : {32, 128}) {
      Inputs in = make({2, 4, dim, false}, lengths.back(), random);
      const int64_t channels = in.shape.channels();
      for (size_t i = 0; i < in.qkv.size(); ++i)
        if (static_cast<int64_t>(i) % channels >= channels - in.shape.values()) in.qkv[i] = float_to_bf16(bf16_to_float(in.qkv[i]) * scale);
      const Reference wanted = reference(in, lengths);
      for (size_t i = 0; i < lengths.size(); ++i)
        for (const int32_t architecture : architectures(dim)) worst.check(in, run(in, {lengths[i]}, architecture), wanted, i, lengths[i], bounds_of(lengths[i]), std::to_string(scale).c_str());
    }
  worst.print();
}

TEST("alpha and beta of one token, made of its input") {
  std::mt19937_64 random(10);
  const int64_t tokens = 5;
  Worst worst;
  for (const int64_t dim : {32, 64, 128})
    for (const int64_t k : {8, 96, 1024, 4096, 5128}) {
      const Shape shape{2, 6, dim, k % 16 == 0};
      Inputs in = make(shape, tokens, random);
      const std::vector<uint16_t> x = random_bf16(static_cast<size_t>(tokens * k), random);
      const auto weights = [&](std::vector<double>& exact) {  // what is near 1 a token, and x times them
        const std::vector<uint16_t> w = random_bf16(static_cast<size_t>(shape.value_heads * k), random, 1 / std::sqrt(static_cast<float>(k)));
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t h = 0; h < shape.value_heads; ++h) {
            double sum = 0;
            for (int64_t i = 0; i < k; ++i) sum += at(x, static_cast<size_t>(t * k + i)) * at(w, static_cast<size_t>(h * k + i));
            exact.push_back(sum);
          }
        return w;
      };
      const Memory<uint16_t> input(x), alpha(weights(in.exact_alpha)), beta(weights(in.exact_beta)), out(static_cast<size_t>(tokens * shape.values()));
      const std::vector<uint8_t> begin = bytes_of(shape, in.s, in.past);
      const Memory<uint8_t> states[2] = {Memory<uint8_t>(begin), Memory<uint8_t>(begin.size())};
      const Device device(in);
      for (int64_t t = 0; t < tokens; ++t) {
        const Memory<void*> moving(std::vector<void*>{states[t % 2].get(), states[1 - t % 2].get()});
        DeltaNetArgs args = device.args(in, t, 1);
        args.alpha = args.beta = nullptr, args.out = out.get() + t * shape.values(), args.states = moving.get();
        args.input = input.get() + t * k, args.alpha_weight = alpha.get(), args.beta_weight = beta.get(), args.k = k;
        GPU(delta_net(args, stream()));
        GPU(synchronize(stream()));
      }
      worst.check(in, {out.read(), states[tokens % 2].read()}, reference(in, {tokens}), 0, tokens, kRow, ("input of " + std::to_string(k)).c_str());
    }
  worst.print();
}

TEST("the state found by pointers on the device, and in a recording") {
  std::mt19937_64 random(4);
  const Shape shape{2, 6, 128, true};
  for (const int64_t tokens : {int64_t{1}, int64_t{2}, int64_t{16}, int64_t{130}, kernels::kDeltaPartTokens + 2}) {
    const Inputs in = make(shape, tokens, random);
    const Result plain = run(in, {tokens});
    // Two states of a model, of which the layer's part lies between others'.
    const size_t offset = 512, bytes = plain.state.size();
    std::vector<uint8_t> begin(offset + bytes + 256, 0xa5), end = begin;
    const std::vector<uint8_t> layer = bytes_of(shape, in.s, in.past);
    std::copy(layer.begin(), layer.end(), begin.begin() + static_cast<int64_t>(offset));
    const Memory<uint8_t> before(begin), after(end), workspace(workspace_bytes(shape, tokens));
    const Memory<void*> states(std::vector<void*>{before.get(), after.get()});
    const Memory<uint16_t> out(plain.out.size());
    const Device device(in);
    DeltaNetArgs args = device.args(in, 0, tokens);
    args.out = out.get(), args.workspace = workspace.get(), args.states = states.get(), args.state_offset = static_cast<int64_t>(offset);
    GPU(delta_net(args, stream()));
    const std::vector<uint8_t> all = after.read();
    // What lies behind the convolution's inputs, up to a multiple of 256, is nobody's.
    const size_t used = shape.matrices() * 4 + shape.past() * 2;
    CHECK(out.read() == plain.out);
    CHECK(std::equal(all.begin() + static_cast<int64_t>(offset), all.begin() + static_cast<int64_t>(offset + used), plain.state.begin()));
    CHECK(std::count(all.begin(), all.begin() + static_cast<int64_t>(offset), 0xa5) == static_cast<int64_t>(offset) && std::count(all.end() - 256, all.end(), 0xa5) == 256);
    CHECK(before.read() == begin);
  }

  // One recording for all tokens, whose inputs are brought to one place; the states change places from token to token.
  const Inputs in = make(shape, 3, random);
  const Result wanted = run(in, {1, 1, 1});
  const std::vector<uint8_t> begin = bytes_of(shape, in.s, in.past);
  const Memory<uint8_t> first(begin), second(begin.size());
  const Memory<void*> states(std::vector<void*>{nullptr, nullptr});
  const Memory<uint16_t> out(static_cast<size_t>(shape.values()));
  const Device device(in), one(in);
  DeltaNetArgs args = one.args(in, 0, 1);
  args.out = out.get(), args.states = states.get();
  kernels::Graph graph = nullptr;
  GPU(begin_recording(stream()));
  GPU(delta_net(args, stream()));
  GPU(end_recording(stream(), &graph));
  std::vector<uint16_t> all;
  for (int64_t t = 0; t < 3; ++t) {
    void* const now[2] = {t % 2 ? second.get() : first.get(), t % 2 ? first.get() : second.get()};
    GPU(copy_to_device(states.get(), now, sizeof(now), stream()));
    const DeltaNetArgs from = device.args(in, t, 1);
    GPU(copy_on_device(one.qkv.get(), from.qkv, static_cast<size_t>(shape.channels()) * 2, stream()));
    GPU(copy_on_device(one.z.get(), from.z, static_cast<size_t>(shape.values()) * 2, stream()));
    GPU(copy_on_device(one.alpha.get(), from.alpha, static_cast<size_t>(shape.value_heads) * 2, stream()));
    GPU(copy_on_device(one.beta.get(), from.beta, static_cast<size_t>(shape.value_heads) * 2, stream()));
    GPU(launch_graph(graph, stream()));
    const std::vector<uint16_t> row = out.read();
    all.insert(all.end(), row.begin(), row.end());
  }
  GPU(release_graph(graph));
  CHECK(all == wanted.out);
  CHECK(matrices_of(shape, second.read()) == matrices_of(shape, wanted.state));
  CHECK(past_of(shape, second.read()) == past_of(shape, wanted.state));
}

TEST("what is not a number stays in its head, and in the chunks from its own on") {
  std::mt19937_64 random(5);
  const int64_t tokens = 200, bad = 130, head = 1;
  for (const int64_t dim : {64, 128}) {
    const Shape shape{2, 4, dim, false};
    const Inputs in = make(shape, tokens, random);
    Inputs with = in;
    with.qkv[static_cast<size_t>(bad * shape.channels() + (2 * shape.key_heads + head) * shape.dim + 5)] = 0x7fc0;
    for (const int32_t architecture : architectures(dim)) {
      const Result clean = run(in, {tokens}, architecture), got = run(with, {tokens}, architecture);
      int64_t different = 0, numbers = 0;
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t h = 0; h < shape.value_heads; ++h)
          for (int64_t j = 0; j < shape.dim; ++j) {
            const auto i = static_cast<size_t>((t * shape.value_heads + h) * shape.dim + j);
            if (h != head || t < bad / kernels::kDeltaChunkTokens * kernels::kDeltaChunkTokens) different += got.out[i] != clean.out[i];
            else if (t >= bad) numbers += std::isfinite(bf16_to_float(got.out[i]));
          }
      CHECK(different == 0);
      CHECK(numbers == 0);
    }
  }
}

TEST("what is not taken is refused, not run") {
  std::mt19937_64 random(6);
  const Shape shape{2, 4, 32, false};
  const Inputs in = make(shape, 20, random);
  const Device device(in);
  const Memory<uint8_t> state(bytes_of(shape, in.s, in.past)), after(state.bytes()), workspace(workspace_bytes(shape, 20));
  const Memory<uint16_t> out(static_cast<size_t>(20 * shape.values()) + 8);
  DeltaNetArgs good = device.args(in, 0, 20);
  good.out = out.get(), good.workspace = workspace.get(), good.before = state.get(), good.after = after.get();
  const auto refused = [&](kernels::Status wanted, auto change) {
    DeltaNetArgs args = good;
    change(args);
    return library().delta_net(args, stream()) == wanted;
  };
  CHECK(refused(kernels::kOk, [](DeltaNetArgs&) {}));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.tokens = 0; }));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.head_dim = 96; }));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.value_heads = 3; }));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.key_heads = 0; }));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.after = nullptr; }));
  CHECK(refused(kernels::kInvalidShape, [&](DeltaNetArgs& a) { a.after = state.get(); }));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.workspace = nullptr; }));
  CHECK(refused(kernels::kOk, [](DeltaNetArgs& a) { a.workspace = nullptr, a.tokens = kernels::kDeltaRowTokens; }));
  CHECK(refused(kernels::kInvalidAlignment, [](DeltaNetArgs& a) { a.out = static_cast<uint16_t*>(a.out) + 1; }));
  CHECK(refused(kernels::kInvalidAlignment, [](DeltaNetArgs& a) { a.before = static_cast<const uint8_t*>(a.before) + 16; }));
  CHECK(refused(kernels::kInvalidAlignment, [&](DeltaNetArgs& a) { a.states = reinterpret_cast<void* const*>(state.get()), a.state_offset = 16; }));
  CHECK(workspace_bytes(shape, kernels::kDeltaRowTokens) == 0);
  good.tokens = 1, good.input = good.alpha_weight = good.beta_weight = device.qkv.get(), good.k = 64;
  CHECK(refused(kernels::kOk, [](DeltaNetArgs& a) { a.alpha = a.beta = nullptr; }));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.tokens = 2; }));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.k = 60; }));
  CHECK(refused(kernels::kInvalidShape, [](DeltaNetArgs& a) { a.beta_weight = nullptr; }));
  CHECK(refused(kernels::kInvalidAlignment, [](DeltaNetArgs& a) { a.input = static_cast<const uint16_t*>(a.input) + 1; }));
  // Room for a call is enough for all that are shorter.
  for (const int64_t dim : {32, 64, 128})
    for (int64_t tokens = 2; tokens <= 2 * kernels::kDeltaPartTokens; ++tokens)
      CHECK(kernels::delta_net_workspace_bytes(tokens, 2, 4, dim) >= kernels::delta_net_workspace_bytes(tokens - 1, 2, 4, dim));
}

TEST_MAIN()
