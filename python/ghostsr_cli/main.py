"""The command ``ghostsr``: one subcommand a file, and what all of them do about errors."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from typing import Annotated

import typer

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
    """Fast super-resolution with GhostSR networks."""


def create_app() -> typer.Typer:
    """Return the command line with all its subcommands."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, (module, function) in _COMMANDS.items():
        app.command(name)(getattr(importlib.import_module(module), function))
    return app


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and status 1."""
    try:
        create_app()()
    except KeyboardInterrupt:
        print("ghostsr: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        # Not at the top: what can be explained is known to the package, which loads torch.
        from ghostsr_ext.errors import GhostsrError

        if not isinstance(error, GhostsrError):
            raise
        print(f"ghostsr: error: {error}", file=sys.stderr)
        sys.exit(1)
