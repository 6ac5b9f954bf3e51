import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import open_browser
from ghostsr_cli.main import create_app
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.default_models import default_models
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.imaging import read_picture, write_image
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.sample_pictures import picture_folder
from typer.testing import CliRunner

gradio = pytest.importorskip("gradio", reason="the demo needs gradio (extra: demo)")

from ghostsr_ext.demo import create_demo, launch_demo  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a page with the networks of the package."""
    page = create_demo(default_models())
    yield launch_demo(page)
    page.close()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def field_for_files(browser, address):
    browser.get(address)
    return wait_for(lambda: browser.find_elements("css selector", "#picture input[type=file]"))[0]


def wait_until_shown(browser, path):
    wait_for(lambda: path.stem in browser.find_element("id", "picture").text)


def choose(browser, address, path):
    field_for_files(browser, address).send_keys(str(path))
    wait_until_shown(browser, path)


def drop(browser, address, path):
    """Drop a file on the page as the browser does when a person lets go of it there."""
    field_for_files(browser, address)
    place = browser.find_element("css selector", "#picture button").rect
    event = {
        "x": place["x"] + place["width"] / 2,
        "y": place["y"] + place["height"] / 2,
        "data": {"items": [], "files": [str(path)], "dragOperationsMask": 1},
    }
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **event})
    wait_until_shown(browser, path)


def select(browser, element_id, text):
    field = browser.find_element("css selector", f"#{element_id} input")
    field.click()
    for option in wait_for(lambda: browser.find_elements("css selector", "[role=option]")):
        if option.text.strip().endswith(text):
            option.click()
            return
    raise AssertionError(f"{element_id} offers no {text}")


@pytest.mark.slow
def test_a_dropped_photograph_becomes_what_the_command_makes_of_it(served, tmp_path):
    photograph = picture_folder("samples") / "china.jpg"
    with open_browser(tmp_path) as browser:
        drop(browser, served, photograph)
        select(browser, "right", "x3")
        scale = browser.find_element("css selector", "#scale input")
        wait_for(lambda: scale.get_attribute("value") == "3")
        browser.find_element("id", "enlarge").click()

        times = wait_for(lambda: browser.find_element("id", "times").text)
        assert "left: bicubic took" in times
        assert "right: x3 took" in times
        images = wait_for(lambda: browser.find_elements("css selector", "#slider img"))
        assert len(images) >= 2
        link = wait_for(lambda: browser.find_elements("css selector", "#result a[href]"))[0]
        with urllib.request.urlopen(link.get_attribute("href")) as response:
            Path(tmp_path, "of_page.png").write_bytes(response.read())

    of_command = tmp_path / "of_command.png"
    command = ["upscale", str(photograph), "--scale", "3", "--output", str(of_command)]
    assert CliRunner().invoke(create_app(), command).exit_code == 0
    np.testing.assert_array_equal(
        read_picture(tmp_path / "of_page.png").pixels, read_picture(of_command).pixels
    )


def test_an_untouched_page_enlarges_the_picture(served, tmp_path):
    write_image(tmp_path / "photo.png", RNG.integers(0, 256, (24, 32, 3), np.uint8))
    with open_browser(tmp_path) as browser:
        choose(browser, served, tmp_path / "photo.png")
        browser.find_element("id", "enlarge").click()

        assert "right: x2 took" in wait_for(lambda: browser.find_element("id", "times").text)


@pytest.mark.parametrize("kind", ["hostile", "huge"])
def test_hostile_and_huge_uploads_are_refused(served, tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    if kind == "hostile":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + RNG.bytes(300))
        message = "hostile.png: is "
    else:
        write_image(path, np.zeros((2001, 2000, 3), np.uint8))
        message = "huge.png: 2000x2001 is too large; at most 4000000 pixels are read"
    with open_browser(tmp_path) as browser:
        choose(browser, served, path)
        browser.find_element("id", "enlarge").click()

        wait_for(lambda: message in browser.find_element("tag name", "body").text)


def test_the_page_is_served_to_this_machine_alone(served):
    assert served.startswith("http://127.0.0.1:")
    port = int(served.rstrip("/").rpartition(":")[2])
    for kind, _, _, _, (host, *_) in socket.getaddrinfo(socket.gethostname(), None):
        if kind == socket.AF_INET and not host.startswith("127."):
            with socket.socket() as other, pytest.raises(OSError, match="refused"):
                other.connect((host, port))


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/file=/etc/hostname"])
@pytest.mark.parametrize(
    ("host", "answered"),
    [("127.0.0.1", True), ("localhost", True), ("evil.example", False), ("127.0.0.1.evil", False)],
)
def test_only_the_names_of_this_machine_are_answered(served, path, host, answered):
    port = int(served.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    response = connection.getresponse()
    content = response.read()
    connection.close()

    if answered:
        assert response.status in (200, 403, 404)
    else:
        assert (response.status, content) == (400, b"Invalid host header")


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
def test_uploads_are_removed_when_the_demo_ends(tmp_path, number):
    model, temporary = tmp_path / "net.safetensors", tmp_path / "temporary"
    temporary.mkdir()
    save_model(EDSR(scale=2, blocks=1, features=4), model)
    server = subprocess.Popen(
        [sys.executable, "-m", "ghostsr_cli", "demo", model],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "GRADIO_TEMP_DIR": "",
            "PYTHONUNBUFFERED": "1",
        },
    )
    try:
        _, address, *_ = server.stdout.readline().split()
        boundary = "----boundary"
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
            f"Content-Type: image/png\r\n\r\nprivate\r\n--{boundary}--\r\n"
        )
        request = urllib.request.Request(
            f"{address.rstrip('/')}/gradio_api/upload",
            body.encode(),
            {"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        with urllib.request.urlopen(request) as response:
            (uploaded,) = json.load(response)
        assert Path(uploaded).read_bytes() == b"private"
        assert temporary in Path(uploaded).parents
    finally:
        server.send_signal(number)
        server.wait(60)
        server.stdout.close()

    wait_for(lambda: not any(temporary.glob("ghostsr-*")))
    assert not Path(uploaded).exists()


def test_without_models_there_is_nothing_to_show():
    with pytest.raises(InputError, match="models: none given"):
        create_demo({})


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)

    with pytest.raises(GhostsrError, match=r"pip install 'ghostsr\[demo\]'"):
        create_demo({"a": Path("a")})
