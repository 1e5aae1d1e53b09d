// What the mocks of all versions of TensorRT have in common: the part of its API that examples/cpp uses. For tests only. Its
// engine "finds" three matches, which show the corner pixels and the sizes that it was given. Lines of its file that begin
// with # say what it does otherwise:
//   #many          40 matches: (2 i, i) in image 0, and the two images' values there in image 1; scores from 0.9 down
//   #move 0.5      all points in image 1 are that many pixels too far right
//   #dim 0.1       all scores are that much too low
//   #count -1      the count that it returns
//   #fail          runs fail, and the logger is told why
//
// Objects are strict about lifetimes, for AddressSanitizer: each tells the logger when it ends, which is the first one that
// was given as long as there is any runtime, and each then touches what it was made by.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace nvinfer1 {

enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, const char* message) noexcept = 0;
  ILogger() = default;
  virtual ~ILogger() = default;
};

// The logger of the process, and what has ended under it.
struct MockProcess {
  ILogger* logger = nullptr;
  int runtimes = 0;
  void tell(ILogger::Severity severity, const char* message) noexcept { logger->log(severity, message); }
  void ended(int& made_by) noexcept {
    --made_by;
    tell(ILogger::Severity::kVERBOSE, "mock: an object has ended");
  }
};
inline MockProcess mock_process;

class IExecutionContext : public ContextExtras {
 public:
  IExecutionContext(const std::map<std::string, std::string>& orders, int& contexts)
      : orders(orders), contexts(contexts) {
    ++contexts;
  }
  virtual ~IExecutionContext() noexcept { mock_process.ended(contexts); }
  bool setInputShape(const char* name, const Dims& dims) noexcept { return shapes[name] = dims, true; }
  bool setTensorAddress(const char* name, void* place) noexcept { return places[name] = place, place != nullptr; }
  bool enqueueV3(cudaStream_t stream) noexcept {
    if (orders.count("fail")) return mock_process.tell(ILogger::Severity::kERROR, "mock: the run failed"), false;
#ifdef MATCHRT_MOCK_CUDA
    stream->work.emplace_back([this] { run(); });
#else
    run();  // real headers of CUDA: compiled, and never called
    static_cast<void>(stream);
#endif
    return true;
  }

 private:
  void run() noexcept {
    if (orders.count("many")) {
      many();
    } else {
      three();
    }
    auto* count = static_cast<std::int32_t*>(places["num_matches"]);
    if (orders.count("count")) *count = std::atoi(orders["count"].c_str());
  }

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
  int& contexts;
  std::map<std::string, Dims> shapes;
  std::map<std::string, void*> places;
};

class ICudaEngine : public EngineExtras {
 public:
  // The mock's engine file is its tensors, one a line, and orders. A tensor is a name, a type and sides, of which -1 is
  // any; or a name alone, and the type is what the contract says, and the sides are not told.
  ICudaEngine(const std::string& text, int& engines) : engines(engines) {
    ++engines;
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
  virtual ~ICudaEngine() noexcept { mock_process.ended(engines); }
  std::int32_t getNbIOTensors() const noexcept { return static_cast<std::int32_t>(names.size()); }
  const char* getIOTensorName(std::int32_t i) const noexcept { return names[static_cast<std::size_t>(i)].c_str(); }
  TensorIOMode getTensorIOMode(const char* name) const noexcept {
    const std::string text = name;
    const bool input = text.find("image") == 0 || text.find("frame") == 0 || text.find("size") == 0;
    return input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  Dims getTensorShape(const char* name) const noexcept { return shapes.at(name); }
  DataType getTensorDataType(const char* name) const noexcept { return types.at(name); }
  IExecutionContext* createExecutionContext() noexcept { return new IExecutionContext(orders, contexts); }

 private:
  int& engines;
  int contexts = 0;
  std::map<std::string, std::string> orders;
  std::vector<std::string> names;
  std::map<std::string, DataType> types;
  std::map<std::string, Dims> shapes;
};

class IRuntime {
 public:
  explicit IRuntime(ILogger& logger) {
    if (mock_process.runtimes++ == 0) mock_process.logger = &logger;
  }
  virtual ~IRuntime() noexcept { mock_process.ended(mock_process.runtimes); }
  void setEngineHostCodeAllowed(bool) noexcept {}
  ICudaEngine* deserializeCudaEngine(const void* data, std::size_t size) noexcept {
    const std::string text(static_cast<const char*>(data), size);
    if (text.find("image0") == 0 || text.find("frame0") == 0) return new ICudaEngine(text, engines);
    mock_process.tell(ILogger::Severity::kERROR, "mock: this is no engine");
    return nullptr;
  }

 private:
  int engines = 0;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept { return new IRuntime(logger); }

}  // namespace nvinfer1
