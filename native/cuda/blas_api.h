// The part of cuBLASLt's interface that is used, declared from its documentation ("cuBLAS", chapter "Using the cuBLASLt
// API"): the values are the same in CUDA 12 and 13.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

namespace longview::cuda {

enum LtDataType : int32_t { kLtFloat32 = 0, kLtBFloat16 = 14, kLtE4M3 = 28 };  // cudaDataType
enum LtComputeType : int32_t { kLtComputeFloat32 = 68 };         // cublasComputeType_t
enum LtOperation : int32_t { kLtPlain = 0, kLtTransposed = 1 };  // cublasOperation_t
enum LtEpilogue : int32_t { kLtEpilogueBias = 4 };               // cublasLtEpilogue_t
enum LtDescription : int32_t {                                   // cublasLtMatmulDescAttributes_t
  kLtTransposeA = 3,
  kLtTransposeB = 4,
  kLtEpilogue = 7,
  kLtBiasPointer = 8,
  kLtScalePointerA = 17,
  kLtScalePointerB = 18,
  kLtFastAccumulation = 25,  // int8_t
  kLtBiasType = 26,
  kLtScaleModeA = 31,
  kLtScaleModeB = 32,
};
enum LtScaleMode : int32_t { kLtScaleRows = 3 };  // cublasLtMatmulMatrixScale_t: "outer vector", float32
enum LtPreference : int32_t { kLtMaxWorkspaceBytes = 1 };  // cublasLtMatmulPreferenceAttributes_t

struct LtAlgorithm {  // cublasLtMatmulAlgo_t
  uint64_t data[8];
};
struct LtHeuristicResult {  // cublasLtMatmulHeuristicResult_t
  LtAlgorithm algorithm;
  size_t workspace_bytes;
  int32_t status;
  float waves;
  int32_t reserved[4];
};

// Every function returns a cublasStatus_t, 0 for success, but get_version.
struct BlasApi {
  size_t (*get_version)();
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*matmul)(void* handle, void* description, const void* alpha, const void* a, void* a_layout, const void* b, void* b_layout, const void* beta, const void* c, void* c_layout, void* d,
                void* d_layout, const LtAlgorithm* algorithm, void* workspace, size_t workspace_bytes, void* stream);
  int (*create_description)(void** description, int32_t compute_type, int32_t scale_type);
  int (*destroy_description)(void* description);
  int (*set_description)(void* description, int32_t attribute, const void* value, size_t bytes);
  int (*create_layout)(void** layout, int32_t type, uint64_t rows, uint64_t cols, int64_t leading_dimension);
  int (*destroy_layout)(void* layout);
  int (*create_preference)(void** preference);
  int (*destroy_preference)(void* preference);
  int (*set_preference)(void* preference, int32_t attribute, const void* value, size_t bytes);
  int (*choose)(void* handle, void* description, void* a_layout, void* b_layout, void* c_layout, void* d_layout, void* preference, int wanted, LtHeuristicResult* results, int* found);
};

// Folders in which cuBLASLt may lie, the first to be asked first: of the toolkit that CUDA_PATH or CUDA_HOME names, of those in /usr/local
// (newer versions first), and of PyTorch's wheels beside every Python that PATH names.
std::vector<std::filesystem::path> blas_folders();
// Null where no cuBLASLt is found. Once a process; later calls return the same.
const BlasApi* load_blas();

}  // namespace longview::cuda
