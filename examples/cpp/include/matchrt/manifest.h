// The JSON beside an engine (docs/engine-contract.md), and the engine's bytes checked against it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "matchrt/error.h"
#include "matchrt/json.h"
#include "matchrt/self_test.h"
#include "matchrt/sha256.h"

namespace matchrt {

struct Size {
  std::int64_t height;
  std::int64_t width;
};

// A tensor of the engine; -1 is a size that varies.
struct Tensor {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
};

// What an engine takes in place of images of its own size, if it resizes them itself (docs/frames.md).
struct Frames {
  std::string pixels;         // rgb, bgr, grey, rgba, nv12
  std::array<Size, 2> sizes;  // of frame 0 and frame 1
};

struct Manifest {
  std::string model, precision, backend, backend_version;
  std::vector<std::string> compute_capabilities;  // of the GPUs it was built for, as "8.9"
  bool newer_gpus = false;
  std::string version_rule;  // exact, newer, any
  std::string engine_sha256;
  std::int64_t engine_bytes = 0;
  std::vector<Tensor> inputs, outputs;
  std::int64_t channels = 0, divisor = 0, batch = 0, max_matches = 0;
  std::optional<Size> size;                            // of a static engine's images
  std::optional<std::pair<Size, Size>> smallest_largest;  // of a dynamic engine's
  Size best{};                                         // the size that the engine is fastest at
  bool coarse = false;                                 // it also takes coarse0 and coarse1
  std::optional<Frames> frames;                        // it takes frame0 and frame1 in place of images
  double default_score = 0;
  std::optional<SelfTest> self_test;  // none in manifests of earlier versions

  // Bytes of a pixel of the images that the engine takes; of nv12, of its luma.
  std::int64_t image_channels() const {
    if (!frames) return channels;
    if (frames->pixels == "rgba") return 4;
    return frames->pixels == "rgb" || frames->pixels == "bgr" ? 3 : 1;
  }

  // Rows of such an image in memory: nv12 has half as many rows of chroma below those of luma.
  std::int64_t image_rows(std::int64_t height) const {
    return frames && frames->pixels == "nv12" ? height + height / 2 : height;
  }

  bool takes(const std::string& name) const {
    for (const Tensor& tensor : inputs) {
      if (tensor.name == name) return true;
    }
    return false;
  }
};

namespace detail {

inline std::vector<Tensor> tensors(const Json& list) {
  std::vector<Tensor> out;
  for (const Json& entry : list.items()) {
    Tensor tensor{entry["name"].text(), entry["dtype"].text(), {}};
    for (const Json& size : entry["shape"].items()) {
      tensor.shape.push_back(size.kind() == Json::Kind::text ? -1 : size.integer());
    }
    out.push_back(std::move(tensor));
  }
  return out;
}

inline Size size(const Json& pair) {
  if (pair.items().size() != 2) throw Error("manifest-invalid", "a size of the manifest is no height and width");
  return {pair.items()[0].integer(), pair.items()[1].integer()};
}

inline Frames frames(const Json& frames) {
  if (frames["sizes"].is_null()) {
    throw Error("engine-graph", "the engine takes frames of a range of sizes; build one for frames of one size");
  }
  const auto& sizes = frames["sizes"].items();
  if (sizes.size() != 2) throw Error("manifest-invalid", "the manifest's frames have no two sizes");
  Frames out{frames["pixels"].text(), {size(sizes[0]), size(sizes[1])}};
  for (const Size& each : out.sizes) {
    if (each.height < 1 || each.width < 1 || each.height > 1 << 16 || each.width > 1 << 16) {
      throw Error("manifest-invalid", "the manifest's frames are of no size of an image");
    }
  }
  return out;
}

inline std::string read_file(const std::string& path, const char* code) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw Error(code, "'" + path + "' cannot be read");
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace detail

// Reads a manifest's text. Throws Error manifest-invalid, manifest-schema.
inline Manifest parse_manifest(const std::string& text) {
  const Json root = Json::parse(text);
  const auto schema = root["schema"].integer();
  if (schema != 1 && schema != 2) throw Error("manifest-schema", "the manifest is of another schema than 1 and 2");
  const std::string backend = schema == 1 ? "flavor" : "backend";  // its name in schema 1
  const Json &input = root["input"], &portability = root["portability"], &matching = root["matching"];
  Manifest out;
  out.model = root["model"].text();
  out.precision = root["precision"].text();
  out.backend = root[backend].text();
  out.backend_version = root[backend + "_version"].text();
  for (const Json& entry : portability["compute_capabilities"].items()) {
    out.compute_capabilities.push_back(entry.text());
  }
  out.newer_gpus = portability["newer_gpus"].boolean();
  out.version_rule = portability["version"].text();
  out.engine_sha256 = root["engine_sha256"].text();
  out.engine_bytes = root["engine_bytes"].integer();
  out.inputs = detail::tensors(root["inputs"]);
  out.outputs = detail::tensors(root["outputs"]);
  out.channels = input["channels"].integer();
  out.divisor = input["divisor"].integer();
  out.batch = input["batch"].integer();
  out.max_matches = matching["max_matches"].integer();
  out.default_score = matching["default_score"].number();
  out.coarse = !input["coarse"].is_null();
  if (input.has("frames") && !input["frames"].is_null()) out.frames = detail::frames(input["frames"]);
  if (input["profile"].is_null()) {
    out.size = Size{input["height"].integer(), input["width"].integer()};
    out.best = *out.size;
  } else {
    out.best = detail::size(input["profile"]["optimum"]);
    out.smallest_largest = {detail::size(input["profile"]["minimum"]), detail::size(input["profile"]["maximum"])};
  }
  if (root.has("self_test") && !root["self_test"].is_null()) out.self_test = parse_self_test(root["self_test"]);
  return out;
}

// An engine's bytes and its manifest, which fit each other.
struct EngineFile {
  std::string bytes;
  Manifest manifest;
};

// Reads PATH and PATH.json. Throws Error manifest-missing, manifest-*, engine-missing, engine-digest.
inline EngineFile read_engine(const std::string& path) {
  EngineFile file;
  file.manifest = parse_manifest(detail::read_file(path + ".json", "manifest-missing"));
  file.bytes = detail::read_file(path, "engine-missing");
  const auto* data = reinterpret_cast<const std::uint8_t*>(file.bytes.data());
  if (static_cast<std::int64_t>(file.bytes.size()) != file.manifest.engine_bytes ||
      sha256(data, file.bytes.size()) != file.manifest.engine_sha256) {
    throw Error("engine-digest", "'" + path + "' is not the file that its manifest describes");
  }
  return file;
}

namespace detail {

// The numbers of "10.9.0.34".
inline std::vector<int> numbers(const std::string& version) {
  std::vector<int> out;
  std::size_t at = 0;
  while (at < version.size()) {
    const std::size_t dot = std::min(version.find('.', at), version.size());
    const std::string part = version.substr(at, dot - at);
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos) out.push_back(std::stoi(part));
    at = dot + 1;
  }
  return out;
}

}  // namespace detail

// Throws Error engine-backend, engine-version, engine-gpu where the engine cannot run here.
// capability: of the GPU, as "8.9".
inline void require_fit(const Manifest& manifest, const std::string& backend, const std::string& version,
                        const std::string& capability) {
  if (manifest.backend != backend) {
    throw Error("engine-backend", "the engine is for backend " + manifest.backend + ", this program for " + backend);
  }
  const bool same = manifest.backend_version == version;
  const bool later = detail::numbers(version) >= detail::numbers(manifest.backend_version);
  if (manifest.version_rule != "any" && !same && !(manifest.version_rule == "newer" && later)) {
    throw Error("engine-version", "the engine's backend_version is " + manifest.backend_version + ", here is " + version);
  }
  bool listed = manifest.compute_capabilities.empty();
  std::vector<int> lowest;
  for (const std::string& entry : manifest.compute_capabilities) {
    listed = listed || entry == capability;
    const std::vector<int> value = detail::numbers(entry);
    if (lowest.empty() || value < lowest) lowest = value;
  }
  if (!listed && !(manifest.newer_gpus && detail::numbers(capability) > lowest)) {
    throw Error("engine-gpu", "the engine was built for other GPUs than this one of compute capability " + capability);
  }
}

}  // namespace matchrt
