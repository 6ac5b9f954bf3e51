"""Ctrl-C at a place where work can stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class DeferredInterrupt:
    """Puts off the first Ctrl-C to the end of its block; the second one interrupts as ever.

    It does nothing outside of the main thread, and where somebody handles the signal already.

    Attributes:
        asked: Whether there was one. Whoever looks may raise the KeyboardInterrupt earlier.
    """

    def __init__(self) -> None:
        self.asked = False
        self._active = False

    def __enter__(self) -> DeferredInterrupt:
        ordinary = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._active = ordinary and threading.current_thread() is threading.main_thread()
        if self._active:
            signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.asked and kind is None:
            raise KeyboardInterrupt

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
