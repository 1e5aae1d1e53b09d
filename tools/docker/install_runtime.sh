#!/usr/bin/env bash
# Installs matchrt for TensorRT into an environment of its own: the steps of Dockerfile.trt.
#
#   install_runtime.sh requirements   print what `dependencies` installs
#   install_runtime.sh environment    make the environment; it sees the TensorRT that the image has
#   install_runtime.sh dependencies   the packages that the runtime needs, from pyproject.toml alone (a layer to cache)
#   install_runtime.sh package        matchrt itself
#   install_runtime.sh verify         TensorRT is there, torch is not, the bundled engine matches, an fp16 graph is made
#   install_runtime.sh serve          the packages that serving needs
#   install_runtime.sh verify-serve   a service starts, and the health check sees it
#
# Settings: PREFIX (the environment, /opt/matchrt), PYTHON (python3), PIP_FLAGS (more options of pip install).
set -euo pipefail

PREFIX=${PREFIX:-/opt/matchrt}
PYTHON=${PYTHON:-python3}
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
read -r -a pip_flags <<<"${PIP_FLAGS:-}"

fail() {
  echo "install_runtime.sh: $*" >&2
  exit 1
}

# The requirements of a list of extras, with those of the extras that they name, and less TensorRT itself: the image has
# it, built for its CUDA. `-` stands for the base requirements.
requirements_of() {
  "$PYTHON" - "$source_folder/pyproject.toml" "$@" <<'PYTHON_END'
import re
import sys
import tomllib

with open(sys.argv[1], "rb") as stream:
    project = tomllib.load(stream)["project"]


def listed(extra):
    for requirement in project["dependencies"] if extra == "-" else project["optional-dependencies"][extra]:
        own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
        if own:
            for other in own[1].split(","):
                yield from listed(other.strip())
        elif re.match(r"[\w.-]+", requirement)[0] != "tensorrt":
            yield requirement


print("\n".join(requirement for extra in sys.argv[2:] for requirement in listed(extra)))
PYTHON_END
}

requirements() {
  requirements_of - tensorrt
}

environment() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$PYTHON is older than Python 3.11"
  # Without pip: the image's own installs into it, and its system need not have ensurepip.
  "$PYTHON" -m venv --system-site-packages --without-pip "$PREFIX"
}

install() {
  "$PYTHON" -m pip --python "$PREFIX/bin/python" install --no-cache-dir --disable-pip-version-check \
    ${pip_flags[@]+"${pip_flags[@]}"} "$@"
}

install_listed() {
  local wanted
  mapfile -t wanted < <(requirements_of "$@")
  ((${#wanted[@]} > 3)) || fail "pyproject.toml lists no dependencies"
  install --constraint "$source_folder/constraints.txt" "${wanted[@]}"
}

dependencies() {
  install_listed - tensorrt
}

serve() {
  install_listed serve
}

package() {
  install --no-deps "$source_folder"
}

verify() {
  "$PREFIX/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("tensorrt") is None)' ||
    fail "the image has no Python module tensorrt"
  local own scratch
  own=$("$PREFIX/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  [[ ! -e "$own/torch" ]] || fail "torch was installed; neither building nor matching needs it here"
  "$PREFIX/bin/matchrt" doctor
  # What an fp16 build needs besides a GPU: the package onnx, and the package's graphs.
  scratch=$(mktemp -d)
  "$PREFIX/bin/matchrt" build loftr-lite --height 96 --width 128 --precision fp16 --store "$scratch" ||
    fail "an fp16 graph cannot be made"
  rm -r "$scratch"
}

# A service in the background, on a port that nothing else has here; the health check is asked until it is content.
verify-serve() {
  "$PREFIX/bin/matchrt" serve loftr-lite --http 18765 --grpc -1 &
  service=$!  # not local: the trap reads it after the function
  trap 'kill "$service" && wait "$service" || true' EXIT
  for _ in $(seq 60); do
    kill -0 "$service" 2>/dev/null || fail "the service ended"
    if "$PREFIX/bin/python" "$source_folder/tools/docker/health.py" | grep -qx ready; then
      echo "the service is ready"
      return
    fi
    sleep 1
  done
  fail "the service is not ready after a minute"
}

case "${1:-}" in
requirements | environment | dependencies | package | verify | serve | verify-serve) "$1" ;;
*) fail "say requirements, environment, dependencies, package, verify, serve or verify-serve" ;;
esac
