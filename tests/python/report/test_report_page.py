import re

import numpy as np
import pytest
import torch
from browser import open_browser
from ghostsr_ext.conversion import convert
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import imresize, write_image
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.report import write_report
from PIL import Image

HOSTILE_NAME = "<script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    generator = np.random.default_rng(0)
    (folder / "set").mkdir()
    for name in ("one", "two"):
        rough = generator.integers(0, 256, (12, 15, 3), np.uint8)
        write_image(folder / f"set/{name}.png", imresize(rough, 10))
    dense = EDSR(scale=2, blocks=2, features=8)
    ghost, _ = convert(dense)
    shifts = torch.tensor([[0, 1], [-1, 0], [1, 1], [0, -1]])
    ghost.body[1].conv1.set_tables(torch.tensor([2, 0, 3, 3]), shifts)
    comparison = write_report(
        folder / "report.html",
        {"dense": dense, "ghost": ghost, HOSTILE_NAME: ghost},
        open_picture_set(folder / "set"),
        size=(16, 16),
        repeats=2,
        picture_folder=folder / "pictures",
    )
    return folder, comparison


def test_the_page_needs_nothing_beside_it(written):
    folder, _ = written
    page = (folder / "report.html").read_text()

    assert all(uri.startswith("data:") for uri in re.findall(r'src="([^"]*)"', page))
    assert not re.search(r"https?://", page)


def test_the_page_shows_what_was_measured(written):
    folder, comparison = written
    page = (folder / "report.html").read_text()

    for row in comparison.rows()[:3]:
        for cell in row.values():
            assert f"<td>{cell}</td>" in page
    assert all(network.psnr is not None for network in comparison.networks)


def test_the_pictures_are_written_too(written):
    folder, _ = written
    names = {path.name for path in (folder / "pictures").iterdir()}

    assert {"one_bicubic.png", "one_dense.png", "one_ghost.png", "two_original.png"} <= names
    for network in ("dense", "ghost"):
        assert sum(name.startswith(f"{network}_body.1.conv1_") for name in names) == 8
    with Image.open(folder / "pictures/one_dense.png") as image:
        assert image.size == (2 * 96, 2 * 96)


def test_the_slider_uncovers_the_other_network(written, tmp_path):
    folder, _ = written
    with open_browser(tmp_path) as browser:
        browser.get((folder / "report.html").as_uri())

        assert browser.title == "ghost beside dense"
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
        slider = browser.find_element("css selector", "input[type=range]")
        over = browser.find_element("css selector", ".slider .over")
        assert "50%" in over.value_of_css_property("clip-path")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
        slider.send_keys("\ue012" * 20)
        assert slider.get_attribute("value") == "30"
        assert "30%" in over.value_of_css_property("clip-path")


def test_ghost_channels_are_shown_after_the_sources_that_they_are_made_from(written):
    """The pictures of the page: each ghost's is its source's, moved by the shift below it."""
    folder, _ = written
    page = (folder / "report.html").read_text()
    section = page[page.index("What the ghost layer computes") :]
    shown = re.findall(
        r'alt="source (\d+)">.*?alt="ghost (\d+)">.*?>\((-?\d), (-?\d)\)<', section, re.DOTALL
    )
    assert len(shown) == 4
    for source, ghost, dy, dx in (map(int, entry) for entry in shown):
        first, second = (
            np.asarray(Image.open(folder / f"pictures/ghost_body.1.conv1_{channel}.png"), int)
            for channel in (source, ghost)
        )
        inside = np.s_[1 - dy : 59 - dy, 1 - dx : 74 - dx]
        moved = first[1:59, 1:74]
        # Ranges are stretched map by map: the same but for a gain and an offset.
        assert np.corrcoef(moved.ravel(), second[inside].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_is_no_wider_than_its_window(written, tmp_path, width):
    folder, _ = written
    with open_browser(tmp_path) as browser:
        browser.set_window_size(width, 900)
        browser.get((folder / "report.html").as_uri())
        content, window = browser.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert content <= window


def test_names_cannot_put_anything_into_the_page(written, tmp_path):
    folder, _ = written

    assert HOSTILE_NAME not in (folder / "report.html").read_text()


def test_an_existing_page_is_kept(written):
    folder, _ = written
    dense = EDSR(scale=2, blocks=1, features=4)

    with pytest.raises(InputError, match="exists already"):
        write_report(
            folder / "report.html",
            {"a": dense, "b": convert(dense)[0]},
            open_picture_set(folder / "set"),
        )


def test_one_network_is_not_enough(written, tmp_path):
    folder, _ = written

    with pytest.raises(InputError, match="a dense and a converted network are needed"):
        write_report(
            tmp_path / "a.html",
            {"a": EDSR(scale=2, blocks=1, features=4)},
            open_picture_set(folder / "set"),
        )
