import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.text import printable
from hypothesis import given
from hypothesis import strategies as st


@given(text=st.text(), most=st.integers(20, 400))
def test_whatever_comes_in_one_short_printable_line_comes_out(text: str, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) <= most
    assert printable(shown, most) == shown


@pytest.mark.parametrize("text", ["", "body.0.conv1", "Größe 2 % \N{HIRAGANA LETTER A}", r"C:\x"])
def test_what_is_fit_already_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x9b31m", r"\x9b31m"),
        ("safe\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe", r"safe\u202egnp.exe"),
        ("name\udcff", r"name\udcff"),
        ("\N{LINE SEPARATOR}", r"\u2028"),
    ],
)
def test_what_a_terminal_could_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_keeps_its_beginning_and_its_end() -> None:
    shown = printable("begin" + 10**6 * "x" + "end", 60)
    assert shown.startswith("begin")
    assert shown.endswith("end")
    assert " [...] " in shown


def test_errors_of_the_package_are_printable_lines() -> None:
    assert str(InputError("a\x1b[2J\nb")) == r"a\x1b[2J\nb"
    assert len(str(InputError(10**6 * "x"))) <= 2000
