// What goes wrong, with the codes of docs/errors.md.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace matchrt {

class Error : public std::runtime_error {
 public:
  Error(std::string error_code, const std::string& message)
      : std::runtime_error(message), code(std::move(error_code)) {}
  const std::string code;
};

}  // namespace matchrt
