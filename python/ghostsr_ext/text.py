"""Text of unknown origin, made fit to be shown on a terminal."""

from __future__ import annotations

_LEFT_OUT = " [...] "


def printable(text: object, most: int = 300) -> str:
    r"""Return text that can be printed wherever it came from.

    What a terminal could take for a command (control characters, line ends, marks that turn the
    direction of writing) stands as its escape, such as ``\x1b``; what is too long loses its middle.
    Text that is fit already is returned as it is, so that it does no harm to do this twice.

    Args:
        text: A name, a message or a value from a file; what is no text is shown as ``str`` does.
        most: Characters to keep, 20 or more.
    """
    whole = text if isinstance(text, str) else str(text)
    shown = _shortened(whole, most)
    if not shown.isprintable():
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
        shown = _shortened("".join(escaped), most)
    return shown


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = (most - len(_LEFT_OUT)) // 3
    return text[: most - len(_LEFT_OUT) - end] + _LEFT_OUT + text[-end:]
