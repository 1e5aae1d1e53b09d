// Characters of UTF-8 texts, and which of them may be shown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace matchrt::detail {

inline void append_character(std::string& out, std::uint32_t code) {
  const auto byte = [&out](std::uint32_t value) { out.push_back(static_cast<char>(value)); };
  if (code < 0x80) return byte(code);
  if (code < 0x800) {
    byte(0xc0 | (code >> 6));
  } else if (code < 0x10000) {
    byte(0xe0 | (code >> 12));
    byte(0x80 | ((code >> 6) & 0x3f));
  } else {
    byte(0xf0 | (code >> 18));
    byte(0x80 | ((code >> 12) & 0x3f));
    byte(0x80 | ((code >> 6) & 0x3f));
  }
  byte(0x80 | (code & 0x3f));
}

// The character at byte `at`, which moves behind it; nothing if the bytes are not UTF-8. text: has more than `at` bytes.
inline std::optional<std::uint32_t> next_character(const std::string& text, std::size_t& at) {
  const auto first = static_cast<unsigned char>(text[at++]);
  if (first < 0x80) return first;
  const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  if (first < 0xc2 || first > 0xf4) return std::nullopt;
  std::uint32_t code = first & (0x3fU >> more);
  for (int i = 0; i < more; ++i, ++at) {
    if (at >= text.size() || (static_cast<unsigned char>(text[at]) & 0xc0) != 0x80) return std::nullopt;
    code = code << 6 | (static_cast<unsigned char>(text[at]) & 0x3f);
  }
  static const std::uint32_t least[] = {0x80, 0x800, 0x10000};  // longer forms than needed are none
  if (code < least[more - 1] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return std::nullopt;
  return code;
}

// Whether a character would move a terminal's cursor, or hide or turn text: controls, marks and overrides of direction,
// separators of lines, invisible operators, the byte order mark, annotations, tags.
inline bool is_unprintable(std::uint32_t code) {
  static const std::pair<std::uint32_t, std::uint32_t> ranges[] = {
      {0x00, 0x1f},     {0x7f, 0x9f},     {0x61c, 0x61c},   {0x200b, 0x200b}, {0x200e, 0x200f}, {0x2028, 0x202e},
      {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f},
  };
  for (const auto& [low, high] : ranges) {
    if (code >= low && code <= high) return true;
  }
  return false;
}

// How many characters a text of UTF-8 has; nothing if one of them may not be shown.
inline std::optional<std::size_t> printable_length(const std::string& text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); ++count) {
    const auto code = next_character(text, at);
    if (!code || is_unprintable(*code)) return std::nullopt;
  }
  return count;
}

}  // namespace matchrt::detail
