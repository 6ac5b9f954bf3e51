"""The option ``--import``, which every command that takes a model has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import this Python module first: one that registers networks of your own. May be "
        "given several times. The environment variable GHOSTSR_IMPORT does the same.",
    ),
]


def with_imports(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command with the option ``--import`` behind its own."""

    @functools.wraps(command)
    def run(*arguments: Any, imports: list[str] | None = None, **options: Any) -> Any:
        if imports:
            from ghostsr_ext.models import import_modules

            import_modules(imports)
        return command(*arguments, **options)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter(
        "imports", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Imports
    )
    parameters = [*signature.parameters.values(), option]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # Typer follows it to the signature of the command itself.
    del run.__wrapped__
    return run
