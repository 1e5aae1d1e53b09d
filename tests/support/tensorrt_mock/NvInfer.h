// A mock of the part of TensorRT 10's API that examples/cpp uses. For tests only: its engine "finds" three matches, which
// show the corner pixels and the sizes that it was given. Lines of its file that begin with # say what it does otherwise:
//   #many          40 matches: (2 i, i) in image 0, and the two images' values there in image 1; scores from 0.9 down
//   #move 0.5      all points in image 1 are that many pixels too far right
//   #dim 0.1       all scores are that much too low
//   #count -1      the count that it returns
//   #fail          runs fail, and the logger is told why
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 9
#define NV_TENSORRT_PATCH 0
#define NV_TENSORRT_BUILD 34

namespace nvinfer1 {

class Dims64 {
 public:
  static constexpr std::int32_t MAX_DIMS{8};
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};
using Dims = Dims64;

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5 };

enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, const char* message) noexcept = 0;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  IExecutionContext(const std::map<std::string, std::string>& orders, ILogger& logger)
      : orders(orders), logger(logger) {}
  bool setInputShape(const char* name, const Dims& dims) noexcept { return shapes[name] = dims, true; }
  bool setTensorAddress(const char* name, void* place) noexcept { return places[name] = place, place != nullptr; }
  bool enqueueV3(cudaStream_t) noexcept {
    if (orders.count("fail")) return logger.log(ILogger::Severity::kERROR, "mock: the run failed"), false;
    if (orders.count("many")) {
      many();
    } else {
      three();
    }
    auto* count = static_cast<std::int32_t*>(places["num_matches"]);
    if (orders.count("count")) *count = std::atoi(orders["count"].c_str());
    return true;
  }

 private:
  void three() noexcept {
    for (const std::string index : {"0", "1"}) {
      const Dims& dims = shapes[image_name() + index];
      const auto* image = static_cast<const std::uint8_t*>(places[image_name() + index]);
      const std::int64_t h = dims.d[1], w = dims.d[2], c = dims.d[3];
      const auto pixel = [&](std::int64_t y, std::int64_t x) { return static_cast<float>(image[(y * w + x) * c]); };
      const auto* size = static_cast<const std::int32_t*>(places["size" + index]);
      const std::vector<float> points{pixel(0, 0), pixel(0, w - 1), pixel(h - 1, 0), pixel(h - 1, w - 1),
                                      size ? static_cast<float>(size[0]) : static_cast<float>(h),
                                      size ? static_cast<float>(size[1]) : static_cast<float>(w)};
      std::memcpy(places["keypoints" + index], points.data(), points.size() * sizeof(float));
    }
    const float scores[3] = {0.9F, 0.6F, 0.1F};
    std::memcpy(places["scores"], scores, sizeof(scores));
    *static_cast<std::int32_t*>(places["num_matches"]) = 3;
  }

  std::string image_name() const noexcept { return shapes.count("frame0") ? "frame" : "image"; }

  void many() noexcept {
    const auto number = [&](const char* name) { return static_cast<float>(std::atof(orders[name].c_str())); };
    const float move = number("move"), dim = number("dim");
    const auto* image0 = static_cast<const std::uint8_t*>(places[image_name() + "0"]);
    const auto* image1 = static_cast<const std::uint8_t*>(places[image_name() + "1"]);
    const std::int64_t w = shapes[image_name() + "0"].d[2], c = shapes[image_name() + "0"].d[3];
    for (std::int64_t i = 0; i < 40; ++i) {
      const std::int64_t at = (i * w + 2 * i) * c;
      const float ends[4] = {static_cast<float>(2 * i), static_cast<float>(i), static_cast<float>(image0[at]) + move,
                             static_cast<float>(image1[at])};
      const float score = 0.9F - 0.01F * static_cast<float>(i) - dim;
      std::memcpy(static_cast<float*>(places["keypoints0"]) + 2 * i, ends, 2 * sizeof(float));
      std::memcpy(static_cast<float*>(places["keypoints1"]) + 2 * i, ends + 2, 2 * sizeof(float));
      std::memcpy(static_cast<float*>(places["scores"]) + i, &score, sizeof(float));
    }
    *static_cast<std::int32_t*>(places["num_matches"]) = 40;
  }

  std::map<std::string, std::string> orders;
  ILogger& logger;
  std::map<std::string, Dims> shapes;
  std::map<std::string, void*> places;
};

class ICudaEngine {
 public:
  // The mock's engine file is its tensors, one a line, and orders. A tensor is a name, a type and sides, of which -1 is
  // any; or a name alone, and the type is what the contract says, and the sides are not told.
  ICudaEngine(const std::string& text, ILogger& logger) : logger(logger) {
    for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
      const std::string line = text.substr(at, text.find('\n', at) - at);
      const std::size_t blank = std::min(line.find(' '), line.size());
      if (line[0] == '#') {
        orders[line.substr(1, blank - 1)] = line.substr(blank);
      } else {
        std::istringstream words(line);
        std::string name, type;
        words >> name >> type;
        names.push_back(name);
        if (type.empty()) {
          type = name.find("image") == 0 ? "uint8" : name.find("key") == 0 || name == "scores" ? "float32" : "int32";
        }
        types[name] = type == "uint8" ? DataType::kUINT8 : type == "int32" ? DataType::kINT32 : DataType::kFLOAT;
        Dims& dims = shapes[name] = Dims{};
        if (words.eof()) dims.nbDims = -1;
        while (words >> dims.d[dims.nbDims]) ++dims.nbDims;
      }
    }
  }
  std::int32_t getNbIOTensors() const noexcept { return static_cast<std::int32_t>(names.size()); }
  const char* getIOTensorName(std::int32_t i) const noexcept { return names[static_cast<std::size_t>(i)].c_str(); }
  TensorIOMode getTensorIOMode(const char* name) const noexcept {
    const std::string text = name;
    const bool input = text.find("image") == 0 || text.find("frame") == 0 || text.find("size") == 0;
    return input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  Dims getTensorShape(const char* name) const noexcept { return shapes.at(name); }
  DataType getTensorDataType(const char* name) const noexcept { return types.at(name); }
  IExecutionContext* createExecutionContext() noexcept { return new IExecutionContext(orders, logger); }

 private:
  ILogger& logger;
  std::map<std::string, std::string> orders;
  std::vector<std::string> names;
  std::map<std::string, DataType> types;
  std::map<std::string, Dims> shapes;
};

class IRuntime {
 public:
  explicit IRuntime(ILogger& logger) : logger(logger) {}
  void setEngineHostCodeAllowed(bool) noexcept {}
  ICudaEngine* deserializeCudaEngine(const void* data, std::size_t size) noexcept {
    const std::string text(static_cast<const char*>(data), size);
    if (text.find("image0") == 0 || text.find("frame0") == 0) return new ICudaEngine(text, logger);
    logger.log(ILogger::Severity::kERROR, "mock: this is no engine");
    return nullptr;
  }

 private:
  ILogger& logger;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept { return new IRuntime(logger); }

}  // namespace nvinfer1
