"""The command `matchrt`: the list of its commands, and how errors reach the user."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import typer

from matchrt._util.text import shortened
from matchrt._version import __version__
from matchrt.cli import (
    bench,
    build,
    convert_flax,
    diagnose,
    doctor,
    download,
    export_triton,
    inspect,
    live,
    match,
    match_many,
    models,
    pairs,
    serve,
    verify,
)
from matchrt.cli.output import fail, stderr
from matchrt.cli.streams import guarded_streams
from matchrt.errors import MatchRTError

app = typer.Typer(
    help="Image-matching networks from checkpoint to engine to matches.",
    epilog="Example: matchrt match a.jpg b.jpg --draw matches.png",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
    debug: bool = typer.Option(
        False, "--debug", help="Show the traceback of an error; this option works after a command too."
    ),
) -> None:
    """Image-matching networks from checkpoint to engine to matches."""
    del debug  # `main` takes it out of the arguments; it is declared here for --help
    if version:
        typer.echo(f"matchrt {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("match", epilog=match.EPILOG)(match.match)
app.command("pairs", epilog=pairs.EPILOG)(pairs.pairs)
app.command("match-many", epilog=match_many.EPILOG)(match_many.match_many)
app.command("live", epilog=live.EPILOG)(live.live)
app.command("download", epilog=download.EPILOG)(download.download)
app.command("build", epilog=build.EPILOG)(build.build)
app.command("inspect", epilog=inspect.EPILOG)(inspect.inspect)
app.command("diagnose", epilog=diagnose.EPILOG)(diagnose.diagnose)
app.command("convert-flax", epilog=convert_flax.EPILOG)(convert_flax.convert_flax)
app.command("bench", epilog=bench.EPILOG)(bench.bench)
app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("export-triton", epilog=export_triton.EPILOG)(export_triton.export_triton)
app.command("verify", epilog=verify.EPILOG)(verify.verify)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.command("models", epilog=models.EPILOG)(models.models)
app.command("engines", epilog=models.ENGINES_EPILOG)(models.engines)

_INTERRUPTED = 130
_HELP_WIDTH = 120
_REFUSED = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP)
_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
# Options that had another name before 0.1.0.
_OLD_NAMES = {"--flavor": "--backend", "--twin": "--flax"}


def main() -> None:
    """The entry point.

    Exit codes: 0 for success, 1 for our mistake, 2 for the user's mistake, 130 if interrupted, 141 if whoever read
    stdout has gone.
    """
    given = _current_names(sys.argv[1:])
    arguments = [a for a in given if a != "--debug"]
    told = partial(fail, debug=len(arguments) < len(given))
    _keep_help_whole()
    _heed_named_shell(arguments)
    with guarded_streams() as closed:
        code = _run(arguments, told) if closed is None else told(closed, as_json=False)
        sys.exit(code or _flush(told))


def _keep_help_whole() -> None:
    """Makes --help in pipes and files wide enough for its tables.

    Typer takes 80 columns there, or those of $COLUMNS, and cuts the names of options. It reads this variable when it
    first prints help.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        os.environ.setdefault("TERMINAL_WIDTH", str(_HELP_WIDTH))


def _heed_named_shell(arguments: list[str]) -> None:
    """Lets `--show-completion bash` mean bash.

    Typer looks for the shell among the parents of this process, and takes a name only where this variable is set. There
    is no shell to be found in a container's build, or behind nohup.
    """
    for option, name in pairwise(arguments):
        if option in ("--show-completion", "--install-completion") and name in _SHELLS:
            os.environ.setdefault("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")


def _run(arguments: list[str], told: Callable[..., int]) -> int:
    """Runs a command, and tells an error. Returns the exit code."""
    try:
        # By this name, shells call the program that completes; `python -m matchrt` is no command to them.
        result = app(arguments, prog_name="matchrt", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        result = _INTERRUPTED
    except Exception as error:
        known = _usage_error(error) or _install_error(error, arguments) or _path_error(error)
        return told(known or error, as_json="--json" in arguments)
    if result == _INTERRUPTED:  # some versions of typer return it instead of raising
        stderr().print("Interrupted; nothing was left half written.")
    return result if isinstance(result, int) else 0


def _flush(told: Callable[..., int]) -> int:
    """Writes the last of the output. Returns the exit code: 0, or that of the error, which is told."""
    try:
        sys.stdout.flush()
    except MatchRTError as error:
        return told(error, as_json=False)
    return 0


def _current_names(arguments: list[str]) -> list[str]:
    """The arguments with today's names in place of old option names, which --help does not show; none after `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*(_current_name(argument) for argument in arguments[:end]), *arguments[end:]]


def _current_name(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{_OLD_NAMES.get(name, name)}{equals}{value}"


def _usage_error(error: Exception) -> MatchRTError | None:
    """Typer's error about the command line as our error; None for any other error.

    It is recognised by its method, because some versions of typer have their own copy of click, and others import it.
    """
    describe = getattr(error, "format_message", None)
    if describe is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "matchrt"
    return MatchRTError("usage", str(describe()), f"See {command} --help.")


def _install_error(error: Exception, arguments: list[str]) -> MatchRTError | None:
    """What the system says of the shell's files as our error; None if it is not --install-completion that failed."""
    if not isinstance(error, OSError) or "--install-completion" not in arguments:
        return None
    name = f"'{shortened(os.fsdecode(error.filename))}': " if error.filename else ""
    return MatchRTError(
        "output-unwritable",
        f"The shell's settings cannot be written: {name}{error.strerror}.",
        "Check the home folder, or write what --show-completion prints to a file that the shell reads.",
    )


def _path_error(error: Exception) -> MatchRTError | None:
    """What the system says of a path that no command can use, as our error; None for any other error.

    Python raises it where a command only asks whether there is such a file.
    """
    if not isinstance(error, OSError) or error.errno not in _REFUSED or error.filename is None:
        return None
    name = shortened(os.fsdecode(error.filename))
    return MatchRTError(
        "path-refused", f"The system refuses the path '{name}': {error.strerror}.", "Name another file or folder."
    )
