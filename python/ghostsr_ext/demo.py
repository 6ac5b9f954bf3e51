"""A local page on which to drop a picture and compare two enlargements of it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.imaging import Picture, imresize, read_picture, write_picture
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.models import SRModel
from ghostsr_ext.temporary import process_folder

MAX_PIXELS = 4_000_000
"""Pixels of a picture above which the page refuses it."""

MAX_FILE_SIZE = "32mb"
BICUBIC = "bicubic"
"""What is always there to compare with."""

_HOSTS = ["127.0.0.1", "localhost"]
_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"]


def create_demo(models: Mapping[str, Path], *, device: str = "cpu") -> Any:
    """Build the page.

    Args:
        models: Checkpoints by name. The first one is read at once, the others when they are chosen.
        device: Where to compute.

    Returns:
        A ``gradio.Blocks``, to be launched with :func:`launch_demo`.

    Raises:
        InputError: No model is given, or the first one cannot be read.
        GhostsrError: Gradio is not installed.
    """
    if not models:
        raise InputError("models: none given, and none in the package")
    try:
        import gradio
    except ImportError as error:
        raise GhostsrError("the demo needs gradio: pip install 'ghostsr[demo]'") from error
    # What is dropped on the page and what is made of it goes with the process. Gradio asks for the
    # folder while it serves, too.
    os.environ["GRADIO_TEMP_DIR"] = str(process_folder())
    workbench = _Workbench(models, device)
    names = list(models)
    scales = workbench.scales(names[0])

    def compare(file: str | None, left: str, right: str, scale: int) -> tuple[Any, str, str]:
        try:
            return workbench.compare(file, left, right, int(scale))
        except GhostsrError as error:
            raise gradio.Error(_without_folder(str(error), file), print_exception=False) from error

    def offer_scales(name: str, scale: int) -> Any:
        try:
            scales = workbench.scales(name)
        except GhostsrError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        return gradio.Dropdown(choices=scales, value=scale if scale in scales else scales[0])

    with gradio.Blocks(title="ghostsr", analytics_enabled=False) as page:
        gradio.Markdown("# ghostsr\nDrop a picture, choose what to compare, and move the slider.")
        with gradio.Row():
            file = gradio.File(
                label="Picture", file_types=_SUFFIXES, type="filepath", elem_id="picture"
            )
            with gradio.Column():
                left = gradio.Dropdown([BICUBIC, *names], value=BICUBIC, label="Left")
                right = gradio.Dropdown(names, value=names[0], label="Right", elem_id="right")
                scale = gradio.Dropdown(scales, value=scales[0], label="Scale", elem_id="scale")
                button = gradio.Button("Enlarge", variant="primary", elem_id="enlarge")
        slider = gradio.ImageSlider(label="Left | right", format="png", elem_id="slider")
        times = gradio.Markdown(elem_id="times")
        result = gradio.File(label="Right, as PNG", elem_id="result")
        right.change(offer_scales, [right, scale], scale)
        # One picture at a time: what a second one waits for, both would.
        button.click(
            compare, [file, left, right, scale], [slider, times, result], concurrency_limit=1
        )
    return page


def launch_demo(page: Any, *, port: int | None = None) -> str:
    """Serve the page to this machine alone, from a thread; ``page.block_thread()`` waits for it.

    Requests are answered that name this machine as ``127.0.0.1`` or ``localhost``: a page of
    another site, whose name is made to point here, gets nothing.

    Args:
        page: What :func:`create_demo` returned.
        port: The port; None for a free one.

    Returns:
        The address.

    Raises:
        GhostsrError: The port cannot be used.
    """
    # Gradio brings them.
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    try:
        _, address, _ = page.queue(max_size=16).launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_FILE_SIZE,
            footer_links=[],
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)]},
        )
    except OSError as error:
        raise GhostsrError(f"port {port}: cannot be used ({error})") from error
    return str(address)


class _Workbench:
    """Networks that are read once, and a folder for results that goes with the process."""

    def __init__(self, models: Mapping[str, Path], device: str) -> None:
        self._models = models
        self._device = device
        self._networks: dict[str, SRModel] = {}
        self._upscalers: dict[tuple[str, int], Upscaler] = {}
        self._folder = tempfile.mkdtemp(dir=process_folder())

    def scales(self, name: str) -> list[int]:
        """Return the scales that a network serves, ascending."""
        return list(self._network(name).scales)

    def compare(self, file: str | None, left: str, right: str, scale: int) -> tuple[Any, str, str]:
        """Enlarge a picture twice; return both, the times as text, and the right one's file."""
        if file is None:
            raise InputError("picture: none given; drop one first")
        picture = read_picture(file, max_pixels=MAX_PIXELS)
        images, lines = [], []
        for side, name in (("left", left), ("right", right)):
            method = self._method(name, scale)
            start = time.perf_counter()
            enlarged = method(picture)
            seconds = time.perf_counter() - start
            lines.append(f"{side}: **{name}** took {seconds * 1e3:.0f} ms")
            images.append(_eight_bits(enlarged))
        path = Path(self._folder, f"{Path(file).stem}_x{scale}.png")
        write_picture(path, enlarged, overwrite=True)
        return tuple(images), ", ".join(lines), str(path)

    def _method(self, name: str, scale: int) -> Callable[[Picture], Picture]:
        if name == BICUBIC:
            return partial(_bicubic, scale)
        key = name, scale
        if key not in self._upscalers:
            network = self._network(name)
            network.served_scale(scale, f"{name}, scale")
            self._upscalers[key] = Upscaler(network, scale=scale, device=self._device)
        return self._upscalers[key]

    def _network(self, name: str) -> SRModel:
        if name not in self._networks:
            self._networks[name] = load_model(self._models[name])
        return self._networks[name]


def _bicubic(scale: int, picture: Picture) -> Picture:
    alpha = None if picture.alpha is None else imresize(picture.alpha, scale)
    return Picture(imresize(picture.pixels, scale), alpha, picture.gray, picture.icc_profile)


def _eight_bits(picture: Picture) -> Any:
    pixels = picture.pixels
    return pixels if pixels.dtype.itemsize == 1 else (pixels // 257).astype("uint8")


def _without_folder(message: str, file: str | None) -> str:
    return message if file is None else message.replace(file, Path(file).name)
