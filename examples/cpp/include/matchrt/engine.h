// A matchrt engine on an NVIDIA GPU: two images in, matches out. For TensorRT from 8.6 on and TensorRT for RTX.
//
//   matchrt::Engine engine("loftr.engine");               // and loftr.engine.json beside it
//   matchrt::Matches found = engine.match({grey0, 480, 640, 1}, {grey1, 480, 640, 1});
//
// Needs NvInfer.h, cuda_runtime_api.h and their libraries, nothing else. One Engine per thread. An Engine can be moved;
// what is left behind can only be destroyed or assigned to.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "matchrt/engine_file.h"
#include "matchrt/manifest.h"
#include "matchrt/matches.h"
#include "matchrt/self_test.h"

namespace matchrt {

namespace detail {

inline void cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error("cuda-failed", std::string(what) + ": " + cudaGetErrorString(status));
}

// What the vendor's library says of its last failure, in any thread.
class Log : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity > Severity::kERROR) return;
    try {
      const std::lock_guard<std::mutex> held(mutex_);
      last_ = message;
    } catch (...) {  // without memory for the text there is no text
    }
  }
  std::string last() {
    const std::lock_guard<std::mutex> held(mutex_);
    return last_;
  }

 private:
  std::mutex mutex_;
  std::string last_;
};

// The log of all engines. TensorRT has one logger at a time, the first that it was given, for as long as there is any
// runtime: an Engine's own would be written to after it, on behalf of other engines. So there is one, and it is never
// destroyed, because engines may be closed while the program ends.
inline Log& log() {
  static Log* const all = new Log;
  return *all;
}

struct CudaFree {
  void operator()(void* memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, CudaFree>;

struct StreamEnd {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamEnd>;

// Waits at the end of a block for what was begun in it, also when the block ends by an exception: until then the GPU
// may read the caller's images.
class Finish {
 public:
  explicit Finish(cudaStream_t stream) : stream_(stream) {}
  ~Finish() { cudaStreamSynchronize(stream_); }
  Finish(const Finish&) = delete;
  Finish& operator=(const Finish&) = delete;

 private:
  cudaStream_t stream_;
};

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
    require_readable();
    runtime_.reset(nvinfer1::createInferRuntime(detail::log()));
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
    if (this == &other) return *this;
    context_ = std::move(other.context_);
    stream_ = std::move(other.stream_);
    memory_ = std::move(other.memory_);
    engine_ = std::move(other.engine_);
    runtime_ = std::move(other.runtime_);
    manifest_ = std::move(other.manifest_);
    return *this;
  }

  const Manifest& manifest() const { return manifest_; }

  // Runs the self-test: how the engine's answer differs from what its fp32 graph answered. `failures` of the result says
  // whether it passes. Nothing if the manifest has no self-test. Throws Error session-failed, cuda-failed.
  std::optional<SelfTestResult> self_test() {
    require_open();
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

  static Error rejected(const std::string& what) { return {"engine-rejected", what + ": " + detail::log().last()}; }

  void require_open() const {
    if (!context_) throw Error("session-closed", "the engine was moved elsewhere");
  }

  // Of what manifests may say, this header runs less.
  void require_readable() const {
    if (manifest_.batch != 1) throw Error("engine-batch", "the engine matches several pairs a run");
    if (manifest_.frames && manifest_.frames->range) {
      throw Error("engine-graph", "the engine takes frames of a range of sizes; build one for frames of one size");
    }
    if (manifest_.coarse && !manifest_.frames) {
      throw Error("engine-graph", "the engine also takes smaller copies of the images; build one for frames");
    }
  }

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
    require_open();
    // Both are checked before either is copied.
    const Size canvas0 = manifest_.frames ? frame_size(0, image0) : canvas_of("0", image0);
    const Size canvas1 = manifest_.frames ? frame_size(1, image1) : canvas_of("1", image1);
    // What is copied from and to stands before `finish`, which ends the copies.
    const Valid valid0 = valid(image0), valid1 = valid(image1);
    const auto rows = static_cast<std::size_t>(manifest_.max_matches);
    std::pair<Matches, std::int32_t> out{{std::vector<Point>(rows), std::vector<Point>(rows), std::vector<float>(rows)}, 0};
    const detail::Finish finish(stream_.get());
    if (manifest_.frames) {
      put_frame("frame0", canvas0, image0);
      put_frame("frame1", canvas1, image1);
    } else {
      put_image("image0", canvas0, image0);
      put_image("image1", canvas1, image1);
      if (manifest_.takes("size0")) {
        put_size("size0", valid0);
        put_size("size1", valid1);
      }
    }
    for (const Tensor& output : manifest_.outputs) bind(output, output.shape);
    if (!context_->enqueueV3(stream_.get())) {
      throw Error("session-failed", "the engine did not run: " + detail::log().last());
    }
    fetch("keypoints0", out.first.keypoints0.data(), rows);
    fetch("keypoints1", out.first.keypoints1.data(), rows);
    fetch("scores", out.first.scores.data(), rows);
    fetch("num_matches", &out.second, 1);
    detail::cuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
    return out;
  }

  // The tensors of the engine must be those of the manifest, which are those of the contract.
  void require_tensors() const {
    const std::size_t known = manifest_.inputs.size() + manifest_.outputs.size();
    bool good = static_cast<std::size_t>(engine_->getNbIOTensors()) == known;
    for (std::int32_t i = 0; good && i < engine_->getNbIOTensors(); ++i) {
      const std::string name = engine_->getIOTensorName(i);
      good = has(manifest_.inputs, name) || has(manifest_.outputs, name);
    }
    if (!good) throw Error("engine-graph", "the engine's tensors are not those of its manifest");
    for (const auto* list : {&manifest_.inputs, &manifest_.outputs}) {
      for (const Tensor& tensor : *list) require_same(tensor);
    }
  }

  static bool has(const std::vector<Tensor>& tensors, const std::string& name) {
    return std::any_of(tensors.begin(), tensors.end(), [&name](const Tensor& each) { return each.name == name; });
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

  // The size of that frame; throws where the image is none.
  Size frame_size(std::size_t side, const ImageView& image) const {
    const Size size = manifest_.frames->sizes[side];
    const std::int64_t channels = manifest_.image_channels();
    if (image.data != nullptr && image.height == size.height && image.width == size.width &&
        image.channels == channels) {
      return size;
    }
    throw Error("session-input", "frame" + std::to_string(side) + " is " + shown(image) + "; the engine takes " +
                                     std::to_string(size.height) + "x" + std::to_string(size.width) + "x" +
                                     std::to_string(channels) + ", " + manifest_.frames->pixels);
  }

  static std::string shown(const ImageView& image) {
    return std::to_string(image.height) + "x" + std::to_string(image.width) + "x" + std::to_string(image.channels) +
           (image.data == nullptr ? " without data" : "");
  }

  // A frame goes to the engine as it is.
  void put_frame(const char* name, const Size& size, const ImageView& image) {
    const Tensor tensor{name, "uint8", {1, manifest_.image_rows(size.height), size.width, image.channels}};
    std::size_t bytes = 1;
    for (const std::int64_t side : tensor.shape) bytes *= static_cast<std::size_t>(side);
    detail::cuda(cudaMemcpyAsync(bind(tensor, tensor.shape), image.data, bytes, cudaMemcpyHostToDevice, stream_.get()),
                 "cudaMemcpyAsync");
  }

  // Height and width, as the engine's size inputs have them.
  using Valid = std::array<std::int32_t, 2>;
  static Valid valid(const ImageView& image) {
    return {static_cast<std::int32_t>(image.height), static_cast<std::int32_t>(image.width)};
  }
  void put_size(const char* name, const Valid& valid) {
    void* place = bind({name, "int32", {1, 2}}, {1, 2});
    detail::cuda(cudaMemcpyAsync(place, valid.data(), sizeof(valid), cudaMemcpyHostToDevice, stream_.get()),
                 "cudaMemcpyAsync");
  }

  void put_image(const char* name, const Size& canvas, const ImageView& image) {
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
  }

  // The size at which the engine sees an image; throws where it cannot take it.
  Size canvas_of(const std::string& side, const ImageView& image) const {
    const bool padded = manifest_.takes("size" + side);
    const std::string what = "image" + side + " is " + shown(image);
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
      // 32 bits in TensorRT 8, 64 in later ones.
      dims.d[dims.nbDims++] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(side);
      if (size > std::numeric_limits<std::size_t>::max() / static_cast<std::size_t>(side)) {
        throw Error("engine-graph", "'" + tensor.name + "' is too large for any memory");
      }
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
      throw Error("session-input", "the engine does not take '" + tensor.name + "' in this shape: " + detail::log().last());
    }
    return memory.place.get();
  }

  // Begins the copy of an output.
  template <typename T>
  void fetch(const char* name, T* to, std::size_t count) {
    const Memory& memory = memory_[name];
    const std::size_t size = count * sizeof(T);
    if (memory.size < size) throw Error("engine-graph", std::string("the output '") + name + "' is too small");
    detail::cuda(cudaMemcpyAsync(to, memory.place.get(), size, cudaMemcpyDeviceToHost, stream_.get()), "cudaMemcpyAsync");
  }

  // In this order: what is below goes before what it stands on.
  Manifest manifest_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::map<std::string, Memory> memory_;
  detail::Stream stream_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

}  // namespace matchrt
