// The fields of a manifest: each is checked when it is read, and an error names it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "matchrt/error.h"
#include "matchrt/json.h"
#include "matchrt/utf8.h"

namespace matchrt::detail {

// ASCII only, whatever the program's locale says of characters.
inline bool consists_of(const std::string& text, const char* others, bool letters = true) {
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!digit && !(letters && letter) && (c == '\0' || std::strchr(others, c) == nullptr)) return false;
  }
  return true;
}

// A value of the manifest, and the name that messages give it. What does not fit throws Error manifest-invalid.
class Field {
 public:
  Field(const Json& value, std::string where) : value_(value), where_(std::move(where)) {}

  [[noreturn]] void refuse(const std::string& why) const { throw Error("manifest-invalid", where_ + " " + why); }
  void require(bool fits, const char* wanted) const {
    if (!fits) refuse(std::string("should be ") + wanted);
  }

  // Checks that this is an object with these fields and no others: all of the first, any of the second.
  void require_fields(std::initializer_list<const char*> required, std::initializer_list<const char*> optional) const {
    need(Json::Kind::object, "an object");
    std::size_t known = 0;
    for (const char* name : required) {
      if (value_.find(name) == nullptr) refuse(std::string("lacks ") + name);
      ++known;
    }
    for (const char* name : optional) known += value_.find(name) == nullptr ? 0 : 1;
    // A field that an older reader does not know may change what the others mean.
    if (value_.fields().size() != known) refuse("has fields that are not known");
  }
  // Null if it is absent, so that a default is told by `is_null`.
  Field operator[](const char* name) const {
    static const Json none;
    const Json* found = value_.find(name);
    return {found == nullptr ? none : *found, where_ + "." + name};
  }
  bool has(const char* name) const { return value_.find(name) != nullptr; }
  bool is_null() const { return value_.is_null(); }

  std::vector<Field> items() const {
    need(Json::Kind::list, "a list");
    require(value_.items().size() <= most_entries, "at most 4096 entries");
    std::vector<Field> out;
    for (const Json& item : value_.items()) out.emplace_back(item, where_);
    return out;
  }
  std::vector<std::pair<std::string, Field>> entries() const {
    need(Json::Kind::object, "an object");
    require(value_.fields().size() <= most_entries, "at most 4096 entries");
    std::vector<std::pair<std::string, Field>> out;
    for (const auto& [name, value] : value_.fields()) out.emplace_back(name, Field(value, where_));
    return out;
  }

  bool is_text() const { return value_.kind() == Json::Kind::text; }
  const std::string& raw_text() const {
    need(Json::Kind::text, "a text");
    return value_.text();
  }
  // For people to read.
  const std::string& text() const {
    const auto length = printable_length(raw_text());
    require(length && *length <= 4096, "at most 4096 characters without control characters");
    return value_.text();
  }
  // One step of a path, and no option of a command.
  const std::string& name() const {
    require_name(raw_text());
    return value_.text();
  }
  void require_name(const std::string& text) const {
    const bool begins = !text.empty() && consists_of(text.substr(0, 1), "");
    require(begins && text.size() <= 100 && consists_of(text, "._+-"), "a name: at most 100 letters, digits, and . _ + -");
  }
  const std::string& identifier() const {
    const std::string& text = raw_text();
    const bool begins = !text.empty() && (text[0] < '0' || text[0] > '9');
    require(begins && text.size() <= 100 && consists_of(text, "_"), "letters, digits and _");
    return text;
  }
  const std::string& digest() const {
    const std::string& text = raw_text();
    require(!text.empty() && text.size() <= 64 && consists_of(text, "abcdef", false), "a digest");
    return text;
  }
  const std::string& choice(std::initializer_list<const char*> known) const {
    for (const char* each : known) {
      if (raw_text() == each) return value_.text();
    }
    refuse("has a value that is not known");
  }
  bool boolean() const {
    need(Json::Kind::boolean, "true or false");
    return value_.boolean();
  }
  std::int64_t whole(std::int64_t least, std::int64_t most) const {
    need(Json::Kind::whole, "a whole number");
    const std::int64_t number = value_.whole();
    if (number < least || number > most) refuse("should be " + std::to_string(least) + " to " + std::to_string(most));
    return number;
  }
  double number() const {
    if (value_.kind() != Json::Kind::whole) need(Json::Kind::number, "a number");
    return value_.number();
  }
  // From 0 to 1.
  double share() const {
    const double value = number();
    require(value >= 0 && value <= 1, "0 to 1");
    return value;
  }

 private:
  static constexpr std::size_t most_entries = 4096;

  void need(Json::Kind kind, const char* name) const {
    if (value_.kind() != kind) refuse(std::string("is not ") + name);
  }

  const Json& value_;
  std::string where_;
};

}  // namespace matchrt::detail
