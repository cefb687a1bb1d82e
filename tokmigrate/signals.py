"""Signals that end a command: all like Ctrl-C, and none in the middle of what has to be finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_STOPPING = (signal.SIGINT, *_ENDING)


@contextmanager
def raise_keyboard_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt inside; one that is ignored, as under nohup, stays ignored."""
    # The handlers of an application that uses the package are its own.
    ours = [number for number in _ENDING if _is_main_thread() and signal.getsignal(number) is signal.SIG_DFL]
    with _handle(dict.fromkeys(ours, _stop)):
        yield


@contextmanager
def defer_signals() -> Iterator[None]:
    """Let what is inside come to its end; a signal that arrives meanwhile takes effect after it."""
    came: list[int] = []
    waiting = [
        number for number in _STOPPING if _is_main_thread() and signal.getsignal(number) not in (signal.SIG_IGN, None)
    ]
    with _handle(dict.fromkeys(waiting, lambda number, _: came.append(number))):
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def _handle(handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any]]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_main_thread() -> bool:
    # Only there may a handler be set, and only there is it called.
    return threading.current_thread() is threading.main_thread()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
