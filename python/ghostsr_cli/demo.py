"""``ghostsr demo``: a local page to compare enlargements on."""

from __future__ import annotations

from typing import Annotated

import typer

from ghostsr_cli.options import Device, short_names, torch_device


def demo_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Checkpoints; those of the package if left out."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on; by default a free one.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Serve a page that compares enlargements.

    It is served to this machine only: drop a picture and see two enlargements with a slider.
    """
    from ghostsr_ext.default_models import default_models, resolve_model
    from ghostsr_ext.demo import create_demo, launch_demo

    chosen = (
        dict(zip(short_names(models), map(resolve_model, models), strict=True))
        if models
        else default_models()
    )
    launch_demo(create_demo(chosen, device=str(torch_device(device))), port=port)
