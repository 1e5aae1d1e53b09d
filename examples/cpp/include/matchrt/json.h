// A reader of JSON (RFC 8259) for files that may be damaged or made to do harm: every fault is an Error, an object has no
// key twice, and numbers are those that 64 bits hold. It does not depend on the program's locale.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <locale>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "matchrt/error.h"
#include "matchrt/utf8.h"

namespace matchrt {

class Json {
 public:
  // A whole number is one without a point and an exponent.
  enum class Kind { null, boolean, whole, number, text, list, object };

  // Parses a whole document: UTF-8, with or without a byte order mark. Throws Error manifest-invalid.
  static Json parse(const std::string& document) {
    Parser parser{document};
    if (document.compare(0, 3, "\xef\xbb\xbf") == 0) parser.at = 3;
    for (std::size_t at = parser.at; at < document.size();) {
      parser.at = at;
      if (!detail::next_character(document, at)) parser.fail("it is not UTF-8");
    }
    parser.at = document.compare(0, 3, "\xef\xbb\xbf") == 0 ? 3 : 0;
    Json value = parser.value(0);
    parser.blanks();
    if (parser.at != document.size()) parser.fail("something follows the document");
    return value;
  }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }

  // The value of a field, or nullptr.
  const Json* find(const std::string& key) const {
    const auto found = fields_.find(key);
    return found == fields_.end() ? nullptr : &found->second;
  }
  const std::map<std::string, Json>& fields() const { return fields_; }
  const std::vector<Json>& items() const { return items_; }
  const std::string& text() const { return text_; }
  bool boolean() const { return number_ != 0; }
  std::int64_t whole() const { return whole_; }
  // Of a whole number, too.
  double number() const { return number_; }

 private:
  struct Parser {
    const std::string& in;
    std::size_t at = 0;

    [[noreturn]] void fail(const std::string& why) const {
      throw Error("manifest-invalid", "the manifest is no JSON at byte " + std::to_string(at) + ": " + why);
    }
    void blanks() {
      while (at < in.size() && (in[at] == ' ' || in[at] == '\n' || in[at] == '\r' || in[at] == '\t')) ++at;
    }
    char peek() const {
      if (at >= in.size()) fail("it ends");
      return in[at];
    }
    bool take(char wanted) {
      blanks();
      if (at >= in.size() || in[at] != wanted) return false;
      ++at;
      return true;
    }
    void word(const char* rest) {
      for (; *rest; ++rest, ++at) {
        if (peek() != *rest) fail("an unknown word");
      }
    }

    Json value(int depth) {
      if (depth > 64) fail("it is nested too deeply");
      blanks();
      Json out;
      switch (peek()) {
        case '{': ++at; out.kind_ = Kind::object; object(out, depth); break;
        case '[': ++at; out.kind_ = Kind::list; list(out, depth); break;
        case '"': ++at; out.kind_ = Kind::text; out.text_ = string(); break;
        case 't': word("true"); out.kind_ = Kind::boolean; out.number_ = 1; break;
        case 'f': word("false"); out.kind_ = Kind::boolean; break;
        case 'n': word("null"); break;
        default: number(out);
      }
      return out;
    }
    void object(Json& out, int depth) {
      if (take('}')) return;
      do {
        if (!take('"')) fail("a name is expected");
        std::string key = string();
        if (!take(':')) fail("':' is expected");
        if (!out.fields_.emplace(std::move(key), value(depth + 1)).second) fail("a name is there twice");
      } while (take(','));
      if (!take('}')) fail("'}' is expected");
    }
    void list(Json& out, int depth) {
      if (take(']')) return;
      do {
        out.items_.push_back(value(depth + 1));
      } while (take(','));
      if (!take(']')) fail("']' is expected");
    }
    std::string string() {
      std::string out;
      while (peek() != '"') {
        const char c = in[at++];
        if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a text");
        if (c != '\\') {
          out.push_back(c);
          continue;
        }
        static const std::string escapes = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        const char escape = peek();
        ++at;
        if (escape == 'u') {
          detail::append_character(out, unicode());
        } else if (const auto which = escapes.find(escape); which != std::string::npos) {
          out.push_back(meanings[which]);
        } else {
          fail("an unknown escape");
        }
      }
      ++at;
      return out;
    }
    // The character of one \uXXXX, or of two that are a surrogate pair.
    std::uint32_t unicode() {
      const std::uint32_t first = four_digits();
      if (first < 0xd800 || first > 0xdfff) return first;
      if (first > 0xdbff || peek() != '\\') fail("half a surrogate pair");
      ++at;
      if (peek() != 'u') fail("half a surrogate pair");
      ++at;
      const std::uint32_t second = four_digits();
      if (second < 0xdc00 || second > 0xdfff) fail("half a surrogate pair");
      return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    }
    std::uint32_t four_digits() {
      static const std::string digits = "0123456789abcdef";
      std::uint32_t code = 0;
      for (int i = 0; i < 4; ++i, ++at) {
        const char c = peek();
        const std::size_t digit = digits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c);
        if (digit == std::string::npos) fail("four hexadecimal digits are expected");
        code = code * 16 + static_cast<std::uint32_t>(digit);
      }
      return code;
    }
    std::size_t digits() {
      const std::size_t first = at;
      while (at < in.size() && in[at] >= '0' && in[at] <= '9') ++at;
      if (at == first) fail("a digit is expected");
      return at - first;
    }
    // -? int frac? exp?, checked here, since the libraries' readers take more: hexadecimal numbers, "inf", leading zeros.
    void number(Json& out) {
      const std::size_t start = at;
      if (in[at] == '-') ++at;
      const bool zero = at < in.size() && in[at] == '0';
      if (digits() > 1 && zero) fail("a number starts with 0");
      out.kind_ = Kind::whole;
      if (at < in.size() && in[at] == '.') {
        out.kind_ = Kind::number;
        ++at;
        digits();
      }
      if (at < in.size() && (in[at] == 'e' || in[at] == 'E')) {
        out.kind_ = Kind::number;
        ++at;
        if (at < in.size() && (in[at] == '+' || in[at] == '-')) ++at;
        digits();
      }
      const std::string text = in.substr(start, at - start);
      if (out.kind_ == Kind::whole) {
        errno = 0;
        out.whole_ = std::strtoll(text.c_str(), nullptr, 10);
        if (errno == ERANGE || out.whole_ == std::numeric_limits<std::int64_t>::min()) fail("a number has too many digits");
        out.number_ = static_cast<double>(out.whole_);
        return;
      }
      // Not strtod, which reads "0.5" as 0 in a program whose locale has a decimal comma.
      std::istringstream stream(text);
      stream.imbue(std::locale::classic());
      if (!(stream >> out.number_)) fail("a number is too large");
    }
  };

  Kind kind_ = Kind::null;
  double number_ = 0;
  std::int64_t whole_ = 0;
  std::string text_;
  std::vector<Json> items_;
  std::map<std::string, Json> fields_;
};

}  // namespace matchrt
