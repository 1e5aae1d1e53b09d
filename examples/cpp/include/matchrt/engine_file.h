// An engine's bytes, checked against its manifest, and whether it fits the machine.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "matchrt/error.h"
#include "matchrt/manifest.h"
#include "matchrt/parse_manifest.h"
#include "matchrt/sha256.h"

namespace matchrt {

namespace detail {

// A file's content; one that is no regular file is not opened, because a pipe would make the program wait.
inline std::string read_file(const std::string& path, const char* code,
                             std::uintmax_t most = std::numeric_limits<std::uintmax_t>::max()) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(path, failed)) throw Error(code, "'" + path + "' is no file");
  const std::uintmax_t size = std::filesystem::file_size(path, failed);
  if (failed || size > most) throw Error(code, "'" + path + "' cannot be read, or is too large");
  std::ifstream stream(path, std::ios::binary);
  std::string content(static_cast<std::size_t>(size), '\0');
  if (!stream || !stream.read(content.data(), static_cast<std::streamsize>(size))) {
    throw Error(code, "'" + path + "' cannot be read");
  }
  return content;
}

}  // namespace detail

// An engine's bytes and its manifest, which fit each other.
struct EngineFile {
  std::string bytes;
  Manifest manifest;
};

// Reads PATH and PATH.json. Throws Error manifest-missing, manifest-*, engine-missing, engine-digest.
inline EngineFile read_engine(const std::string& path) {
  const auto differs = [&path] {
    return Error("engine-digest", "'" + path + "' is not the file that its manifest describes");
  };
  EngineFile file;
  file.manifest = parse_manifest(detail::read_file(path + ".json", "manifest-missing", detail::most_manifest_bytes));
  // Asked first, so that a file of another size is not read.
  std::error_code failed;
  const std::uintmax_t size = std::filesystem::file_size(path, failed);
  if (!failed && size != static_cast<std::uintmax_t>(file.manifest.engine_bytes)) throw differs();
  file.bytes = detail::read_file(path, "engine-missing");
  const auto* data = reinterpret_cast<const std::uint8_t*>(file.bytes.data());
  if (sha256(data, file.bytes.size()) != file.manifest.engine_sha256) throw differs();
  return file;
}

namespace detail {

// The numbers of "10.9.0.34".
inline std::vector<long long> numbers(const std::string& version) {
  std::vector<long long> out;
  std::size_t at = 0;
  while (at < version.size()) {
    const std::size_t dot = std::min(version.find('.', at), version.size());
    const std::string part = version.substr(at, dot - at);
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos) {
      out.push_back(std::strtoll(part.c_str(), nullptr, 10));  // the largest number, if there are too many digits
    }
    at = dot + 1;
  }
  return out;
}

}  // namespace detail

// Throws Error engine-backend, engine-version, engine-gpu where the engine cannot run here.
// capability: of the GPU, as "8.9".
inline void require_fit(const Manifest& manifest, const std::string& backend, const std::string& version,
                        const std::string& capability) {
  if (manifest.backend != backend) {
    throw Error("engine-backend", "the engine is for backend " + manifest.backend + ", this program for " + backend);
  }
  const bool same = manifest.backend_version == version;
  const bool later = detail::numbers(version) >= detail::numbers(manifest.backend_version);
  if (manifest.version_rule != "any" && !same && !(manifest.version_rule == "newer" && later)) {
    throw Error("engine-version", "the engine's backend_version is " + manifest.backend_version + ", here is " + version);
  }
  bool listed = manifest.compute_capabilities.empty();
  std::vector<long long> lowest;
  for (const std::string& entry : manifest.compute_capabilities) {
    listed = listed || entry == capability;
    const std::vector<long long> value = detail::numbers(entry);
    if (lowest.empty() || value < lowest) lowest = value;
  }
  if (!listed && !(manifest.newer_gpus && detail::numbers(capability) > lowest)) {
    throw Error("engine-gpu", "the engine was built for other GPUs than this one of compute capability " + capability);
  }
}

}  // namespace matchrt
