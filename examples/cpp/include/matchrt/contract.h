// Whether a manifest's parts agree with one another and with the engine's contract (docs/engine-contract.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "matchrt/error.h"
#include "matchrt/manifest.h"

namespace matchrt::detail {

using Tensors = std::map<std::string, const Tensor*>;
using Sides = std::vector<std::int64_t>;

// A side that may be any number, or have any name.
inline constexpr std::int64_t any_side = 0;

// Names of tensors of which an engine has all or none.
struct Group {
  std::vector<std::string> names;
  bool needed;
};

inline Group both(const std::vector<std::string>& names, bool needed = false) {
  Group out{{}, needed};
  for (const std::string& name : names) {
    for (const char* side : {"0", "1"}) out.names.push_back(name + side);
  }
  return out;
}

// The tensors by name. They must be those of the groups.
inline Tensors grouped(const std::vector<Tensor>& tensors, const std::vector<Group>& groups, const std::string& where) {
  Tensors out;
  for (const Tensor& tensor : tensors) out[tensor.name] = &tensor;
  std::size_t known = 0;
  for (const Group& group : groups) {
    std::size_t found = 0;
    for (const std::string& name : group.names) found += out.count(name);
    if (found != group.names.size() && (group.needed || found != 0)) {
      throw Error("manifest-invalid", "manifest." + where + " lacks one of the tensors " + group.names[0] + " and so on");
    }
    known += found;
  }
  if (known != out.size()) throw Error("manifest-invalid", "manifest." + where + " has tensors that engines do not have");
  return out;
}

// Checks a tensor, if it is there.
inline void check_tensor(const Tensors& tensors, const std::string& name, const char* dtype, const Sides& shape) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return;
  const Tensor& tensor = *found->second;
  bool fits = tensor.dtype == dtype && tensor.shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] == any_side || shape[i] == tensor.shape[i];
  if (!fits) throw Error("manifest-invalid", "manifest: " + name + " has another type or shape than the other fields say");
}

inline void require_agreement(bool fits, const char* what) {
  if (!fits) throw Error("manifest-invalid", std::string("manifest.input contradicts the inputs ") + what);
}

inline void check_frames(const Tensors& inputs, const Manifest& manifest) {
  const Frames& frames = *manifest.frames;
  for (std::size_t i = 0; i < 2; ++i) {
    Sides shape{manifest.batch, manifest.image_rows(frames.sizes[i].height), frames.sizes[i].width,
                manifest.image_channels()};
    if (frames.range) shape[1] = shape[2] = any_side;
    check_tensor(inputs, "frame" + std::to_string(i), "uint8", shape);
  }
  const bool two_steps = manifest.kernel == "area-linear";  // whose matrix is two below one another
  if (frames.range) {
    require_agreement((inputs.count("rounding0") > 0) == two_steps, "rounding0 and rounding1");
    require_agreement((inputs.count("coarse_rows0") > 0) == manifest.coarse.has_value(), "coarse_rows0 and so on");
  }
  const Size fine = manifest.best, coarse = manifest.coarse.value_or(fine);
  for (const std::string side : {"0", "1"}) {
    check_tensor(inputs, "rows" + side, "float32", {fine.height * (two_steps ? 2 : 1), any_side});
    check_tensor(inputs, "columns" + side, "float32", {any_side, fine.width});
    check_tensor(inputs, "rounding" + side, "float32", {3});
    check_tensor(inputs, "scale" + side, "float32", {2});
    check_tensor(inputs, "coarse_rows" + side, "float32", {coarse.height * (two_steps ? 2 : 1), any_side});
    check_tensor(inputs, "coarse_columns" + side, "float32", {any_side, coarse.width});
    check_tensor(inputs, "coarse_rounding" + side, "float32", {3});
  }
}

inline void check_images(const Tensors& inputs, const Manifest& manifest, std::int64_t pairs) {
  require_agreement((inputs.count("coarse0") > 0) == manifest.coarse.has_value(), "coarse0 and coarse1");
  require_agreement(inputs.count("size0") == 0 || manifest.size.has_value(), "size0 and size1");
  const Size size = manifest.size.value_or(Size{any_side, any_side}), coarse = manifest.coarse.value_or(size);
  for (const std::string side : {"0", "1"}) {
    check_tensor(inputs, "image" + side, "uint8", {pairs, size.height, size.width, manifest.channels});
    check_tensor(inputs, "coarse" + side, "uint8", {pairs, coarse.height, coarse.width, manifest.channels});
  }
}

// Checks that inputs and outputs are those of the contract, with the sizes that the manifest's other parts say.
// Throws Error manifest-invalid.
inline void check_contract(const Manifest& manifest) {
  const std::int64_t pairs = manifest.any_batch ? any_pairs : manifest.batch, slots = manifest.max_matches;
  std::vector<Group> groups{both({"image"}, true), both({"size"}), both({"coarse"})};
  if (manifest.frames) groups = {both({"frame"}, true)};
  if (manifest.frames && manifest.frames->range) {
    groups = {both({"frame", "rows", "columns", "scale"}, true), both({"size"}), both({"rounding"}),
              both({"coarse_rows", "coarse_columns"}), both({"coarse_rounding"})};
  }
  const Tensors inputs = grouped(manifest.inputs, groups, "inputs");
  const Group matches{{"keypoints0", "keypoints1", "scores", "num_matches"}, true}, dense{{"warp", "certainty"}, false};
  const Tensors outputs = grouped(manifest.outputs, {matches, dense, {{"precision"}, false}}, "outputs");
  if (outputs.count("precision") && !outputs.count("warp")) {
    throw Error("manifest-invalid", "manifest.outputs has precision without warp and certainty");
  }
  if (manifest.frames) {
    check_frames(inputs, manifest);
  } else {
    check_images(inputs, manifest, pairs);
  }
  for (const char* name : {"size0", "size1"}) check_tensor(inputs, name, "int32", {pairs, 2});
  for (const char* name : {"keypoints0", "keypoints1"}) check_tensor(outputs, name, "float32", {pairs, slots, 2});
  check_tensor(outputs, "scores", "float32", {pairs, slots});
  check_tensor(outputs, "num_matches", "int32", {pairs});
  check_tensor(outputs, "warp", "float32", {pairs, any_side, any_side, 4});
  check_tensor(outputs, "certainty", "float32", {pairs, any_side, any_side});
  check_tensor(outputs, "precision", "float32", {pairs, any_side, any_side, 3});
}

}  // namespace matchrt::detail
