"""`matchrt serve`."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matchrt.cli.options import BackendOption, DeviceOption, MaxMegapixelsOption, StoreOption, known_device, store_at
from matchrt.cli.output import stderr, stdout
from matchrt.errors import MatchRTError, missing_package

if TYPE_CHECKING:
    from matchrt.serving.run import Listening

EPILOG = "Example: matchrt serve loftr-lite --http 8000 --grpc 8001"
TOKEN_VARIABLE = "MATCHRT_SERVE_TOKEN"
_PACKAGES = (
    ("fastapi", "fastapi"), ("uvicorn", "uvicorn"), ("httptools", "httptools"), ("grpc", "grpcio"),
    ("google.protobuf", "protobuf"), ("orjson", "orjson"), ("prometheus_client", "prometheus-client"),
    ("python_multipart", "python-multipart"),
)  # fmt: skip


def serve(
    engines: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]ENGINE…", help="Files, bundled or stored models; default: loftr-lite."),
    ] = None,
    http: Annotated[int, typer.Option(help="HTTP port; 0 for any free one, -1 for none.")] = 8000,
    grpc: Annotated[int, typer.Option(help="gRPC port; 0 for any free one, -1 for none.")] = 8001,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with the token that callers must send; or ${TOKEN_VARIABLE}.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Other addresses without a token.")] = False,
    workers: Annotated[int, typer.Option(help="Threads that run each engine.")] = 1,
    queue: Annotated[
        int | None, typer.Option(help="Requests that may wait, beyond those that run; default: one more round.")
    ] = None,
    batch_wait: Annotated[float, typer.Option(help="Milliseconds to wait for more pairs; --batch engines.")] = 2.0,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 60.0,
    drain: Annotated[float, typer.Option(help="Seconds to finish requests in after SIGTERM.")] = 30.0,
    max_body: Annotated[float, typer.Option(help="Megabytes of a request.")] = 64.0,
    max_megapixels: MaxMegapixelsOption = 50.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a run.")] = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it listens as JSON.")] = False,
) -> int:
    """Serve engines over HTTP and gRPC (Open Inference Protocol), with a page to try them on."""
    _require_packages()
    import asyncio

    from matchrt.serving import run
    from matchrt.serving.options import ServeOptions
    from matchrt.serving.service import Service

    options = ServeOptions(
        host=host,
        http=None if http == -1 else http,
        grpc=None if grpc == -1 else grpc,
        token=read_token(token_file),
        open_to_all=no_token,
        workers=workers,
        queue=queue,
        batch_wait=batch_wait / 1e3,
        timeout=timeout,
        drain=drain,
        max_body=int(max_body * 1e6),
        max_pixels=int(max_megapixels * 1e6),
        threads=threads,
        device=known_device(device),
        backend=backend,
    )
    _log()
    service = Service(engines or ["loftr-lite"], options, store_at(store))
    try:
        asyncio.run(run.serve(service, lambda where: _tell(where, list(service.engines), as_json)))
    finally:
        service.close()
    if not as_json:
        stderr().print("Stopped; every request that was taken has been answered, or its time was over.")
    return 0


def read_token(path: Path | None) -> str | None:
    """The token in a file, else in the environment, else None. Error: token-file."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise MatchRTError("token-file", f"'{path}' cannot be read as text.", "Name a file with one word.") from error
    if not token:
        raise MatchRTError("token-file", f"'{path}' is empty.", "Write a long random word into it.")
    return token


def _log() -> None:
    """Our own log to stderr; of the libraries only failures, else any stranger could fill it."""
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("matchrt").setLevel(logging.INFO)
    for noisy in ("uvicorn", "python_multipart"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _require_packages() -> None:
    import importlib.util

    for module, package in _PACKAGES:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # of a parent
            found = False
        if not found:
            raise missing_package(package, "serve", "Serving")


def _tell(where: Listening, engines: list[str], as_json: bool) -> None:
    if as_json:
        print_line = {"host": where.host, "http": where.http, "grpc": where.grpc, "engines": engines}
        sys.stdout.write(json.dumps(print_line) + "\n")
        sys.stdout.flush()
        return
    host = f"[{where.host}]" if ":" in where.host else where.host
    console = stdout()
    console.print(f"Serving {', '.join(engines)}; stop with Ctrl-C.", style="bold")
    if where.http is not None:
        console.print(f"  page     http://{host}:{where.http}/   (docs: /docs, metrics: /metrics)")
        console.print(f"  HTTP     http://{host}:{where.http}/v2")
    if where.grpc is not None:
        console.print(f"  gRPC     {host}:{where.grpc}")
