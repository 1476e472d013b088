"""Signals that end the command as Ctrl-C does, without leaving files behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, NoReturn

from .console import complain
from .parsing import EXIT_INTERRUPTED

INTERRUPTED = "interrupted, nothing was written."

_Handler = Callable[[int, FrameType | None], Any]
# Windows has no SIGHUP: there a closed console ends the process.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def ending_signals() -> Iterator[None]:
    """Make SIGTERM, and SIGHUP of a closed terminal, raise KeyboardInterrupt."""
    with ExitStack() as stack:
        for number in _ENDING:
            stack.enter_context(_handled(number, signal.default_int_handler))
        yield


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Make these signals end the process at once: an import may ignore an exception."""
    with ExitStack() as stack:
        for number in (signal.SIGINT, *_ENDING):
            stack.enter_context(_handled(number, _leave))
        yield


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    complain(INTERRUPTED)
    os._exit(EXIT_INTERRUPTED)


@contextmanager
def _handled(number: signal.Signals, handler: _Handler) -> Iterator[None]:
    """Handle a signal unless it already has another handler or is ignored, as under nohup."""
    ours = (signal.SIG_DFL, signal.default_int_handler)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(number) not in ours:
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
