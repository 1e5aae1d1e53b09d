// A mock of the part of CUDA's runtime that examples/cpp uses: device memory is host memory. For tests only.
//
// It is as late as CUDA may be: what is put into a stream is done when somebody waits for it, or when the stream ends. So
// AddressSanitizer sees memory that is freed or goes out of scope before its copy is over.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define MATCHRT_MOCK_CUDA

using cudaError_t = int;
using cudaStream_t = struct MockStream*;
using cudaEvent_t = struct MockEvent*;
struct MockStream {
  std::vector<std::function<void()>> work;
  void finish() {
    for (const auto& each : std::exchange(work, {})) each();
  }
};
enum { cudaSuccess = 0 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };

inline const char* cudaGetErrorString(cudaError_t) { return "mock"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  return *value = which == cudaDevAttrComputeCapabilityMajor ? 8 : 9, cudaSuccess;
}
inline cudaError_t cudaMalloc(void** place, std::size_t size) { return (*place = std::malloc(size)) ? 0 : 2; }
inline cudaError_t cudaFree(void* place) { return std::free(place), cudaSuccess; }
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) { return *stream = new MockStream, cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream->finish(), cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) { return stream->finish(), delete stream, cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t size, cudaStream_t stream) {
  stream->work.emplace_back([=] { std::memset(to, value, size); });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind, cudaStream_t stream) {
  stream->work.emplace_back([=] { std::memcpy(to, from, size); });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                                     std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t stream) {
  stream->work.emplace_back([=] {
    for (std::size_t y = 0; y < height; ++y) {
      std::memcpy(static_cast<char*>(to) + y * to_pitch, static_cast<const char*>(from) + y * from_pitch, width);
    }
  });
  return cudaSuccess;
}
