// match_engine ENGINE RAW0 RAW1 HEIGHT WIDTH: matches two files of grey or RGB pixels on this machine's GPU.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "matchrt/engine.h"

int main(int count, char** values) {
  if (count != 6) {
    std::cerr << "match_engine ENGINE RAW0 RAW1 HEIGHT WIDTH\n";
    return 2;
  }
  try {
    matchrt::Engine engine(values[1]);
    const std::int64_t height = std::atoll(values[4]), width = std::atoll(values[5]);
    const matchrt::Manifest& manifest = engine.manifest();
    const std::int64_t channels = manifest.image_channels();
    std::string pixels[2];
    matchrt::ImageView images[2];
    for (int i = 0; i < 2; ++i) {
      pixels[i] = matchrt::detail::read_file(values[2 + i], "image-missing");
      if (static_cast<std::int64_t>(pixels[i].size()) != manifest.image_rows(height) * width * channels) {
        throw matchrt::Error("image-format", "a file's size is not HEIGHT * WIDTH * the engine's channels");
      }
      images[i] = {reinterpret_cast<const std::uint8_t*>(pixels[i].data()), height, width, channels};
    }
    const matchrt::Matches found = engine.match(images[0], images[1]);
    for (std::size_t i = 0; i < found.scores.size(); ++i) {
      std::printf("%.9g %.9g %.9g %.9g %.9g\n", found.keypoints0[i].x, found.keypoints0[i].y, found.keypoints1[i].x,
                  found.keypoints1[i].y, found.scores[i]);
    }
    return 0;
  } catch (const matchrt::Error& error) {
    std::cerr << "error[" << error.code << "]: " << error.what() << '\n';
    return 1;
  }
}
