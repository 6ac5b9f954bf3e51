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
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.imaging import read_picture, write_image
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.models.edsr import EDSR

gradio = pytest.importorskip("gradio", reason="the demo needs gradio (extra: demo)")

from ghostsr_ext.demo import create_demo, launch_demo  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    for name in ("dense", "ghost"):
        save_model(EDSR(scale=2, blocks=1, features=4), folder / f"{name}.safetensors")
    page = create_demo({name: folder / f"{name}.safetensors" for name in ("dense", "ghost")})
    address = launch_demo(page, block=False)
    yield folder, address
    page.close()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def upload(browser, address, path):
    browser.get(address)
    field = wait_for(lambda: browser.find_elements("css selector", "input[type=file]"))[0]
    field.send_keys(str(path))
    wait_for(lambda: path.stem in browser.find_element("tag name", "body").text)


def test_a_picture_is_enlarged_compared_and_downloaded(served, tmp_path):
    folder, address = served
    write_image(tmp_path / "photo.png", RNG.integers(0, 256, (24, 32, 3), np.uint8))
    with open_browser(tmp_path) as browser:
        upload(browser, address, tmp_path / "photo.png")
        browser.find_element("id", "enlarge").click()

        times = wait_for(lambda: browser.find_element("id", "times").text)
        assert "left: bicubic took" in times
        assert "right: ghost took" in times
        images = wait_for(lambda: browser.find_elements("css selector", "#slider img"))
        assert len(images) >= 2
        link = wait_for(lambda: browser.find_elements("css selector", "#result a[href]"))[0]
        with urllib.request.urlopen(link.get_attribute("href")) as response:
            Path(tmp_path, "result.png").write_bytes(response.read())

    expected = Upscaler(folder / "ghost.safetensors")(read_picture(tmp_path / "photo.png"))
    np.testing.assert_array_equal(read_picture(tmp_path / "result.png").pixels, expected.pixels)


@pytest.mark.parametrize("kind", ["hostile", "huge"])
def test_hostile_and_huge_uploads_are_refused(served, tmp_path, kind):
    _, address = served
    path = tmp_path / f"{kind}.png"
    if kind == "hostile":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + RNG.bytes(300))
        message = "hostile.png: is "
    else:
        write_image(path, np.zeros((2001, 2000, 3), np.uint8))
        message = "huge.png: 2000x2001 is too large; at most 4000000 pixels are read"
    with open_browser(tmp_path) as browser:
        upload(browser, address, path)
        browser.find_element("id", "enlarge").click()

        wait_for(lambda: message in browser.find_element("tag name", "body").text)


def test_the_page_is_served_to_this_machine_alone(served):
    _, address = served

    assert address.startswith("http://127.0.0.1:")
    port = int(address.rstrip("/").rpartition(":")[2])
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
    _, address = served
    port = int(address.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    response = connection.getresponse()
    content = response.read()
    connection.close()

    if answered:
        assert response.status in (200, 403, 404)
    else:
        assert (response.status, content) == (400, b"Invalid host header")


SERVER = """
import sys, time
from pathlib import Path
from ghostsr_ext.demo import create_demo, launch_demo
address = launch_demo(create_demo({"dense": Path(sys.argv[1])}), block=False)
print(address, flush=True)
time.sleep(600)
"""


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
        [sys.executable, "-c", SERVER, model],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "GRADIO_TEMP_DIR": ""},
    )
    try:
        address = server.stdout.readline().strip()
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
