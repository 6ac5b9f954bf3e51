"""``python -m ghostsr_cli``: the same as the command ``ghostsr``."""

from __future__ import annotations

from ghostsr_cli.main import main

if __name__ == "__main__":
    main()
