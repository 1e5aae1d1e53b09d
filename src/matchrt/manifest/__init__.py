"""The JSON beside an engine: what it is, what it was made from, and where it may run.

Building (`building`, `engines`) writes it, and running (`runtime`) reads it.
"""

from matchrt.manifest.fields import (
    DENSE_OUTPUTS,
    HOST_KERNELS,
    PRECISION_OUTPUT,
    ROW_BYTES,
    SCHEMA,
    SIZELESS,
    Dimension,
    EngineManifest,
    Fitting,
    InputContract,
    Kernel,
    MatchContract,
    PassRecord,
    Portability,
    Profile,
    SelfTest,
    SelfTestPair,
    Source,
    TensorSpec,
    decode_rows,
    has_dense,
)
from matchrt.manifest.frames import FRAMES, PIXELS, FrameContract, Pixels
from matchrt.manifest.reading import manifest_path, read_manifest
from matchrt.manifest.schema import manifest_schema, schema_path

__all__ = [
    "DENSE_OUTPUTS",
    "FRAMES",
    "HOST_KERNELS",
    "PIXELS",
    "PRECISION_OUTPUT",
    "ROW_BYTES",
    "SCHEMA",
    "SIZELESS",
    "Dimension",
    "EngineManifest",
    "Fitting",
    "FrameContract",
    "InputContract",
    "Kernel",
    "MatchContract",
    "PassRecord",
    "Pixels",
    "Portability",
    "Profile",
    "SelfTest",
    "SelfTestPair",
    "Source",
    "TensorSpec",
    "decode_rows",
    "has_dense",
    "manifest_path",
    "manifest_schema",
    "read_manifest",
    "schema_path",
]
