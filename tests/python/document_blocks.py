"""The code in README.md and docs/."""

import re
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

PROJECT_ROOT = Path(__file__).resolve().parents[2]

# Commands that make what these tests run in, are these tests, change the user's shell, or need
# several processes.
LEFT_OUT = (
    "make ",
    "pip ",
    "python -m venv",
    "python -m pytest",
    "python -m cibuildwheel",
    "auditwheel ",
    "git clone",
    "ghostsr --install-completion",
    "torchrun ",
)
SCRIPTS = "python benchmarks/"
COMMANDS = ("ghostsr ", SCRIPTS, *LEFT_OUT)


def blocks(document: Path) -> Iterator[tuple[str, int, str]]:
    """The document's blocks, with the lines that they start at.

    A block is "python", "sh", or by its name a Python file.
    """
    for token in MarkdownIt().parse(document.read_text(encoding="utf-8")):
        named = re.fullmatch(r'python title="(\w+\.py)"', token.info)
        if named:
            yield named[1], token.map[0] + 1, token.content
        elif token.type == "fence" and token.info in ("python", "sh"):
            yield token.info, token.map[0] + 1, token.content
        elif token.type == "code_block" and token.content.startswith(COMMANDS):
            yield "sh", token.map[0] + 1, token.content


def shell_lines(script: str) -> list[str]:
    """The lines of a shell block; those that end in a backslash are joined with the next."""
    script = re.sub(r"\\\n\s*", " ", script)
    return [line for line in map(str.strip, script.splitlines()) if line]
