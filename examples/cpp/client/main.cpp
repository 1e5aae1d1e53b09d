// matchrt_client HOST:PORT IMAGE0 IMAGE1 [--raw HEIGHT WIDTH CHANNELS] [--model NAME] [--min-score S]
//
// A token, where the service asks for one, comes from the environment: MATCHRT_SERVE_TOKEN.
// Prints one match a line: x0 y0 x1 y1 score, with as many digits as float needs to be read back exactly.
// --raw: the files hold pixels and nothing else. Exit codes: 0 matched, 1 the service refused, 2 wrong arguments.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "client.h"

namespace {

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::invalid_argument("cannot read '" + path + "'");
  return {std::istreambuf_iterator<char>(stream), {}};
}

struct Arguments {
  std::vector<std::string> places;
  std::vector<std::int64_t> raw;
  matchrt::ClientOptions options;
};

Arguments parse(int count, char** values) {
  Arguments arguments;
  if (const char* token = std::getenv("MATCHRT_SERVE_TOKEN")) arguments.options.token = token;
  int at = 1;
  const auto next = [&] {
    if (++at >= count) throw std::invalid_argument("an option lacks its value");
    return std::string(values[at]);
  };
  for (; at < count; ++at) {
    const std::string word = values[at];
    if (word == "--raw") {
      for (int i = 0; i < 3; ++i) arguments.raw.push_back(std::stoll(next()));
    } else if (word == "--model") {
      arguments.options.model = next();
    } else if (word == "--min-score") {
      arguments.options.min_score = std::stod(next());
    } else {
      arguments.places.push_back(word);
    }
  }
  if (arguments.places.size() != 3) throw std::invalid_argument("give HOST:PORT IMAGE0 IMAGE1");
  return arguments;
}

matchrt::ImageView view(const std::string& pixels, const std::vector<std::int64_t>& shape) {
  if (static_cast<std::int64_t>(pixels.size()) != shape[0] * shape[1] * shape[2]) {
    throw std::invalid_argument("a file's size is not HEIGHT * WIDTH * CHANNELS");
  }
  return {reinterpret_cast<const std::uint8_t*>(pixels.data()), shape[0], shape[1], shape[2]};
}

}  // namespace

int main(int count, char** values) {
  try {
    const Arguments arguments = parse(count, values);
    const std::string file0 = read_file(arguments.places[1]);
    const std::string file1 = read_file(arguments.places[2]);
    const matchrt::Client client(arguments.places[0], arguments.options);
    const matchrt::Matches found = arguments.raw.empty()
                                       ? client.match_files(file0, file1)
                                       : client.match(view(file0, arguments.raw), view(file1, arguments.raw));
    for (std::size_t i = 0; i < found.scores.size(); ++i) {
      std::printf("%.9g %.9g %.9g %.9g %.9g\n", found.keypoints0[i].x, found.keypoints0[i].y, found.keypoints1[i].x,
                  found.keypoints1[i].y, found.scores[i]);
    }
    return 0;
  } catch (const matchrt::ClientError& error) {
    std::cerr << "error[" << error.code << "]: " << error.what() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 2;
  }
}
