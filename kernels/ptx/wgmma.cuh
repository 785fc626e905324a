// Products of a warpgroup (four warps) on the tensor cores of sm_90, operands in shared memory.
#pragma once

#include <cstdint>

namespace longview::kernels::ptx {

// Where an operand tile begins: rows of 128 bytes (64 bf16, 128 e4m3) in the 128-byte swizzle that the copy engine writes, eight rows
// every 1,024 bytes. A step of 16 bf16 columns is 32 bytes on: + 2.
__device__ inline uint64_t wgmma_descriptor(uint32_t shared) {
  return static_cast<uint64_t>((shared & 0x3ffffu) >> 4) | uint64_t{1} << 16 | uint64_t{64} << 32 | uint64_t{1} << 62;
}

// Rows of 64 bytes (32 fp16, 64 e4m3) in the 64-byte swizzle, eight of them every 512 bytes.
__device__ inline uint64_t wgmma_descriptor_64(uint32_t shared) {
  return static_cast<uint64_t>((shared & 0x3ffffu) >> 4) | uint64_t{1} << 16 | uint64_t{32} << 32 | uint64_t{2} << 62;
}

// An operand whose rows are the summed dimension, `columns` in tiles of 64 that lie `tile_bytes` apart. A step of 16 rows is
// 2,048 bytes on: + 128.
__device__ inline uint64_t wgmma_descriptor_transposed(uint32_t shared, uint32_t tile_bytes) {
  return static_cast<uint64_t>((shared & 0x3ffffu) >> 4) | static_cast<uint64_t>(tile_bytes >> 4) << 16 | uint64_t{64} << 32 | uint64_t{1} << 62;
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving reads of accumulators over a wait.
template <int kCount>
__device__ inline void wgmma_hold(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

template <int kCount>
__device__ inline void wgmma_hold(uint32_t (&a)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}

// Accumulators of an instruction: %0, %1, ... in its text, and what they are.
#define REGISTERS_8(a, b, c, d, e, f, g, h) "%" #a ", %" #b ", %" #c ", %" #d ", %" #e ", %" #f ", %" #g ", %" #h
#define REGISTERS_32                                                                                            \
  REGISTERS_8(0, 1, 2, 3, 4, 5, 6, 7) ", " REGISTERS_8(8, 9, 10, 11, 12, 13, 14, 15) ", "                       \
  REGISTERS_8(16, 17, 18, 19, 20, 21, 22, 23) ", " REGISTERS_8(24, 25, 26, 27, 28, 29, 30, 31)
#define REGISTERS_64                                                                                            \
  REGISTERS_32 ", " REGISTERS_8(32, 33, 34, 35, 36, 37, 38, 39) ", " REGISTERS_8(40, 41, 42, 43, 44, 45, 46, 47) \
  ", " REGISTERS_8(48, 49, 50, 51, 52, 53, 54, 55) ", " REGISTERS_8(56, 57, 58, 59, 60, 61, 62, 63)
#define REGISTERS_128                                                                                           \
  REGISTERS_64 ", " REGISTERS_8(64, 65, 66, 67, 68, 69, 70, 71) ", " REGISTERS_8(72, 73, 74, 75, 76, 77, 78, 79) \
  ", " REGISTERS_8(80, 81, 82, 83, 84, 85, 86, 87) ", " REGISTERS_8(88, 89, 90, 91, 92, 93, 94, 95) ", "        \
  REGISTERS_8(96, 97, 98, 99, 100, 101, 102, 103) ", " REGISTERS_8(104, 105, 106, 107, 108, 109, 110, 111) ", " \
  REGISTERS_8(112, 113, 114, 115, 116, 117, 118, 119) ", " REGISTERS_8(120, 121, 122, 123, 124, 125, 126, 127)
#define SUMS_8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS_32(i) SUMS_8(i), SUMS_8(i + 8), SUMS_8(i + 16), SUMS_8(i + 24)
#define SUMS_64 SUMS_32(0), SUMS_32(32)
#define SUMS_128 SUMS_64, SUMS_32(64), SUMS_32(96)

// d [64, 256] = a [64, 16] * b [256, 16]^T, plus d where `add` is not 0. Thread t holds rows t / 32 * 16 + t % 32 / 4 (+ 8)
// and of every eight columns t % 4 * 2 (+ 1): d[4 j], [4 j + 1] of the first row, [4 j + 2], [4 j + 3] of the second.
__device__ inline void wgmma_m64n256k16(float (&d)[128], uint64_t a, uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" REGISTERS_128 "}, %128, %129, p, 1, 1, 0, 0;\n}"
      : SUMS_128
      : "l"(a), "l"(b), "r"(add));
}

// The same with 128 columns.
__device__ inline void wgmma_m64n128k16(float (&d)[64], uint64_t a, uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REGISTERS_64 "}, %64, %65, p, 1, 1, 0, 0;\n}"
      : SUMS_64
      : "l"(a), "l"(b), "r"(add));
}

// With 64.
__device__ inline void wgmma_m64n64k16(float (&d)[32], uint64_t a, uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_32 "}, %32, %33, p, 1, 1, 0, 0;\n}"
      : SUMS_32(0)
      : "l"(a), "l"(b), "r"(add));
}

// With 128 in e4m3: a [64, 32], b [128, 32]. A step of 32 columns is 32 bytes on here too. The sums of one call are rounded to
// some 14 bits: they have to go to float32 sums before they grow.
__device__ inline void wgmma_m64n128k32_e4m3(float (&d)[64], uint64_t a, uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" REGISTERS_64 "}, %64, %65, p, 1, 1;\n}"
      : SUMS_64
      : "l"(a), "l"(b), "r"(add));
}

// d [64, N] = a [64, 16] * b [16, N], plus d where `add` is not 0; a in registers as mma.sync holds it (every warp 16 rows),
// b with its rows as they are stored.
__device__ inline void wgmma_m64k16_transposed(float (&d)[128], const uint32_t (&a)[4], uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" REGISTERS_128 "}, {%128, %129, %130, %131}, %132, p, 1, 1, 1;\n}"
      : SUMS_128
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ inline void wgmma_m64k16_transposed(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REGISTERS_64 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"
      : SUMS_64
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ inline void wgmma_m64k16_transposed(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"
      : SUMS_32(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// d [64, 64] = a [64, 16] * b [64, 16]^T, plus d where `add` is not 0, in fp16; a in registers.
__device__ inline void wgmma_m64k16_f16(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" REGISTERS_32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
      : SUMS_32(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
// d [64, 128] += a [64, 16] * b [16, 128], b with its rows as they are stored.
__device__ inline void wgmma_m64k16_f16_transposed(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" REGISTERS_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
      : SUMS_64
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// d [64, N] = a [64, 32] * b [N, 32]^T, plus d where `add` is not 0, in e4m3; a in registers, four columns each: thread t holds of row
// t / 32 * 16 + t % 32 / 4 (+ 8: a[1], a[3]) the columns t % 4 * 4 .. + 3 (+ 16: a[2], a[3]). Sums are rounded as above.
__device__ inline void wgmma_m64k32_e4m3(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" REGISTERS_64 "}, {%64, %65, %66, %67}, %68, p, 1, 1;\n}"
      : SUMS_64
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ inline void wgmma_m64k32_e4m3(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" REGISTERS_32 "}, {%32, %33, %34, %35}, %36, p, 1, 1;\n}"
      : SUMS_32(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

#undef REGISTERS_8
#undef REGISTERS_32
#undef REGISTERS_64
#undef REGISTERS_128
#undef SUMS_8
#undef SUMS_32
#undef SUMS_64
#undef SUMS_128

// Hands registers from warpgroups that only copy to those that compute.
template <int kRegisters>
__device__ inline void registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace longview::kernels::ptx
