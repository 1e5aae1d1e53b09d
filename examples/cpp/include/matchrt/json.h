// A reader of JSON (RFC 8259), as much of it as manifests need: all of it but surrogate pairs in \u escapes.
#pragma once

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "matchrt/error.h"

namespace matchrt {

class Json {
 public:
  enum class Kind { null, boolean, number, text, list, object };

  // Parses a whole document. Throws Error manifest-invalid.
  static Json parse(const std::string& document) {
    Parser parser{document};
    Json value = parser.value(0);
    parser.blanks();
    if (parser.at != document.size()) parser.fail("something follows the document");
    return value;
  }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }

  const Json& operator[](const std::string& key) const {
    need(Kind::object, "object");
    const auto found = fields_.find(key);
    if (found == fields_.end()) throw Error("manifest-invalid", "the manifest lacks '" + key + "'");
    return found->second;
  }
  bool has(const std::string& key) const {
    need(Kind::object, "object");
    return fields_.count(key) > 0;
  }
  const std::vector<Json>& items() const {
    need(Kind::list, "list");
    return items_;
  }
  const std::string& text() const {
    need(Kind::text, "text");
    return text_;
  }
  bool boolean() const {
    need(Kind::boolean, "true or false");
    return number_ != 0;
  }
  double number() const {
    need(Kind::number, "number");
    return number_;
  }
  std::int64_t integer() const {
    const double value = number();
    if (value < -9e15 || value > 9e15 || value != static_cast<double>(static_cast<std::int64_t>(value))) {
      throw Error("manifest-invalid", "a number of the manifest is no integer");
    }
    return static_cast<std::int64_t>(value);
  }

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
        default: out.kind_ = Kind::number; out.number_ = number();
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
          unicode(out);
        } else if (const auto which = escapes.find(escape); which != std::string::npos) {
          out.push_back(meanings[which]);
        } else {
          fail("an unknown escape");
        }
      }
      ++at;
      return out;
    }
    void unicode(std::string& out) {
      unsigned code = 0;
      for (int i = 0; i < 4; ++i, ++at) {
        const char c = peek();
        if (!std::isxdigit(static_cast<unsigned char>(c))) fail("four hexadecimal digits are expected");
        code = code * 16 + static_cast<unsigned>(std::stoi(std::string(1, c), nullptr, 16));
      }
      if (code >= 0xd800 && code < 0xe000) fail("surrogate pairs are not read");
      if (code < 0x80) {
        out.push_back(static_cast<char>(code));
      } else if (code < 0x800) {
        out.push_back(static_cast<char>(0xc0 | (code >> 6)));
        out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
      } else {
        out.push_back(static_cast<char>(0xe0 | (code >> 12)));
        out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3f)));
        out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
      }
    }
    // -? int frac? exp?, checked here, since strtod takes more: hexadecimal numbers, "inf", leading zeros.
    double number() {
      const std::size_t start = at;
      const auto digits = [this] {
        const std::size_t first = at;
        while (at < in.size() && std::isdigit(static_cast<unsigned char>(in[at]))) ++at;
        if (at == first) fail("a digit is expected");
        return at - first;
      };
      if (in[at] == '-') ++at;
      const bool zero = at < in.size() && in[at] == '0';
      if (digits() > 1 && zero) fail("a number starts with 0");
      if (at < in.size() && in[at] == '.') {
        ++at;
        digits();
      }
      if (at < in.size() && (in[at] == 'e' || in[at] == 'E')) {
        ++at;
        if (at < in.size() && (in[at] == '+' || in[at] == '-')) ++at;
        digits();
      }
      return std::strtod(in.substr(start, at - start).c_str(), nullptr);
    }
  };

  void need(Kind kind, const char* name) const {
    if (kind_ != kind) throw Error("manifest-invalid", std::string("a value of the manifest is no ") + name);
  }

  Kind kind_ = Kind::null;
  double number_ = 0;
  std::string text_;
  std::vector<Json> items_;
  std::map<std::string, Json> fields_;
};

}  // namespace matchrt
