// What tests ask of the header beside examples/cpp/match_engine.cpp.
//   view H W C SEED ROWS COLUMNS CONTRAST   the image's bytes on standard output
//   compare MANIFEST TABLE                  figures and failures for a file of float64 rows of five
//   time ENGINE                             milliseconds for the made pair, and for the comparison with itself
//   unproven ENGINE                         opens without the self-test, then runs it and prints the failures
//   moved ENGINE                            moves it about, then matches and prints the error's code
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "matchrt/engine.h"

namespace {

int view(char** values) {
  std::int64_t numbers[7];
  for (int i = 0; i < 7; ++i) numbers[i] = std::atoll(values[i]);
  const auto image =
      matchrt::self_test_view(numbers[0], numbers[1], numbers[2], static_cast<std::uint32_t>(numbers[3]),
                              {numbers[4], numbers[5]}, static_cast<std::int32_t>(numbers[6]));
  return std::fwrite(image.data(), 1, image.size(), stdout) == image.size() ? 0 : 1;
}

int compare(char** values) {
  const matchrt::Manifest manifest = matchrt::parse_manifest(matchrt::detail::read_file(values[0], "manifest-missing"));
  const std::string bytes = matchrt::detail::read_file(values[1], "image-missing");
  std::vector<matchrt::MatchRow> rows(bytes.size() / sizeof(matchrt::MatchRow));
  if (!rows.empty()) std::memcpy(rows.data(), bytes.data(), bytes.size());
  const matchrt::SelfTestResult found = matchrt::compare_answer(*manifest.self_test, rows);
  std::printf("%zu %.17g %.17g %.17g\n%s\n", found.compared, found.within, found.pixels, found.score,
              found.failures(*manifest.self_test).c_str());
  return 0;
}

int time(char** values) {
  using clock = std::chrono::steady_clock;
  const matchrt::Manifest manifest = matchrt::parse_manifest(matchrt::detail::read_file(values[0], "manifest-missing"));
  const matchrt::SelfTest& test = *manifest.self_test;
  const auto [height, width] = manifest.best;
  const auto start = clock::now();
  std::size_t sum = 0;
  for (const auto& [shift, contrast] : {std::pair{std::array<std::int64_t, 2>{0, 0}, 256}, std::pair{test.shift, test.contrast}}) {
    sum += matchrt::self_test_view(height, width, manifest.channels, test.seed, shift, contrast)[0];
  }
  const auto made = clock::now();
  std::vector<matchrt::MatchRow> rows;
  for (int i = 0; i < 16; ++i) rows.insert(rows.end(), test.answer.begin(), test.answer.end());
  sum += matchrt::compare_answer(test, rows).compared;
  const auto compared = clock::now();
  const std::chrono::duration<double, std::milli> pair = made - start, comparison = compared - made;
  std::printf("%.3f %.3f (%zu)\n", pair.count(), comparison.count(), sum);
  return 0;
}

int unproven(char** values) {
  matchrt::EngineOptions options;
  options.self_test = false;
  matchrt::Engine engine(values[0], options);
  const auto found = engine.self_test();
  std::printf("%s\n", found ? found->failures(*engine.manifest().self_test).c_str() : "none");
  return 0;
}

int moved(char** values) {
  matchrt::EngineOptions options;
  options.self_test = false;
  std::vector<matchrt::Engine> engines;
  for (int i = 0; i < 3; ++i) engines.emplace_back(values[0], options);
  engines.reserve(64);           // moves all
  engines.erase(engines.begin());  // assigns
  matchrt::Engine last = std::move(engines[0]);
  engines[0] = std::move(engines[1]);
  std::vector<std::uint8_t> grey(48 * 64);
  for (matchrt::Engine* engine : {&last, &engines[0], &engines[1]}) {
    try {
      engine->match({grey.data(), 48, 64, 1}, {grey.data(), 48, 64, 1});
      std::printf("matched\n");
    } catch (const matchrt::Error& error) {
      std::printf("%s: %s\n", error.code.c_str(), error.what());
    }
  }
  return 0;
}

}  // namespace

int main(int count, char** values) {
  const std::string what = count > 1 ? values[1] : "";
  try {
    if (what == "view" && count == 9) return view(values + 2);
    if (what == "compare" && count == 4) return compare(values + 2);
    if (what == "time" && count == 3) return time(values + 2);
    if (what == "unproven" && count == 3) return unproven(values + 2);
    if (what == "moved" && count == 3) return moved(values + 2);
  } catch (const matchrt::Error& error) {
    std::cerr << "error[" << error.code << "]: " << error.what() << '\n';
    return 1;
  }
  return 2;
}
