// A mock of TensorRT 10's header: sides of 64 bits, the version behind names of the product, memory sizes that 11 removed.
// Written for tests, and in one thing like NVIDIA's: parameters that are not used, of which -Wextra warns.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#define TRT_MAJOR_ENTERPRISE 10
#define TRT_MINOR_ENTERPRISE 9
#define TRT_PATCH_ENTERPRISE 0
#define TRT_BUILD_ENTERPRISE 34
#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE
#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE
#define NV_TENSORRT_PATCH TRT_PATCH_ENTERPRISE
#define NV_TENSORRT_BUILD TRT_BUILD_ENTERPRISE

namespace nvinfer1 {

class Dims64 {
 public:
  static constexpr std::int32_t MAX_DIMS{8};
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};
using Dims = Dims64;

enum class DataType : std::int32_t {
  kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5, kFP8 = 6, kBF16 = 7, kINT64 = 8, kINT4 = 9
};

class ContextExtras {
 public:
  virtual ~ContextExtras() noexcept = default;
  virtual std::size_t getWorkspaceSize(const void* inputs, std::int32_t nbInputs) const noexcept { return 0; }
};
class EngineExtras {
 public:
  [[deprecated]] std::size_t getDeviceMemorySize() const noexcept { return 0; }
};

}  // namespace nvinfer1

#include "../common/mock_infer.h"
