"""Commands as a terminal gives them their arguments."""

import typer
from ghostsr_ext.errors import GhostsrError
from typer.testing import CliRunner


def invoke(command, *arguments, stdin=None):
    """Run one command; raise the error that ``ghostsr`` would explain."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if isinstance(result.exception, GhostsrError):
        raise result.exception
    return result
