#include "cuda/products.h"

#include <algorithm>

namespace longview::cuda {
namespace {

bool is_e4m3(const CudaWeight& weight) { return weight.type == kernels::WeightType::kE4M3; }

// Whether one launch multiplies a row with all of them.
bool one_launch(Activation x, std::span<const Projection> projections) {
  const auto alike = [&](const Projection& p) {
    return cuda(*p.weight).type == cuda(*projections[0].weight).type && (projections.size() == 1 || cuda(*p.weight).rows % 4 == 0) && p.out.wide == projections[0].out.wide;
  };
  return x.rows == 1 && projections.size() <= kernels::kMatvecParts && std::all_of(projections.begin(), projections.end(), alike);
}

}  // namespace

void Products::expect(const CudaWeight& weight) {
  if (is_e4m3(weight)) widest_ = std::max(widest_, weight.cols);
}

Activation Products::prepared(Activation x, std::initializer_list<const DeviceWeight*> weights) {
  if (x.rows > kernels::kMatvecRows && std::all_of(weights.begin(), weights.end(), [](const DeviceWeight* w) { return is_e4m3(cuda(*w)); })) x.codes = codes(x.rows);
  return x;
}

Activation Products::shared(Activation x, std::span<const Projection> projections) {
  const bool narrow = std::any_of(projections.begin(), projections.end(), [](const Projection& p) { return is_e4m3(cuda(*p.weight)); });
  return x.rows > kernels::kMatvecRows && narrow ? coded(x) : x;
}

void Products::multiply(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation out) {
  const CudaWeight& w = cuda(weight);
  kernels::GemmArgs args{x.data, w.buffer->as(), w.type, bias ? cuda(*bias).buffer->as<float>() : nullptr, out.data, element(out), x.rows, w.rows, w.cols};
  if (x.rows <= kernels::kMatvecRows) {
    check(library_.matvec(args, device_.stream()), "multiplying a vector");
    return;
  }
  const bool e4m3 = is_e4m3(w);
  if (out.wide && !e4m3 && w.type != kernels::WeightType::kBFloat16) {
    // The output matrix: in bf16 it takes a gigabyte that no plan has, for a product of few rows. None of one row, which is rounded otherwise.
    const int64_t parts = (x.rows + kernels::kMatvecRows - 1) / kernels::kMatvecRows;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t first = x.rows * part / parts;
      args.x = static_cast<const uint16_t*>(x.data) + first * w.cols;
      args.out = static_cast<float*>(out.data) + first * w.rows;
      args.m = x.rows * (part + 1) / parts - first;
      check(library_.matvec(args, device_.stream()), "multiplying a vector");
    }
    return;
  }
  if (e4m3) {
    args.x = coded(x).codes;
  } else {
    args.weight = plain(w);
    args.type = kernels::WeightType::kBFloat16;
  }
  if (blas_ && !out.wide && blas_->multiply({args.x, args.weight, bias ? cuda(*bias).narrow() : nullptr, args.out, args.m, args.n, args.k, false, e4m3})) return;
  check(library_.gemm(args, device_.stream()), "multiplying matrices");
}

bool Products::add(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation sum) {
  const Projection added{&weight, bias, sum};
  if (x.rows <= kernels::kMatvecRows) return multiply_row(x, {&added, 1}, kernels::MatvecResult::kAdd);
  if (bias) return false;
  const CudaWeight& w = cuda(weight);
  const bool e4m3 = is_e4m3(w);
  const Blas::Product p{e4m3 ? coded(x).codes : x.data, e4m3 ? w.buffer->as() : plain(w), nullptr, sum.data, x.rows, w.rows, w.cols, true, e4m3};
  if (blas_ && blas_->multiply(p)) return true;
  check(library_.gemm({p.x, p.weight, e4m3 ? w.type : kernels::WeightType::kBFloat16, nullptr, p.out, kernels::Element::kFloat32, p.m, p.n, p.k, 0, true}, device_.stream()), "multiplying matrices");
  return true;
}

void Products::multiply_groups(const void* x, int64_t rows, const DeviceWeight& weight, const int32_t* groups, int64_t count, void* out) {
  const CudaWeight& w = cuda(weight);
  check(library_.gemm({x, plain(w), kernels::WeightType::kBFloat16, nullptr, out, kernels::Element::kBFloat16, rows, w.rows / count, w.cols, 0, 0, groups, count}, device_.stream()), "multiplying matrices");
}

bool Products::multiply_row(Activation x, std::span<const Projection> projections, kernels::MatvecResult result, const Norm* norm, GateCurve curve) {
  if ((norm && !x.wide) || !one_launch(x, projections)) return false;
  const CudaWeight& first = cuda(*projections[0].weight);
  kernels::MatvecRowArgs args{x.data, first.type, first.cols, {}, 0, result, element(projections[0].out)};
  args.curve = of(curve);
  if (norm) {
    args.norm = cuda(norm->weight).buffer->as<float>();
    args.normed = norm->normed.data;
    args.epsilon = norm->epsilon;
    args.keep = norm->keep;
  }
  for (const Projection& p : projections) args.parts[args.count++] = {cuda(*p.weight).buffer->as(), p.bias ? cuda(*p.bias).buffer->as<float>() : nullptr, p.out.data, cuda(*p.weight).rows};
  check(library_.matvec_row(args, device_.stream()), "multiplying a vector");
  return true;
}

// Room for codes of so many rows of the widest matrix: what two calls for as many rows give is the same memory.
void* Products::codes(int64_t rows) {
  codes_.grow(device_, kernels::e4m3_bytes(rows, widest_), "activations in fp8");
  return codes_.as();
}

// x in e4m3, made now where it was not written so.
Activation Products::coded(Activation x) {
  if (x.codes) return x;
  x.codes = codes(x.rows);
  check(library_.quantize_rows({x.data, x.codes, x.rows, x.cols}, device_.stream()), "quantising activations");
  return x;
}

// The matrix in bf16; a quantised one until the next is asked for.
const void* Products::plain(const CudaWeight& w) {
  if (w.type == kernels::WeightType::kBFloat16) return w.buffer->as();
  dequantized_.grow(device_, w.rows * w.cols * 2, "a matrix in bf16");
  check(library_.dequantize({w.buffer->as(), w.type, dequantized_.as(), w.rows * w.cols}, device_.stream()), "dequantising weights");
  return dequantized_.as();
}

}  // namespace longview::cuda
