#!/usr/bin/env bash
# Installs matchrt's runtime for TensorRT into an environment of its own: the steps of Dockerfile.trt.
#
#   install_runtime.sh requirements   print what `dependencies` installs
#   install_runtime.sh environment    make the environment; it sees the TensorRT that the image has
#   install_runtime.sh dependencies   the packages that the runtime needs, from pyproject.toml alone (a layer to cache)
#   install_runtime.sh package        matchrt itself
#   install_runtime.sh verify         TensorRT is there, torch is not, and the bundled engine matches
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

# The base requirements and those of the extra `tensorrt`, less TensorRT itself: the image has it, built for its CUDA.
requirements() {
  "$PYTHON" - "$source_folder/pyproject.toml" <<'PYTHON_END'
import re
import sys
import tomllib

with open(sys.argv[1], "rb") as stream:
    project = tomllib.load(stream)["project"]
for requirement in (*project["dependencies"], *project["optional-dependencies"]["tensorrt"]):
    if re.match(r"[\w.-]+", requirement)[0] != "tensorrt":
        print(requirement)
PYTHON_END
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

dependencies() {
  local wanted
  mapfile -t wanted < <(requirements)
  ((${#wanted[@]} > 3)) || fail "pyproject.toml lists no dependencies"
  install --constraint "$source_folder/constraints.txt" "${wanted[@]}"
}

package() {
  install --no-deps "$source_folder"
}

verify() {
  "$PREFIX/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("tensorrt") is None)' ||
    fail "the image has no Python module tensorrt"
  local own
  own=$("$PREFIX/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  for unwanted in torch onnx; do
    [[ ! -e "$own/$unwanted" ]] || fail "$unwanted was installed; the runtime needs none"
  done
  "$PREFIX/bin/matchrt" doctor
}

case "${1:-}" in
requirements | environment | dependencies | package | verify) "$1" ;;
*) fail "say requirements, environment, dependencies, package or verify" ;;
esac
