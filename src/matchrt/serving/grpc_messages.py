"""The protocol's messages, from the compiled form of open_inference.proto.

They are in a pool of their own, because tritonclient brings messages of the same names, and one process may use both.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"


@cache
def message(name: str) -> Any:
    """The class of a message, such as `ModelInferRequest`. Raises KeyError for a name that is not in the protocol."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))


def compiled() -> bytes:
    """The bytes of the file descriptor set beside this module."""
    return (resources.files("matchrt.serving") / "open_inference.binpb").read_bytes()


@cache
def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
