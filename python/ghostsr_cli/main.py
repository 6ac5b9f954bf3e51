"""The command ``ghostsr``: one subcommand a file, and what all of them do about errors."""

from __future__ import annotations

import importlib
import sys
import traceback
from types import TracebackType
from typing import Annotated

import typer

from ghostsr_cli.imports import with_imports

# Each command's module imports ghostsr_ext, and torch with it, inside its function, so that
# `ghostsr --help` is instant.
_COMMANDS = {
    "upscale": ("ghostsr_cli.upscale", "upscale_command"),
    "convert": ("ghostsr_cli.convert", "convert_command"),
    "train": ("ghostsr_cli.train", "train_command"),
    "eval": ("ghostsr_cli.eval", "evaluate_command"),
    "bench": ("ghostsr_cli.bench", "bench_command"),
    "export": ("ghostsr_cli.export", "export_command"),
    "report": ("ghostsr_cli.report", "report_command"),
    "demo": ("ghostsr_cli.demo", "demo_command"),
    "info": ("ghostsr_cli.info", "info_command"),
}

_INTERRUPTED = 130


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ghostsr {version('ghostsr')}")
        raise typer.Exit


def _root(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Fast super-resolution: run pretrained networks, and convert them to GhostSR networks.

    To begin: ghostsr upscale photo.jpg
    """


def create_app() -> typer.Typer:
    """Return the command line with all its subcommands."""
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, (module, function) in _COMMANDS.items():
        app.command(name)(with_imports(getattr(importlib.import_module(module), function)))
    return app


def _show_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a traceback as Python does, but for what a terminal could take for commands."""
    from ghostsr_ext.text import printable

    for entry in traceback.format_exception(kind, error, trace):
        for line in entry.splitlines():
            print(printable(line, 2000), file=sys.stderr)


def main() -> None:
    """Run the command line.

    A user's mistake ends in one line on standard error: with status 2 if the words of the command
    are wrong, with status 1 if it could not do what they ask.
    """
    sys.excepthook = _show_crash
    try:
        sys.exit(create_app()(prog_name="ghostsr", standalone_mode=False))
    except KeyboardInterrupt:
        print("ghostsr: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        status = _explain(error)
        if status is None:
            raise
        sys.exit(status)


def _explain(error: Exception) -> int | None:
    """Print a user's mistake and return the exit status; None for an error of another kind."""
    # Wrong words are told by Typer, whose classes have changed place between its releases.
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        message = error.format_message().replace("Value error, ", "")
        command = "ghostsr" if context is None else context.command_path
        if message.startswith("Usage:"):  # Nothing was asked for.
            print(message)
            return 2
        print(f"{command}: error: {message}", file=sys.stderr)
        if context is not None:
            print(f"Try `{command} --help`.", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    # Not at the top: what else can be explained is known to the package, which loads torch.
    from ghostsr_ext.errors import GhostsrError

    if not isinstance(error, GhostsrError):
        return None
    print(f"ghostsr: error: {error}", file=sys.stderr)
    return 1
