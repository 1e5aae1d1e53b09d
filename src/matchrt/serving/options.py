"""Options of a service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matchrt.errors import MatchRTError
from matchrt.runtime.image import MAX_PIXELS
from matchrt.runtime.session import Device

LOOPBACK = ("127.0.0.1", "localhost", "::1")
Verify = Literal["none", "homography", "fundamental"]


@dataclass(frozen=True)
class ServeOptions:
    """Where a service listens and what it allows. Errors: option-range, serve-nothing, serve-exposed.

    host: address to listen on.
    http: port; 0 for any free one, None for no HTTP.
    grpc: port; 0 for any free one, None for no gRPC.
    token: the bearer token that callers must send; None for none.
    open_to_all: listen beyond this machine without a token.
    workers: threads that run an engine, each on a fork of its session.
    queue: requests that may wait beyond those that the workers can take in one round; None for one more round. A longer
        queue takes bursts, and makes them wait.
    batch_wait: seconds that a run of an engine built with --batch waits for more pairs.
    timeout: seconds that a request may take unless it asks for less.
    drain: seconds that running requests get when the service ends.
    max_body: bytes of a request's body.
    max_pixels: pixels of an image, checked before it is decoded.
    decode_seconds: seconds of processor time that decoding one image may take.
    threads: CPU threads of one run; None for the runtime's choice.
    device: where engines run, `cpu` or `cuda`; None for where their backends run.
    backend: of the engines, if a name stands for engines of several backends; None for any.
    """

    host: str = "127.0.0.1"
    http: int | None = 8000
    grpc: int | None = 8001
    token: str | None = None
    open_to_all: bool = False
    workers: int = 1
    queue: int | None = None
    batch_wait: float = 0.002
    timeout: float = 60.0
    drain: float = 30.0
    max_body: int = 64 << 20
    max_pixels: int = MAX_PIXELS
    decode_seconds: float = 4.0
    threads: int | None = None
    device: Device | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        limits = (
            ("http", self.http is None or 0 <= self.http < 65536, "a port, 0 for any free one"),
            ("grpc", self.grpc is None or 0 <= self.grpc < 65536, "a port, 0 for any free one"),
            ("workers", 1 <= self.workers <= 256, "1 to 256"),
            ("queue", self.queue is None or 0 <= self.queue <= 4096, "0 to 4096"),
            ("batch_wait", 0.0 <= self.batch_wait <= 10.0, "0 to 10 seconds"),
            ("timeout", 0.0 < self.timeout <= 86400.0, "more than 0 seconds"),
            ("drain", 0.0 <= self.drain <= 86400.0, "0 seconds or more"),
            ("max_body", self.max_body >= 1024, "1024 bytes or more"),
            ("decode_seconds", 0.0 < self.decode_seconds <= 86400.0, "more than 0 seconds"),
            ("max_pixels", self.max_pixels >= 1, "1 or more"),
            ("token", self.token is None or (self.token.isascii() and len(self.token.split()) == 1), "one ASCII word"),
        )
        for name, good, wanted in limits:
            if not good:
                value = "not that" if name == "token" else repr(getattr(self, name))
                raise MatchRTError("option-range", f"{name} is {value}.", f"It must be {wanted}.")
        if self.http is None and self.grpc is None:
            raise MatchRTError("serve-nothing", "Neither an HTTP nor a gRPC port is asked for.", "Give one of them.")
        if self.host not in LOOPBACK and self.token is None and not self.open_to_all:
            raise MatchRTError(
                "serve-exposed",
                f"Listening on {self.host} without a token lets anybody on the network use this machine.",
                "Give --token-file, or --no-token if a proxy in front of it asks for a token.",
            )
