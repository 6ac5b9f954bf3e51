"""The documents make a site, without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest
from browser import open_browser

PROJECT_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs MkDocs (extra: docs)")
    pytest.importorskip("mkdocstrings", reason="needs mkdocstrings (extra: docs)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_document_becomes_a_page(site):
    documents = {path.stem for path in (PROJECT_ROOT / "docs").glob("*.md")}

    assert documents <= {path.stem for path in site.glob("*.html")}


@pytest.mark.parametrize(
    "name",
    [
        "ghostsr_ext.ops.ghost_conv.ghost_conv",
        "ghostsr_ext.ops.layer_cache.layer_cache",
        "ghostsr_ext.reference.ghost_conv",
        "ghostsr_ext.reference.shift_selection_backward",
        "ghostsr_ext.nn.GhostConv2d",
        "ghostsr_ext.nn.GhostConv2d.freeze_shifts",
        "ghostsr_ext.conversion.network.convert",
        "ghostsr_ext.inference.upscaler.Upscaler",
    ],
)
def test_the_operator_page_describes_what_users_call(site, name):
    assert f'id="{name}"' in (site / "operators.html").read_text(encoding="utf-8")


def test_no_markup_of_docstrings_is_left(site):
    page = (site / "operators.html").read_text(encoding="utf-8")

    for role in (":func:", ":class:", ":meth:"):
        assert role not in page


def test_pages_load_nothing_from_elsewhere(site):
    page = (site / "index.html").read_text(encoding="utf-8")

    for attribute in ('src="http', 'rel="stylesheet" href="http', 'src="//'):
        assert attribute not in page


@pytest.mark.parametrize("page", ["quick-start", "training"])
def test_code_is_colored_without_a_style_sheet(site, page):
    assert '<span style="color: #' in (site / f"{page}.html").read_text(encoding="utf-8")


def test_the_first_page_shows_a_figure_and_how_to_install(site):
    page = (site / "index.html").read_text(encoding="utf-8")

    assert 'src="images/overview.webp"' in page
    assert (site / "images/overview.webp").exists()
    assert "pip" in page


def test_pages_are_no_wider_than_a_narrow_window(site, tmp_path):
    with open_browser(tmp_path) as browser:
        from selenium.webdriver.support.ui import WebDriverWait

        browser.set_window_size(500, 900)
        for page in ("index", "speed", "conversion", "training", "operators"):
            browser.get((site / f"{page}.html").as_uri())
            # The theme's script lays out wide tables after the page has loaded.
            WebDriverWait(browser, 10).until(
                lambda browser: browser.execute_script(
                    "return document.documentElement.scrollWidth <= window.innerWidth"
                ),
                message=f"{page} is wider than the window",
            )
