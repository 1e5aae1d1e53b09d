// A matchrt engine on an NVIDIA GPU: two images in, matches out. For TensorRT 10 and 11 and TensorRT for RTX.
//
//   matchrt::Engine engine("loftr.engine");               // and loftr.engine.json beside it
//   matchrt::Matches found = engine.match({grey0, 480, 640, 1}, {grey1, 480, 640, 1});
//
// Needs NvInfer.h, cuda_runtime_api.h and their libraries, nothing else. One Engine per thread. An Engine can be moved;
// what is left behind can only be destroyed or assigned to.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "matchrt/manifest.h"
#include "matchrt/matches.h"
#include "matchrt/self_test.h"

namespace matchrt {

namespace detail {

inline void cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error("cuda-failed", std::string(what) + ": " + cudaGetErrorString(status));
}

// What the vendor's library says of its last failure.
class Log : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kERROR) last = message;
  }
  std::string last;
};

struct CudaFree {
  void operator()(void* memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, CudaFree>;

struct StreamEnd {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamEnd>;

inline std::size_t element_bytes(const std::string& dtype) {
  if (dtype == "uint8") return 1;
  if (dtype == "int32" || dtype == "float32") return 4;
  throw Error("engine-graph", "the engine has a tensor of type " + dtype);
}

inline nvinfer1::DataType data_type(const std::string& dtype) {
  if (dtype == "uint8") return nvinfer1::DataType::kUINT8;
  return element_bytes(dtype) == 4 && dtype == "int32" ? nvinfer1::DataType::kINT32 : nvinfer1::DataType::kFLOAT;
}

#ifdef TRT_MAJOR_RTX
inline const char* backend() { return "tensorrt_rtx"; }
#else
inline const char* backend() { return "tensorrt"; }
#endif

inline std::string vendor_version() {
  return std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR) + "." +
         std::to_string(NV_TENSORRT_PATCH) + "." + std::to_string(NV_TENSORRT_BUILD);
}

inline std::string compute_capability() {
  int device = 0, major = 0, minor = 0;
  cuda(cudaGetDevice(&device), "cudaGetDevice");
  cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return std::to_string(major) + "." + std::to_string(minor);
}

}  // namespace detail

struct EngineOptions {
  // Run the engine's self-test before anything else. It costs a run, and about as much again for its images.
  bool self_test = true;
};

class Engine {
 public:
  // Reads, checks and loads an engine, and runs its self-test. Throws Error with the codes of docs/errors.md,
  // engine-self-test among them: the engine does not compute here what its fp32 graph computes.
  explicit Engine(const std::string& path, const EngineOptions& options = {}) {
    EngineFile file = read_engine(path);
    manifest_ = std::move(file.manifest);
    require_fit(manifest_, detail::backend(), detail::vendor_version(), detail::compute_capability());
    if (manifest_.batch != 1) throw Error("engine-batch", "the engine matches several pairs a run");
    if (manifest_.coarse && !manifest_.frames) throw Error("engine-graph", "the engine also takes smaller copies of the images");
    runtime_.reset(nvinfer1::createInferRuntime(*log_));
    if (!runtime_) throw rejected("no runtime");
    runtime_->setEngineHostCodeAllowed(false);
    engine_.reset(runtime_->deserializeCudaEngine(file.bytes.data(), file.bytes.size()));
    if (!engine_) throw rejected("the engine is refused");
    require_tensors();
    context_.reset(engine_->createExecutionContext());
    if (!context_) throw rejected("no context");
    cudaStream_t stream = nullptr;
    detail::cuda(cudaStreamCreate(&stream), "cudaStreamCreate");
    stream_.reset(stream);
    if (options.self_test && manifest_.self_test) require_self_test(*manifest_.self_test);
  }

  Engine(Engine&&) = default;
  // What is below goes before what it stands on, as in the destructor.
  Engine& operator=(Engine&& other) noexcept {
    context_ = std::move(other.context_);
    stream_ = std::move(other.stream_);
    memory_ = std::move(other.memory_);
    engine_ = std::move(other.engine_);
    runtime_ = std::move(other.runtime_);
    manifest_ = std::move(other.manifest_);
    log_ = std::move(other.log_);
    return *this;
  }

  const Manifest& manifest() const { return manifest_; }

  // Runs the self-test: how the engine's answer differs from what its fp32 graph answered. `failures` of the result says
  // whether it passes. Nothing if the manifest has no self-test. Throws Error session-failed, cuda-failed.
  std::optional<SelfTestResult> self_test() {
    if (!manifest_.self_test) return std::nullopt;
    const SelfTest& test = *manifest_.self_test;
    const auto pixels0 = self_test_image(0, test, {0, 0}, 256);
    const auto pixels1 = self_test_image(1, test, test.shift, test.contrast);
    const Size size0 = self_test_size(0), size1 = self_test_size(1);
    const std::int64_t channels = manifest_.image_channels();
    const auto [found, count] = run({pixels0.data(), size0.height, size0.width, channels},
                                    {pixels1.data(), size1.height, size1.width, channels});
    std::vector<MatchRow> rows;
    // A count that is out of range is no match.
    const std::size_t kept = count < 0 || static_cast<std::size_t>(count) > found.scores.size()
                                 ? 0
                                 : static_cast<std::size_t>(count);
    for (std::size_t i = 0; i < kept; ++i) {
      const Point &a = found.keypoints0[i], &b = found.keypoints1[i];
      rows.push_back({static_cast<double>(a.x), static_cast<double>(a.y), static_cast<double>(b.x),
                      static_cast<double>(b.y), static_cast<double>(found.scores[i])});
    }
    return compare_answer(test, rows);
  }

  // Matches two images. A static engine takes images up to its size where it has size inputs, else of just its size; a
  // dynamic one of any size in its profile, in multiples of its divisor; an engine for frames takes these in just their
  // sizes, where the data of nv12 has the rows of chroma below those of luma. min_score: negative for the engine's default.
  // Throws Error session-input, session-failed, cuda-failed.
  Matches match(const ImageView& image0, const ImageView& image1, float min_score = -1.0F) {
    auto [found, count] = run(image0, image1);
    if (count < 0 || static_cast<std::size_t>(count) > found.scores.size()) {
      throw Error("session-failed", "the engine's count is out of range");
    }
    const float least = min_score < 0 ? static_cast<float>(manifest_.default_score) : min_score;
    std::size_t kept = static_cast<std::size_t>(count);
    while (kept > 0 && found.scores[kept - 1] < least) --kept;  // best first
    found.keypoints0.resize(kept);
    found.keypoints1.resize(kept);
    found.scores.resize(kept);
    return std::move(found);
  }

 private:
  struct Memory {
    detail::DeviceMemory place;
    std::size_t size = 0;
  };

  Error rejected(const std::string& what) const { return {"engine-rejected", what + ": " + log_->last}; }

  void require_self_test(const SelfTest& test) {
    const std::string failures = self_test()->failures(test);
    if (failures.empty()) return;
    throw Error("engine-self-test", "this " + manifest_.precision + " engine of " + manifest_.model +
                                        " does not compute here what its fp32 graph computes (compute capability " +
                                        detail::compute_capability() + ", " + detail::backend() + " " +
                                        detail::vendor_version() + "): " + failures);
  }

  // All slots of matches, and how many the engine says are real.
  std::pair<Matches, std::int32_t> run(const ImageView& image0, const ImageView& image1) {
    if (!context_) throw Error("session-closed", "the engine was moved elsewhere");
    if (manifest_.frames) {
      put_frame("frame0", 0, image0);
      put_frame("frame1", 1, image1);
    } else {
      put_image("image0", "size0", image0);
      put_image("image1", "size1", image1);
    }
    for (const Tensor& output : manifest_.outputs) bind(output, output.shape);
    if (!context_->enqueueV3(stream_.get())) throw Error("session-failed", "the engine did not run: " + log_->last);
    const std::int32_t count = fetch<std::int32_t>("num_matches", 1)[0];
    const std::size_t rows = static_cast<std::size_t>(manifest_.max_matches);
    return {{fetch<Point>("keypoints0", rows), fetch<Point>("keypoints1", rows), fetch<float>("scores", rows)}, count};
  }

  // The tensors of the engine must be those of the manifest.
  void require_tensors() const {
    std::map<std::string, bool> known;
    for (const auto* list : {&manifest_.inputs, &manifest_.outputs}) {
      for (const Tensor& tensor : *list) known[tensor.name] = false;
    }
    bool good = engine_->getNbIOTensors() == static_cast<std::int32_t>(known.size());
    for (std::int32_t i = 0; good && i < engine_->getNbIOTensors(); ++i) {
      good = known.count(engine_->getIOTensorName(i)) > 0;
    }
    for (const char* name : {"keypoints0", "keypoints1", "scores", "num_matches"}) {
      good = good && known.count(name) > 0;
    }
    for (const char* side : {"0", "1"}) {
      good = good && known.count((manifest_.frames ? "frame" : "image") + std::string(side)) > 0;
    }
    if (!good) throw Error("engine-graph", "the engine's tensors are not those of its manifest");
    for (const auto* list : {&manifest_.inputs, &manifest_.outputs}) {
      for (const Tensor& tensor : *list) require_same(tensor);
    }
  }

  // The engine writes as much as its own shapes say; the memory for it is of the manifest's.
  void require_same(const Tensor& tensor) const {
    const nvinfer1::Dims dims = engine_->getTensorShape(tensor.name.c_str());
    bool good = engine_->getTensorDataType(tensor.name.c_str()) == detail::data_type(tensor.dtype);
    // A negative number of sides: the library does not say.
    good = good && (dims.nbDims < 0 || dims.nbDims == static_cast<std::int32_t>(tensor.shape.size()));
    for (std::int32_t i = 0; good && i < dims.nbDims; ++i) {
      const std::int64_t told = tensor.shape[static_cast<std::size_t>(i)];
      good = dims.d[i] == told || (dims.d[i] < 0 && told < 0);
    }
    if (!good) {
      throw Error("engine-graph", "the engine's '" + tensor.name + "' has another type or shape than its manifest says");
    }
  }

  Size self_test_size(std::size_t side) const { return manifest_.frames ? manifest_.frames->sizes[side] : manifest_.best; }

  // The image of a self-test, at the shape of the engine's tensor.
  std::vector<std::uint8_t> self_test_image(std::size_t side, const SelfTest& test,
                                            const std::array<std::int64_t, 2>& shift, std::int32_t contrast) const {
    const auto [height, width] = self_test_size(side);
    const std::int64_t channels = manifest_.image_channels();
    if (height < 1 || width < 1 || height > 1 << 15 || width > 1 << 15 || channels < 1 || channels > 4) {
      throw Error("manifest-invalid", "the manifest's size is no size of an image");
    }
    return self_test_view(manifest_.image_rows(height), width, channels, test.seed, shift, contrast);
  }

  // A frame goes to the engine as it is.
  void put_frame(const char* name, std::size_t side, const ImageView& image) {
    const Size& size = manifest_.frames->sizes[side];
    const std::int64_t channels = manifest_.image_channels();
    if (image.data == nullptr || image.height != size.height || image.width != size.width ||
        image.channels != channels) {
      throw Error("session-input", std::string(name) + " is " + std::to_string(image.height) + "x" +
                                       std::to_string(image.width) + "x" + std::to_string(image.channels) +
                                       "; the engine takes " + std::to_string(size.height) + "x" +
                                       std::to_string(size.width) + "x" + std::to_string(channels) + ", " +
                                       manifest_.frames->pixels);
    }
    const Tensor tensor{name, "uint8", {1, manifest_.image_rows(size.height), size.width, channels}};
    std::size_t bytes = 1;
    for (const std::int64_t side_length : tensor.shape) bytes *= static_cast<std::size_t>(side_length);
    detail::cuda(cudaMemcpyAsync(bind(tensor, tensor.shape), image.data, bytes, cudaMemcpyHostToDevice, stream_.get()),
                 "cudaMemcpyAsync");
  }

  void put_image(const char* name, const char* size_name, const ImageView& image) {
    const Size canvas = canvas_of(name, image, manifest_.takes(size_name));
    Tensor tensor{name, "uint8", {1, canvas.height, canvas.width, manifest_.channels}};
    void* place = bind(tensor, tensor.shape);
    const auto row = static_cast<std::size_t>(image.width * image.channels);
    const auto pitch = static_cast<std::size_t>(canvas.width * image.channels);
    if (canvas.height != image.height || canvas.width != image.width) {
      const std::size_t all = pitch * static_cast<std::size_t>(canvas.height);
      detail::cuda(cudaMemsetAsync(place, 0, all, stream_.get()), "cudaMemsetAsync");
    }
    detail::cuda(cudaMemcpy2DAsync(place, pitch, image.data, row, row, static_cast<std::size_t>(image.height),
                                   cudaMemcpyHostToDevice, stream_.get()),
                 "cudaMemcpy2DAsync");
    if (manifest_.takes(size_name)) {
      const std::int32_t valid[2] = {static_cast<std::int32_t>(image.height), static_cast<std::int32_t>(image.width)};
      void* sizes = bind({size_name, "int32", {1, 2}}, {1, 2});
      detail::cuda(cudaMemcpyAsync(sizes, valid, sizeof(valid), cudaMemcpyHostToDevice, stream_.get()),
                   "cudaMemcpyAsync");
      // `valid` ends with this block; a copy from pageable memory may still read it.
      detail::cuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
    }
  }

  // The size at which the engine sees an image; throws where it cannot take it.
  Size canvas_of(const std::string& name, const ImageView& image, bool padded) const {
    const std::string what = name + " is " + std::to_string(image.height) + "x" + std::to_string(image.width) + "x" +
                             std::to_string(image.channels);
    if (image.data == nullptr || image.channels != manifest_.channels) {
      throw Error("session-input", what + "; the engine takes " + std::to_string(manifest_.channels) + " channels");
    }
    if (manifest_.size) {
      const bool same = image.height == manifest_.size->height && image.width == manifest_.size->width;
      const bool within = image.height > 0 && image.width > 0 && image.height <= manifest_.size->height &&
                          image.width <= manifest_.size->width && image.height % manifest_.divisor == 0 &&
                          image.width % manifest_.divisor == 0;
      if (!same && !(padded && within)) {
        throw Error("session-input", what + "; the engine takes " + std::to_string(manifest_.size->height) + "x" +
                                         std::to_string(manifest_.size->width));
      }
      return *manifest_.size;
    }
    const auto& [low, high] = *manifest_.smallest_largest;
    if (image.height < low.height || image.width < low.width || image.height > high.height ||
        image.width > high.width || image.height % manifest_.divisor != 0 || image.width % manifest_.divisor != 0) {
      throw Error("session-input", what + ", outside of the engine's profile or no multiple of " +
                                       std::to_string(manifest_.divisor));
    }
    return {image.height, image.width};
  }

  // Memory for a tensor of that shape, kept from run to run, and told to the engine.
  void* bind(const Tensor& tensor, const std::vector<std::int64_t>& shape) {
    std::size_t size = detail::element_bytes(tensor.dtype);
    nvinfer1::Dims dims{};
    for (const std::int64_t side : shape) {
      if (side < 1 || dims.nbDims == nvinfer1::Dims::MAX_DIMS) {
        throw Error("engine-graph", "the shape of '" + tensor.name + "' depends on data");
      }
      dims.d[dims.nbDims++] = side;
      size *= static_cast<std::size_t>(side);
    }
    Memory& memory = memory_[tensor.name];
    if (memory.size < size) {
      void* place = nullptr;
      memory.place.reset();
      memory.size = 0;
      detail::cuda(cudaMalloc(&place, size), "cudaMalloc");
      memory.place.reset(place);
      memory.size = size;
    }
    const char* name = tensor.name.c_str();
    const bool input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
    if ((input && !context_->setInputShape(name, dims)) || !context_->setTensorAddress(name, memory.place.get())) {
      throw Error("session-input", "the engine does not take '" + tensor.name + "' in this shape: " + log_->last);
    }
    return memory.place.get();
  }

  template <typename T>
  std::vector<T> fetch(const char* name, std::size_t count) {
    Memory& memory = memory_[name];
    if (memory.size < count * sizeof(T)) {
      throw Error("engine-graph", std::string("the output '") + name + "' is too small");
    }
    std::vector<T> values(count);
    const std::size_t size = count * sizeof(T);
    detail::cuda(cudaMemcpyAsync(values.data(), memory.place.get(), size, cudaMemcpyDeviceToHost, stream_.get()),
                 "cudaMemcpyAsync");
    detail::cuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
    return values;
  }

  // In this order: what is below goes before what it stands on. The log's address belongs to TensorRT from the start, so
  // it stays where it is when the Engine moves.
  std::unique_ptr<detail::Log> log_ = std::make_unique<detail::Log>();
  Manifest manifest_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::map<std::string, Memory> memory_;
  detail::Stream stream_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

}  // namespace matchrt
