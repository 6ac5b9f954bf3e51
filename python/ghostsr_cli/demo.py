"""``ghostsr demo``: a local page to compare enlargements on."""

from __future__ import annotations

from typing import Annotated

import typer

from ghostsr_cli.options import Device, short_names, torch_device
from ghostsr_cli.output import say


def demo_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Checkpoint files; by default the networks of the package."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, metavar="N", help="Port to listen on; by default a free one."
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Serve a page that compares enlargements.

    Open the address that it prints, drop a picture on the page, and compare two enlargements with a
    slider. The page is served to this machine only.
    """
    from ghostsr_ext.default_models import default_models, resolve_model
    from ghostsr_ext.demo import create_demo, launch_demo

    chosen = (
        dict(zip(short_names(models), map(resolve_model, models), strict=True))
        if models
        else default_models()
    )
    page = create_demo(chosen, device=str(torch_device(device)))
    say(f"open {launch_demo(page, port=port)} in a browser; Ctrl-C ends the demo")
    page.block_thread()
