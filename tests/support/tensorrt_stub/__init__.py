"""TensorRT's Python modules as far as matchrt calls them, on a machine without GPU and without TensorRT.

`tests/nvidia/test_api.py` holds every name and argument here against the real modules. What a stub says of itself, it
writes into `Script.calls`; what it is to do wrong, a test writes into the other fields of the script.
"""

from support.tensorrt_stub.modules import make_tensorrt, make_tensorrt_rtx
from support.tensorrt_stub.script import Script

__all__ = ["Script", "make_tensorrt", "make_tensorrt_rtx"]
