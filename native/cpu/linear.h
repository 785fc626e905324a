// out = x weight^T + bias on the CPU.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"

namespace longview::cpu {

class Linear {
 public:
  Linear(const Kernels& kernels, Precision precision, ThreadPool& pool);

  // x [tokens, weight.cols], out [tokens, weight.rows], bias [weight.rows] or null.
  void run(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out);

 private:
  enum class Products { kFloat32, kBFloat16, kInt16 };
  // x as the products take it; of float32 it is x itself.
  struct Input {
    Products products;
    const uint16_t* bf16 = nullptr;
    int64_t ld = 0;  // of bf16
    CodeRows codes{};
  };

  // Few tokens: each row of the weight is read once and multiplied with all of them.
  void by_rows(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out);
  // Many tokens: panels of rows are packed once, then multiplied as a matrix.
  void by_panels(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out);

  Products products_of(const TensorView& weight) const;
  Input rounded(const float* x, int64_t tokens, int64_t k, Products products);

  const Kernels& kernels_;
  const Precision precision_;
  ThreadPool& pool_;
  Scratch input_;                 // x as bf16 or as codes
  Scratch input_scales_, input_sums_;
  std::vector<Scratch> rows_;     // by thread: rows of a weight, dequantised or as codes
  std::vector<Scratch> panels_;   // by thread: the packed panel
  std::vector<Scratch> outputs_;  // by thread: a panel's products where the output is ragged
};

}  // namespace longview::cpu
