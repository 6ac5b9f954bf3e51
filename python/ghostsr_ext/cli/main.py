"""The command's entry in installations made before ``ghostsr_cli`` was a package."""

from __future__ import annotations

from ghostsr_cli.main import main

__all__ = ["main"]
