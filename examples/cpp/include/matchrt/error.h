// What goes wrong, with the codes of docs/errors.md.
#pragma once

#include <stdexcept>
#include <string>

namespace matchrt {

class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code(std::move(code)) {}
  const std::string code;
};

}  // namespace matchrt
