"""The command ``ghostsr``: one subcommand a file, and what all of them do about errors."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

# Each command's module imports what is heavy inside its function, so that `ghostsr --help` is
# instant.
_COMMANDS = {
    "upscale": ("ghostsr_ext.cli.upscale", "upscale_command"),
    "convert": ("ghostsr_ext.cli.convert", "convert_command"),
    "train": ("ghostsr_ext.cli.train", "train_command"),
    "eval": ("ghostsr_ext.cli.eval", "evaluate_command"),
    "bench": ("ghostsr_ext.cli.bench", "bench_command"),
    "export": ("ghostsr_ext.cli.export", "export_command"),
    "report": ("ghostsr_ext.cli.report", "report_command"),
    "demo": ("ghostsr_ext.cli.demo", "demo_command"),
    "info": ("ghostsr_ext.cli.info", "info_command"),
}

_INTERRUPTED = 130


def _print_version(wanted: bool) -> None:
    if wanted:
        import ghostsr_ext

        typer.echo(f"ghostsr {ghostsr_ext.__version__}")
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
    from ghostsr_ext.errors import GhostsrError

    try:
        create_app()()
    except GhostsrError as error:
        print(f"ghostsr: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("ghostsr: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
