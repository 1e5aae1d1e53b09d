"""`matchrt serve`."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matchrt._util.reading import read_regular
from matchrt.cli.completion import engine_names
from matchrt.cli.options import BackendOption, DeviceOption, MaxMegapixelsOption, StoreOption, known_device, store_at
from matchrt.cli.output import PrintableFormatter, stderr, stdout
from matchrt.errors import MatchRTError, missing_package
from matchrt.runtime.bundled import DEFAULT_MODEL

if TYPE_CHECKING:
    from matchrt.serving.run import Listening

EPILOG = "Example: matchrt serve eloftr-lite --http 8000 --grpc 8001"
_LONGEST_TOKEN = 1 << 16
TOKEN_VARIABLE = "MATCHRT_SERVE_TOKEN"
_PACKAGES = (
    ("fastapi", "fastapi"), ("uvicorn", "uvicorn"), ("httptools", "httptools"), ("grpc", "grpcio"),
    ("google.protobuf", "protobuf"), ("orjson", "orjson"), ("prometheus_client", "prometheus-client"),
    ("python_multipart", "python-multipart"),
)  # fmt: skip


def serve(
    engines: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]ENGINE…",
            help="Engine files, bundled models or models in the store; default: eloftr-lite.",
            autocompletion=engine_names,
        ),
    ] = None,
    http: Annotated[int, typer.Option(help="HTTP port; 0 for any free one, -1 for none.")] = 8000,
    grpc: Annotated[int, typer.Option(help="gRPC port; 0 for any free one, -1 for none.")] = 8001,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token that callers must send; default: the token in ${TOKEN_VARIABLE}."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Allow listening on other addresses than this machine without a token.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Number of threads that run each engine.")] = 1,
    queue: Annotated[
        int | None,
        typer.Option(help="Number of requests that may wait; default: as many as can run at the same time."),
    ] = None,
    batch_wait: Annotated[
        float, typer.Option(help="Milliseconds to wait for more pairs, for engines built with --batch.")
    ] = 2.0,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 60.0,
    drain: Annotated[float, typer.Option(help="Seconds that requests have to finish after SIGTERM.")] = 30.0,
    max_body: Annotated[float, typer.Option(help="Largest size of a request in megabytes.")] = 64.0,
    max_megapixels: MaxMegapixelsOption = 50.0,
    decode_seconds: Annotated[
        float, typer.Option(help="Seconds of processor time that decoding one image may take.")
    ] = 4.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each run.")] = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses that it listens on as JSON.")] = False,
) -> int:
    """Serve engines over HTTP and gRPC (Open Inference Protocol), with a web page to try them."""
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
        decode_seconds=decode_seconds,
        threads=threads,
        device=known_device(device),
        backend=backend,
    )
    _log()
    service = Service(engines or [DEFAULT_MODEL], options, store_at(store))
    try:
        asyncio.run(run.serve(service, lambda where: _tell(where, list(service.engines), as_json)))
    except BaseException:
        service.close()
        raise
    if not as_json:
        stderr().print("Stopped. Every accepted request was answered or ran out of time.")
    run.close(service)
    return 0


def read_token(path: Path | None) -> str | None:
    """The token in a file; without a file, that in the environment, or None. Error: token-file."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = read_regular(path, _LONGEST_TOKEN).decode("ascii").strip()
    except OSError as error:
        raise MatchRTError(
            "token-file", f"'{path}' cannot be read: {error.strerror}.", "Name a file that contains one word."
        ) from error
    except ValueError as error:
        raise MatchRTError(
            "token-file", f"'{path}' is not ASCII text.", "Name a file that contains one word."
        ) from error
    if not token:
        raise MatchRTError("token-file", f"'{path}' is empty.", "Write a long random word into it.")
    return token


def _log() -> None:
    """Logs our own messages to stderr, but of the libraries only failures, because strangers could fill the log."""
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PrintableFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.getLogger("matchrt").setLevel(logging.INFO)
    for noisy in ("uvicorn", "python_multipart"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _require_packages() -> None:
    import importlib.util

    for module, package in _PACKAGES:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # the package that contains the module is missing
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
