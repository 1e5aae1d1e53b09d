// Reads a manifest. It may be a stranger's, so every field is checked before anything uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "matchrt/contract.h"
#include "matchrt/error.h"
#include "matchrt/fields.h"
#include "matchrt/json.h"
#include "matchrt/manifest.h"
#include "matchrt/self_test.h"

namespace matchrt {

namespace detail {

inline constexpr std::int64_t largest_side = 1 << 16;
inline constexpr std::size_t most_manifest_bytes = std::size_t{16} << 20;

inline std::vector<Tensor> tensors(const Field& list) {
  std::vector<Tensor> out;
  for (const Field& entry : list.items()) {
    entry.require_fields({"name", "dtype", "shape"}, {});
    Tensor tensor{entry["name"].identifier(), entry["dtype"].identifier(), {}};
    const auto sides = entry["shape"].items();
    entry["shape"].require(sides.size() <= 8, "at most 8 dimensions");
    for (const Field& side : sides) {
      if (!side.is_text()) {
        tensor.shape.push_back(side.whole(1, std::int64_t{1} << 31));
        continue;
      }
      const std::string& name = side.raw_text();
      side.require(!name.empty() && name.size() <= 100 && consists_of(name, "_?+*/(). -"), "a number or a name");
      tensor.shape.push_back(name == "pairs" ? any_pairs : varying);
    }
    for (const Tensor& other : out) list.require(other.name != tensor.name, "a list without a tensor twice");
    out.push_back(std::move(tensor));
  }
  return out;
}

// Height and width in pixels.
inline Size size(const Field& pair, std::int64_t least = 1) {
  const auto sides = pair.items();
  pair.require(sides.size() == 2, "a height and a width");
  return {sides[0].whole(least, largest_side), sides[1].whole(least, largest_side)};
}

inline Frames frames(const Field& frames) {
  constexpr std::int64_t least = 16;
  frames.require_fields({"pixels"}, {"sizes", "minimum", "maximum"});
  Frames out{frames["pixels"].choice({"rgb", "bgr", "grey", "rgba", "nv12"}), {}, frames["sizes"].is_null()};
  if (out.range) {
    out.sizes = {size(frames["minimum"], least), size(frames["maximum"], least)};
    const auto& [low, high] = out.sizes;
    frames.require(low.height <= high.height && low.width <= high.width, "a minimum and a maximum in this order");
  } else {
    frames.require(frames["minimum"].is_null() && frames["maximum"].is_null(), "sizes, or a minimum and a maximum");
    const auto sizes = frames["sizes"].items();
    frames["sizes"].require(sizes.size() == 2, "the sizes of both frames");
    out.sizes = {size(sizes[0], least), size(sizes[1], least)};
  }
  for (const Size& each : out.sizes) {
    frames.require(out.pixels != "nv12" || (each.height % 2 == 0 && each.width % 2 == 0), "of even sides");
  }
  return out;
}

inline void read_profile(const Field& profile, Manifest& out) {
  profile.require_fields({"minimum", "optimum", "maximum"}, {});
  const Size low = size(profile["minimum"]), best = size(profile["optimum"]), high = size(profile["maximum"]);
  const bool ordered = low.height <= best.height && best.height <= high.height && low.width <= best.width &&
                       best.width <= high.width;
  profile.require(ordered, "a minimum, an optimum and a maximum in this order");
  for (const Size& each : {low, best, high}) {
    profile.require(each.height % out.divisor == 0 && each.width % out.divisor == 0, "of multiples of the divisor");
  }
  out.best = best;
  out.smallest_largest = {low, high};
}

inline void read_input(const Field& input, Manifest& out) {
  input.require_fields({"channels", "divisor", "fitting", "kernel"},
                       {"batch", "height", "width", "profile", "coarse", "any_batch", "frames"});
  out.channels = input["channels"].whole(1, 3);
  input["channels"].require(out.channels != 2, "1 or 3");
  out.divisor = input["divisor"].whole(1, 1024);
  input["fitting"].choice({"letterbox", "aspect", "pad-square", "square", "stretch"});
  out.kernel = input["kernel"].choice({"area-linear", "lanczos", "bicubic", "bicubic-aliased", "bilinear-aliased"});
  if (input.has("batch")) out.batch = input["batch"].whole(1, 1024);
  if (input.has("any_batch")) out.any_batch = input["any_batch"].boolean();
  if (!input["coarse"].is_null()) out.coarse = size(input["coarse"]);
  if (!input["frames"].is_null()) out.frames = frames(input["frames"]);
  const bool fixed = !input["height"].is_null(), dynamic = !input["profile"].is_null();
  input.require(fixed == !input["width"].is_null() && fixed != dynamic, "either a height and a width, or a profile");
  if (dynamic) {
    read_profile(input["profile"], out);
  } else {
    out.best = {input["height"].whole(1, largest_side), input["width"].whole(1, largest_side)};
    input.require(out.best.height % out.divisor == 0 && out.best.width % out.divisor == 0, "of multiples of the divisor");
    out.size = out.best;
  }
  input.require(!(out.frames && dynamic), "without a profile where there are frames");
  input.require(!out.any_batch || (out.batch > 1 && fixed && !out.frames),
                "a static one of images with a batch above 1, if any_batch is true");
}

inline void read_matching(const Field& matching, Manifest& out) {
  matching.require_fields({"max_matches", "threshold", "border", "mutual", "coarse_stride"}, {"default_score"});
  out.max_matches = matching["max_matches"].whole(1, largest_side);
  matching["threshold"].share();
  matching["border"].whole(0, 1024);
  matching["mutual"].boolean();
  out.coarse_stride = matching["coarse_stride"].whole(1, 1024);
  if (matching.has("default_score")) out.default_score = matching["default_score"].share();
  matching.require(out.divisor % out.coarse_stride == 0, "of a stride of which the input's divisor is a multiple");
}

inline void read_portability(const Field& portability, Manifest& out) {
  portability.require_fields({}, {"compute_capabilities", "newer_gpus", "version"});
  if (portability.has("compute_capabilities")) {
    for (const Field& entry : portability["compute_capabilities"].items()) {
      const std::string& text = entry.raw_text();
      const std::size_t dot = text.find('.');
      const bool fits = dot != std::string::npos && dot >= 1 && dot <= 3 && text.size() - dot >= 2 &&
                        text.size() - dot <= 4 && consists_of(text.substr(0, dot) + text.substr(dot + 1), "", false);
      entry.require(fits, "a compute capability such as 8.9");
      out.compute_capabilities.push_back(text);
    }
  }
  if (portability.has("newer_gpus")) out.newer_gpus = portability["newer_gpus"].boolean();
  if (portability.has("version")) out.version_rule = portability["version"].choice({"exact", "newer", "any"});
}

// What only people read is checked too, so that a manifest that is read here is read everywhere.
inline void check_texts(const Field& root) {
  const Field source = root["source"];
  source.require_fields({"name", "tensors_sha256", "licence", "origin"}, {"allowed_missing"});
  for (const char* name : {"name", "licence", "origin"}) source[name].text();
  source["tensors_sha256"].digest();
  if (source.has("allowed_missing")) {
    for (const Field& entry : source["allowed_missing"].items()) entry.text();
  }
  root["family"].name();
  root["matchrt_version"].name();
  root["onnx_sha256"].digest();
  if (root.has("judged")) root["judged"].text();
  if (root.has("build_key")) {
    const std::string& key = root["build_key"].raw_text();
    root["build_key"].require(key.size() <= 64 && consists_of(key, ""), "a digest");
  }
  if (root.has("passes")) {
    for (const Field& pass : root["passes"].items()) {
      pass.require_fields({"name", "changed", "summary"}, {});
      pass["name"].text();
      pass["changed"].boolean();
      pass["summary"].text();
    }
  }
  if (root.has("checks")) {
    for (const auto& [name, figure] : root["checks"].entries()) {
      figure.require_name(name);
      figure.number();
    }
  }
  if (root.has("options")) {
    for (const auto& [name, value] : root["options"].entries()) {
      value.require_name(name);
      value.text();
    }
  }
}

}  // namespace detail

// Reads a manifest's text, by the rules of docs/engine-contract.md: what matchrt's Python reader refuses is refused here,
// and nothing else. Throws Error manifest-invalid, manifest-schema.
inline Manifest parse_manifest(const std::string& text) {
  if (text.size() > detail::most_manifest_bytes) throw Error("manifest-invalid", "the manifest has more than 16 MiB");
  const Json json = Json::parse(text);
  const Json* schema = json.find("schema");
  const bool old = schema != nullptr && schema->kind() == Json::Kind::whole && schema->whole() == 1;
  if (!old && (schema == nullptr || schema->kind() != Json::Kind::whole || schema->whole() != 2)) {
    throw Error("manifest-schema", "the manifest is of another schema than 1 and 2");
  }
  const char* const backend = old ? "flavor" : "backend";  // its names in schema 1
  const char* const backend_version = old ? "flavor_version" : "backend_version";
  const detail::Field root(json, "manifest");
  root.require_fields({"model", "family", "precision", backend, backend_version, "portability", "source", "onnx_sha256",
                       "engine_sha256", "engine_bytes", "inputs", "outputs", "input", "matching", "matchrt_version",
                       "schema"},
                      {"passes", "checks", "judged", "self_test", "options", "build_key"});
  Manifest out;
  out.model = root["model"].name();
  root["model"].require(out.model != "weights", "another name than weights");
  out.precision = root["precision"].choice({"fp32", "fp16", "int8", "fp8"});
  out.backend = root[backend].name();
  out.backend_version = root[backend_version].name();
  detail::read_portability(root["portability"], out);
  out.engine_sha256 = root["engine_sha256"].digest();
  out.engine_bytes = root["engine_bytes"].whole(0, std::int64_t{1} << 50);
  out.inputs = detail::tensors(root["inputs"]);
  out.outputs = detail::tensors(root["outputs"]);
  detail::read_input(root["input"], out);
  detail::read_matching(root["matching"], out);
  detail::check_texts(root);
  if (!root["self_test"].is_null()) out.self_test = parse_self_test(root["self_test"]);
  detail::check_contract(out);
  return out;
}

}  // namespace matchrt
