// An engine's self-test (docs/engine-contract.md): a made pair of images, and how far the engine's answer may be from the
// stored one. src/matchrt/runtime/self_test is the other implementation; both make the same bytes and the same figures.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "matchrt/error.h"
#include "matchrt/fields.h"

namespace matchrt {

// x0, y0, x1, y1 in pixels of the engine's input, and the score.
using MatchRow = std::array<double, 5>;

// The manifest's `self_test`.
struct SelfTest {
  std::uint32_t seed = 0;
  std::array<std::int64_t, 2> shift{};  // rows, columns
  std::int32_t contrast = 0;
  bool warp = false;  // how answers are compared: as a dense warp's, or as matches
  std::vector<MatchRow> answer;
  double within = 1, pixels = 0, score = 0;  // the limits
};

// How an answer differs from the stored one.
struct SelfTestResult {
  std::size_t compared = 0;  // matches that could be compared
  double within = 0;         // share (0..1) of them that the engine has within 1 px
  double pixels = std::numeric_limits<double>::infinity();  // median distance of those
  double score = std::numeric_limits<double>::infinity();   // mean difference of their scores

  // What is beyond the limits, in words; empty if the engine passes.
  std::string failures(const SelfTest& test) const;
};

namespace detail {

inline constexpr std::size_t enough_compared = 20;
inline constexpr double on_pixel = 0.05, same_pixel = 0.3;

inline std::string figure(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

// The value of a point of the noise's grid, 0..255. Numbers below zero wrap around.
inline std::int32_t grid_value(std::int64_t row, std::int64_t column, std::uint32_t seed) {
  std::uint32_t mixed = static_cast<std::uint32_t>(row) * 0x9E3779B1U +
                        static_cast<std::uint32_t>(column) * 0x85EBCA77U + seed * 0xC2B2AE3DU;
  mixed ^= mixed >> 15;
  mixed *= 0x2C1B3C6DU;
  mixed ^= mixed >> 12;
  mixed *= 0x297A2D39U;
  mixed ^= mixed >> 15;
  return static_cast<std::int32_t>(mixed >> 24);
}

// Adds one layer of noise: a grid of values, 2^power pixels apart, and linear between them.
inline void add_layer(std::vector<std::int32_t>& total, std::int64_t height, std::int64_t width, std::uint32_t seed,
                      const std::array<std::int64_t, 2>& shift, int power, std::int32_t weight) {
  const std::int64_t step = std::int64_t{1} << power;
  const std::int64_t top = shift[0] >> power, left = shift[1] >> power;
  const std::int64_t rows = ((height - 1 + shift[0]) >> power) - top + 2;
  // The grid's rows at every pixel of a row of the image.
  std::vector<std::int32_t> lines(static_cast<std::size_t>(rows * width));
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t column = left - 1;
    std::int32_t near = 0, far = 0;
    for (std::int64_t x = 0; x < width; ++x) {
      if (const std::int64_t at = (x + shift[1]) >> power; x == 0 || at != column) {
        column = at;
        near = grid_value(top + row, column, seed);
        far = grid_value(top + row, column + 1, seed);
      }
      const auto right = static_cast<std::int32_t>((x + shift[1]) & (step - 1));
      lines[static_cast<std::size_t>(row * width + x)] =
          near * (static_cast<std::int32_t>(step) - right) + far * right;
    }
  }
  for (std::int64_t y = 0; y < height; ++y) {
    const std::int64_t row = ((y + shift[0]) >> power) - top;
    const auto down = static_cast<std::int32_t>((y + shift[0]) & (step - 1));
    const std::int32_t up = static_cast<std::int32_t>(step) - down;
    const std::int32_t* upper = &lines[static_cast<std::size_t>(row * width)];
    const std::int32_t* lower = upper + width;
    std::int32_t* into = &total[static_cast<std::size_t>(y * width)];
    for (std::int64_t x = 0; x < width; ++x) into[x] += weight * ((upper[x] * up + lower[x] * down) >> (2 * power));
  }
}

// For each row of `first`, the nearest row of `second` over `points` points, and its distance: the largest of the
// points' distances; infinite where a number is not finite, and where `second` is empty.
template <std::size_t points>
std::vector<std::pair<std::size_t, double>> nearest_rows(const std::vector<std::array<double, 2 * points>>& first,
                                                         const std::vector<std::array<double, 2 * points>>& second) {
  std::vector<std::pair<std::size_t, double>> out(first.size(), {0, std::numeric_limits<double>::infinity()});
  // The largest of the points' distances, by that measure; NaN if one is.
  const auto gap = [](const auto& a, const auto& b, auto measure) {
    double largest = 0;
    for (std::size_t p = 0; p < 2 * points; p += 2) {
      const double one = measure(a[p] - b[p], a[p + 1] - b[p + 1]);
      if (!(one <= largest)) largest = one;
      if (std::isnan(largest)) break;
    }
    return largest;
  };
  for (std::size_t i = 0; i < first.size(); ++i) {
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t j = 0; j < second.size(); ++j) {
      const double square = gap(first[i], second[j], [](double x, double y) { return x * x + y * y; });
      if (!(square < least)) continue;
      least = square;
      out[i].first = j;
    }
    // The root is taken of what was chosen only.
    if (std::isfinite(least)) {
      out[i].second = gap(first[i], second[out[i].first], [](double x, double y) { return std::hypot(x, y); });
    }
  }
  return out;
}

inline bool lies_on_pixel(double x, double y) {
  return std::abs(x - std::nearbyint(x)) < on_pixel && std::abs(y - std::nearbyint(y)) < on_pixel;
}

inline SelfTestResult figures(const std::vector<double>& distances, const std::vector<double>& scores) {
  SelfTestResult out;
  out.compared = distances.size();
  std::vector<double> near;
  double difference = 0;
  for (std::size_t i = 0; i < distances.size(); ++i) {
    if (!(distances[i] <= 1)) continue;
    near.push_back(distances[i]);
    difference += std::isnan(scores[i]) ? std::numeric_limits<double>::infinity() : scores[i];
  }
  if (near.empty()) return out;
  const auto count = static_cast<double>(near.size());
  std::sort(near.begin(), near.end());
  out.within = count / static_cast<double>(distances.size());
  out.pixels = (near[(near.size() - 1) / 2] + near[near.size() / 2]) / 2;
  out.score = difference / count;
  return out;
}

// Each expected match against the nearest actual one.
inline SelfTestResult compare_matches(const std::vector<MatchRow>& expected, const std::vector<MatchRow>& actual) {
  const auto ends = [](const std::vector<MatchRow>& rows) {
    std::vector<std::array<double, 4>> out;
    for (const MatchRow& row : rows) out.push_back({row[0], row[1], row[2], row[3]});
    return out;
  };
  std::vector<double> distances, scores;
  const auto found = nearest_rows<2>(ends(expected), ends(actual));
  for (std::size_t i = 0; i < found.size(); ++i) {
    distances.push_back(found[i].second);
    scores.push_back(actual.empty() ? 0 : std::abs(expected[i][4] - actual[found[i].first][4]));
  }
  return figures(distances, scores);
}

// The other ends of matches whose pixel both sides chose, in both directions.
inline SelfTestResult compare_warp(const std::vector<MatchRow>& expected, const std::vector<MatchRow>& actual) {
  std::vector<double> distances, scores;
  for (const std::size_t chosen : {std::size_t{0}, std::size_t{2}}) {
    const std::size_t other = 2 - chosen;
    std::vector<MatchRow> ours;
    std::vector<std::array<double, 2>> our_ends, their_ends;
    for (const MatchRow& row : expected) {
      if (!lies_on_pixel(row[chosen], row[chosen + 1])) continue;
      ours.push_back(row);
      our_ends.push_back({row[chosen], row[chosen + 1]});
    }
    for (const MatchRow& row : actual) their_ends.push_back({row[chosen], row[chosen + 1]});
    const auto found = nearest_rows<1>(our_ends, their_ends);
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (!(found[i].second < same_pixel)) continue;
      const MatchRow& partner = actual[found[i].first];
      distances.push_back(std::hypot(ours[i][other] - partner[other], ours[i][other + 1] - partner[other + 1]));
      scores.push_back(std::abs(ours[i][4] - partner[4]));
    }
  }
  return figures(distances, scores);
}

}  // namespace detail

// An image of noise, `channels` bytes a pixel in rows. shift: pixel (y, x) is point (y + rows, x + columns) of the noise.
// contrast: in 256ths; the distance of each value from 128 is multiplied by it.
inline std::vector<std::uint8_t> self_test_view(std::int64_t height, std::int64_t width, std::int64_t channels,
                                                std::uint32_t seed, const std::array<std::int64_t, 2>& shift,
                                                std::int32_t contrast) {
  std::vector<std::uint8_t> image(static_cast<std::size_t>(height * width * channels));
  std::vector<std::int32_t> noise;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    noise.assign(static_cast<std::size_t>(height * width), 0);
    for (const auto& [power, weight] : {std::pair{2, 2}, std::pair{3, 3}, std::pair{4, 4}, std::pair{5, 6}}) {
      const std::uint32_t own = seed + static_cast<std::uint32_t>(channel) + 1000U * static_cast<std::uint32_t>(power);
      detail::add_layer(noise, height, width, own, shift, power, weight);
    }
    for (std::size_t i = 0; i < noise.size(); ++i) {
      // Shifts round down, also below zero.
      const std::int32_t value = 128 + ((((noise[i] - 1912) >> 3) * contrast) >> 8);
      image[i * static_cast<std::size_t>(channels) + static_cast<std::size_t>(channel)] =
          static_cast<std::uint8_t>(std::clamp(value, 0, 255));
    }
  }
  return image;
}

// The table of five columns in a base64 text of little-endian float32. Throws Error manifest-invalid.
inline std::vector<MatchRow> decode_answer(const std::string& text) {
  const auto fail = [](const char* why) -> Error {
    return {"manifest-invalid", std::string("the self-test's answer ") + why};
  };
  static const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::size_t padding = text.size() < 2 ? 0 : static_cast<std::size_t>(text[text.size() - 1] == '=') +
                                                        static_cast<std::size_t>(text.substr(text.size() - 2) == "==");
  std::vector<std::uint8_t> bytes;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t value = i + padding >= text.size() ? 0 : digits.find(text[i]);
    if (value == std::string::npos || text.size() % 4 != 0) throw fail("is no base64");
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    if (i % 4 != 3) continue;
    for (int shift = 16; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::uint8_t>(bits >> shift));
  }
  bytes.resize(bytes.size() - padding);
  if (bytes.size() % 20 != 0) throw fail("is no table of five columns");
  std::vector<MatchRow> rows(bytes.size() / 20);
  for (std::size_t i = 0; i < bytes.size() / 4; ++i) {
    const std::uint32_t word = bytes[4 * i] | std::uint32_t{bytes[4 * i + 1]} << 8 |
                               std::uint32_t{bytes[4 * i + 2]} << 16 | std::uint32_t{bytes[4 * i + 3]} << 24;
    float value = 0;
    std::memcpy(&value, &word, sizeof(value));
    if (!std::isfinite(value)) throw fail("has numbers that are not finite");
    rows[i / 5][i % 5] = static_cast<double>(value);
  }
  return rows;
}

// A manifest's `self_test`. Throws Error manifest-invalid.
inline SelfTest parse_self_test(const detail::Field& test) {
  const auto limit = [](const detail::Field& value) {
    const double number = value.number();
    value.require(number >= 0, "a number from 0 on");
    return number;
  };
  test.require_fields({"pair", "kind", "answer", "within", "pixels", "score"}, {});
  const detail::Field pair = test["pair"];
  pair.require_fields({"seed", "shift", "contrast"}, {});
  const auto shift = pair["shift"].items();
  pair["shift"].require(shift.size() == 2, "rows and columns");
  SelfTest out;
  out.seed = static_cast<std::uint32_t>(pair["seed"].whole(0, 0x7FFFFFFF));
  for (std::size_t i = 0; i < 2; ++i) out.shift[i] = shift[i].whole(-(1 << 20), 1 << 20);
  out.contrast = static_cast<std::int32_t>(pair["contrast"].whole(0, 1 << 16));
  out.warp = test["kind"].choice({"matches", "warp"}) == "warp";
  out.answer = decode_answer(test["answer"].raw_text());
  out.within = test["within"].share();
  test["within"].require(out.within > 0, "above 0");
  out.pixels = limit(test["pixels"]);
  out.score = limit(test["score"]);
  return out;
}

// How matches, in any order, differ from the test's answer.
inline SelfTestResult compare_answer(const SelfTest& test, const std::vector<MatchRow>& actual) {
  return test.warp ? detail::compare_warp(test.answer, actual) : detail::compare_matches(test.answer, actual);
}

inline std::string SelfTestResult::failures(const SelfTest& test) const {
  std::string out;
  const auto add = [&out](const std::string& failure) { out += (out.empty() ? "" : "; ") + failure; };
  if (compared < detail::enough_compared) {
    add("only " + std::to_string(compared) + " matches can be compared (at least " +
        std::to_string(detail::enough_compared) + " are needed)");
  }
  if (!(within >= test.within)) {
    add(detail::figure("%.1f%%", 100 * within) + " of " + std::to_string(compared) + " matches within 1 px" +
        detail::figure(" (limit %.1f%%)", 100 * test.within));
  }
  if (!(pixels <= test.pixels)) {
    add(detail::figure("median distance %.3g px", pixels) + detail::figure(" (limit %.3g)", test.pixels));
  }
  if (!(score <= test.score)) {
    add(detail::figure("mean score difference %.3g", score) + detail::figure(" (limit %.3g)", test.score));
  }
  return out;
}

}  // namespace matchrt
