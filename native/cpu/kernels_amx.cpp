// bf16 products by AMX: a tile is 16 rows of 64 bytes; C tiles of 32 x 32 stay in four tile registers over the whole of k.
#include "cpu/dot_int8.h"
#include "cpu/gemm_bf16.h"
#include "cpu/kernels_simd.h"

namespace longview::cpu {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

// Configured once a thread and left so: every tile is 16 rows of 64 bytes.
inline void configure_tiles() {
  static thread_local bool configured = false;
  if (configured) return;
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = 64;
    config.rows[i] = 16;
  }
  _tile_loadconfig(&config);
  configured = true;
}

// C[32, 32] of 32-row A and 32-column B; steps counts k / 32. Tiles 0-3: C, 4-5: A, 6-7: B.
inline void amx_tile_2x2(int64_t steps, const uint16_t* a, int64_t lda, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  const auto c_stride = static_cast<size_t>(ldc * 4), a_stride = static_cast<size_t>(lda * 2), b_stride = static_cast<size_t>(ldb * 4);
  if (accumulate) {
    _tile_loadd(0, c, c_stride);
    _tile_loadd(1, c + 16, c_stride);
    _tile_loadd(2, c + 16 * ldc, c_stride);
    _tile_loadd(3, c + 16 * ldc + 16, c_stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a + 32 * s, a_stride);
    _tile_loadd(6, b + 16 * s * ldb, b_stride);
    _tile_loadd(7, b + 16 * s * ldb + 16, b_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + 16 * lda + 32 * s, a_stride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_stride);
  _tile_stored(1, c + 16, c_stride);
  _tile_stored(2, c + 16 * ldc, c_stride);
  _tile_stored(3, c + 16 * ldc + 16, c_stride);
}

inline void amx_tile_1x1(int64_t steps, const uint16_t* a, int64_t lda, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  const auto c_stride = static_cast<size_t>(ldc * 4), a_stride = static_cast<size_t>(lda * 2), b_stride = static_cast<size_t>(ldb * 4);
  if (accumulate) _tile_loadd(0, c, c_stride);
  else _tile_zero(0);
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a + 32 * s, a_stride);
    _tile_loadd(6, b + 16 * s * ldb, b_stride);
    _tile_dpbf16ps(0, 4, 6);
  }
  _tile_stored(0, c, c_stride);
}

// Whole tiles go to AMX; ragged rows and depths that are no multiple of 32 to vdpbf16ps.
void gemm_amx(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  if (k % 32 != 0 || m < 16) return gemm_bf16(m, n, k, a, lda, b, ldb, c, ldc, accumulate);
  configure_tiles();
  const int64_t steps = k / 32;
  int64_t i = 0;
  for (; i + 16 <= m;) {
    const int64_t rows = i + 32 <= m ? 32 : 16;
    const uint16_t* a_rows = a + i * lda;
    float* c_rows = c + i * ldc;
    for (int64_t j = 0; j < n;) {
      if (rows == 32 && j + 32 <= n) {
        amx_tile_2x2(steps, a_rows, lda, b + j, ldb, c_rows + j, ldc, accumulate);
        j += 32;
      } else {
        for (int64_t r = 0; r < rows; r += 16) amx_tile_1x1(steps, a_rows + r * lda, lda, b + j, ldb, c_rows + r * ldc + j, ldc, accumulate);
        j += 16;
      }
    }
    i += rows;
  }
  if (i < m) gemm_bf16(m - i, n, k, a + i * lda, lda, b, ldb, c + i * ldc, ldc, accumulate);
}

}  // namespace

constinit const Kernels kAmxKernels = with_bf16_products(float_kernels("amx", "AMX", dequantize_simd, dots_int8), gemm_amx);

}  // namespace longview::cpu
