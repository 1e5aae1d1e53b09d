// A mock of TensorRT 8.6's header: sides of 32 bits, and bindings by number, which 10 removed. Written for tests, and in
// one thing like NVIDIA's: parameters that are not used, of which -Wextra warns.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#define NV_TENSORRT_MAJOR 8
#define NV_TENSORRT_MINOR 6
#define NV_TENSORRT_PATCH 1
#define NV_TENSORRT_BUILD 6

namespace nvinfer1 {

class Dims32 {
 public:
  static constexpr std::int32_t MAX_DIMS{8};
  std::int32_t nbDims;
  std::int32_t d[MAX_DIMS];
};
using Dims = Dims32;

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5, kFP8 = 6 };

// What contexts and engines of this version have besides.
class ContextExtras {
 public:
  [[deprecated]] bool enqueueV2(void* const* bindings, cudaStream_t stream, cudaEvent_t* inputConsumed) noexcept {
    return false;
  }
};
class EngineExtras {
 public:
  [[deprecated]] std::int32_t getNbBindings() const noexcept { return -1; }
  [[deprecated]] std::int32_t getBindingIndex(const char* name) const noexcept { return -1; }
};

}  // namespace nvinfer1

#include "../common/mock_infer.h"
