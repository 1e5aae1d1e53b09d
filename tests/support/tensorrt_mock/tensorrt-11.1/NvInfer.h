// A mock of TensorRT 11's header: interfaces have versions, memory sizes are those of V2. Written for tests, and in one
// thing like NVIDIA's: parameters that are not used, of which -Wextra warns.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#define TRT_MAJOR_ENTERPRISE 11
#define TRT_MINOR_ENTERPRISE 1
#define TRT_PATCH_ENTERPRISE 0
#define TRT_BUILD_ENTERPRISE 106
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
  kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5, kFP8 = 6, kBF16 = 7, kINT64 = 8, kINT4 = 9,
  kFP4 = 10, kE8M0 = 11
};

class ContextExtras {
 public:
  virtual ~ContextExtras() noexcept = default;
  virtual bool setDeviceMemoryV2(void* memory, std::int64_t size) noexcept { return false; }
};
class EngineExtras {
 public:
  std::int64_t getDeviceMemorySizeV2() const noexcept { return 0; }
  std::int64_t getDeviceMemorySizeForProfileV2(std::int32_t profileIndex) const noexcept { return 0; }
};

}  // namespace nvinfer1

#include "../common/mock_infer.h"
