// What the JSON beside an engine says (docs/engine-contract.md).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "matchrt/self_test.h"

namespace matchrt {

struct Size {
  std::int64_t height;
  std::int64_t width;
};

// Sides that vary: of a tensor, and its number of pairs in an engine that takes any.
inline constexpr std::int64_t varying = -1, any_pairs = -2;

// A tensor of the engine.
struct Tensor {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
};

// What an engine takes in place of images of its own size, if it resizes them itself (docs/frames.md).
struct Frames {
  std::string pixels;         // rgb, bgr, grey, rgba, nv12
  std::array<Size, 2> sizes;  // of frame 0 and frame 1; of a range, the smallest and the largest
  bool range = false;         // it takes frames of any size of a range
};

struct Manifest {
  std::string model, precision, backend, backend_version;
  std::vector<std::string> compute_capabilities;  // of the GPUs it was built for, as "8.9"
  bool newer_gpus = false;
  std::string version_rule = "any";  // exact, newer, any
  std::string engine_sha256;
  std::int64_t engine_bytes = 0;
  std::vector<Tensor> inputs, outputs;
  std::int64_t channels = 0, divisor = 0, batch = 1, max_matches = 0, coarse_stride = 0;
  bool any_batch = false;                              // it takes any number of pairs up to `batch`
  std::optional<Size> size;                            // of a static engine's images
  std::optional<std::pair<Size, Size>> smallest_largest;  // of a dynamic engine's
  Size best{};                                         // the size that the engine is fastest at
  std::optional<Size> coarse;                          // of the smaller copies of the images that it also takes
  std::string kernel;                                  // the filter of the resize
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

}  // namespace matchrt
