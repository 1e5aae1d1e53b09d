// A client of `matchrt serve` over gRPC (Open Inference Protocol, version 2).
//
//   matchrt::Client client("127.0.0.1:8001");
//   matchrt::Matches found = client.match_files(bytes_of_a, bytes_of_b);
//
// Needs gRPC and Protobuf for C++; the messages come from src/matchrt/serving/open_inference.proto (CMakeLists.txt).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "matchrt/matches.h"

namespace matchrt {

// What the service or the connection said instead of matches. code: of gRPC, such as 8 (RESOURCE_EXHAUSTED: all places
// are taken, try again) or 4 (DEADLINE_EXCEEDED).
class ClientError : public std::runtime_error {
 public:
  ClientError(int code, const std::string& message) : std::runtime_error(message), code(code) {}
  const int code;
};

struct ClientOptions {
  std::string model = "eloftr-lite";     // the name that the engine is served under
  std::string token;                     // sent as a bearer token, where the service asks for one
  std::chrono::milliseconds timeout{60000};
  std::optional<double> min_score;       // none: the engine's own
};

// One connection. Several threads may use it at once.
class Client {
 public:
  explicit Client(const std::string& address, ClientOptions options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  // Whether the service takes requests; false also where nobody answers.
  bool ready() const;

  // Matches two images in memory. Throws ClientError.
  Matches match(const ImageView& image0, const ImageView& image1) const;

  // Matches two image files, given as their bytes (JPEG, PNG, ...); the service decodes them. Throws ClientError.
  Matches match_files(const std::string& file0, const std::string& file1) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace matchrt
