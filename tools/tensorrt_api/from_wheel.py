"""Describes the TensorRT of a bindings wheel, without its libraries and without a GPU.

    pip download --no-deps tensorrt-cu12-bindings==10.9.0.34
    python tools/tensorrt_api/from_wheel.py tensorrt_cu12_bindings-10.9.0.34-*.whl tests/data/tensorrt_api

The bindings are NVIDIA's own; the libraries that they link to are stood in for by `hollow.c`. Needs a C compiler, and
the Python that the wheel is for.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
_LIBRARIES = ("libnvinfer.so", "libnvinfer_plugin.so", "libnvonnxparser.so")


def describe_wheel(wheel: Path) -> str:
    """The JSON of `describe.py` for the module in the wheel."""
    version = re.search(r"bindings-([\d.]+)", wheel.name)
    if version is None:
        raise SystemExit(f"{wheel.name} is not a wheel of TensorRT's bindings")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        for library in _LIBRARIES:
            name = f"{library}.{version[1].split('.')[0]}"
            # The name inside the file is what the bindings look for.
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, str(HERE / "hollow.c")]
            subprocess.run(command, cwd=folder, check=True)
        paths = {"LD_LIBRARY_PATH": folder, "PYTHONPATH": folder}
        describing = [sys.executable, str(HERE / "describe.py"), "tensorrt_bindings"]
        done = subprocess.run(describing, env=os.environ | paths, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def main() -> None:
    """Writes `tensorrt-VERSION.json` for each wheel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("folder", type=Path, help="where the JSON files go")
    given = parser.parse_args()
    for wheel in given.wheels:
        text = describe_wheel(wheel)
        found = re.search(r'"version": "([^"]+)"', text)
        assert found is not None
        (given.folder / f"tensorrt-{found[1]}.json").write_text(text)
        print(f"tensorrt-{found[1]}.json")


if __name__ == "__main__":
    main()
