// What tests ask of the header. It is one program for each version of the mock, because compiling takes most of the time.
//   match ENGINE RAW0 RAW1 HEIGHT WIDTH     examples/cpp/match_engine.cpp as it is
//   view H W C SEED ROWS COLUMNS CONTRAST   the image's bytes on standard output
//   compare MANIFEST TABLE                  figures and failures for a file of float64 rows of five
//   time ENGINE                             milliseconds for the made pair, and for the comparison with itself
//   unproven ENGINE                         opens without the self-test, then runs it and prints the failures
//   moved ENGINE                            moves it about, then matches and prints the error's code
//   many ENGINE ENGINE                      the first one is closed, and the second one's run fails
//   refused ENGINE                          images that are refused are freed at once, and the engine is used again
//   manifests FILE                          what becomes of manifests: of each the number of its bytes in a line, then they
//   decimals MANIFEST                       reads it where numbers have a decimal comma, and prints its threshold
#include <chrono>
#include <clocale>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <locale>
#include <memory>
#include <string>
#include <vector>

#include "matchrt/engine.h"

#define main match_engine
#include "match_engine.cpp"
#undef main

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

void match_and_print(matchrt::Engine& engine, const matchrt::ImageView& image0, const matchrt::ImageView& image1) {
  try {
    std::printf("%zu matches\n", engine.match(image0, image1).scores.size());
  } catch (const matchrt::Error& error) {
    std::printf("%s: %s\n", error.code.c_str(), error.what());
  }
}

int many(char** values) {
  matchrt::EngineOptions options;
  options.self_test = false;
  auto first = std::make_unique<matchrt::Engine>(values[0], options);
  // Closed after `main`, as engines of global objects are.
  static matchrt::Engine second(values[1], options);
  first.reset();
  const std::vector<std::uint8_t> grey(48 * 64);
  match_and_print(second, {grey.data(), 48, 64, 1}, {grey.data(), 48, 64, 1});
  return 0;
}

int refused(char** values) {
  matchrt::Engine engine(values[0]);
  for (const std::int64_t height : {40, 41, 48}) {
    // Blocks of their own, which are freed before the engine is used again.
    const std::vector<std::uint8_t> good(48 * 64, 7), other(static_cast<std::size_t>(height) * 64, 9);
    match_and_print(engine, {good.data(), 48, 64, 1}, {other.data(), height, 64, 1});
    match_and_print(engine, {good.data(), 48, 64, 1}, {nullptr, height, 64, 1});
  }
  return 0;
}

int manifests(char** values) {
  const std::string list = matchrt::detail::read_file(values[0], "image-missing");
  for (std::size_t at = 0; at < list.size();) {
    const std::size_t line = list.find('\n', at), size = std::stoul(list.substr(at, line - at));
    try {
      matchrt::parse_manifest(list.substr(line + 1, size));
      std::printf("fits\n");
    } catch (const matchrt::Error& error) {
      std::printf("%s %s\n", error.code.c_str(), error.what());
    }
    at = line + 1 + size;
  }
  return 0;
}

struct Comma : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

int decimals(char** values) {
  std::locale::global(std::locale(std::locale(), new Comma));
  std::setlocale(LC_ALL, "de_DE.UTF-8");  // if this machine has it
  const auto manifest = matchrt::parse_manifest(matchrt::detail::read_file(values[0], "manifest-missing"));
  std::printf("%d\n", static_cast<int>(1000 * manifest.default_score));
  return 0;
}

}  // namespace

int main(int count, char** values) {
  const std::string what = count > 1 ? values[1] : "";
  if (what == "match") return match_engine(count - 1, values + 1);
  try {
    if (what == "view" && count == 9) return view(values + 2);
    if (what == "compare" && count == 4) return compare(values + 2);
    if (what == "time" && count == 3) return time(values + 2);
    if (what == "unproven" && count == 3) return unproven(values + 2);
    if (what == "moved" && count == 3) return moved(values + 2);
    if (what == "many" && count == 4) return many(values + 2);
    if (what == "refused" && count == 3) return refused(values + 2);
    if (what == "manifests" && count == 3) return manifests(values + 2);
    if (what == "decimals" && count == 3) return decimals(values + 2);
  } catch (const matchrt::Error& error) {
    std::cerr << "error[" << error.code << "]: " << error.what() << '\n';
    return 1;
  }
  return 2;
}
