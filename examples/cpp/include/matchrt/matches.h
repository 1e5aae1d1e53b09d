// What goes in and what comes out, of an engine (engine.h) as of a service's client (client.h).
#pragma once

#include <cstdint>
#include <vector>

namespace matchrt {

struct Point {
  float x;
  float y;
};

// Matches, best first. Points are pixels of the images as given: x right, y down, the centre of the top-left pixel is
// (0, 0); of files, which only a service takes, turned as their EXIF orientation says.
struct Matches {
  std::vector<Point> keypoints0;
  std::vector<Point> keypoints1;
  std::vector<float> scores;
};

// An image in memory as cameras and OpenCV lay it out: rows of `channels` bytes a pixel, 1 (grey) or 3 (RGB), no gaps.
// An engine takes as many channels as it was built for.
struct ImageView {
  const std::uint8_t* data;
  std::int64_t height;
  std::int64_t width;
  std::int64_t channels;
};

}  // namespace matchrt
