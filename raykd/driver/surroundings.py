"""What a Ray session changes in its process, put back afterwards; and how it is ended from outside."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VARIABLES = ("RAY_", "TUNE_", "PYTHONWARNINGS", "PYTHONBREAKPOINT")  # beginnings of the names
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def preserve_surroundings() -> Iterator[None]:
    """Environment variables, levels of Ray's loggers and signal handlers are afterwards what they were."""
    variables, levels, handlers = _get_variables(), _get_levels(), _get_handlers()
    try:
        yield
    finally:
        for name in _get_variables().keys() - variables:
            del os.environ[name]
        os.environ.update(variables)
        for name in _get_levels():
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _get_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


def _get_levels() -> dict[str, int]:
    loggers = {name: logging.getLogger(name) for name in logging.root.manager.loggerDict}
    return {name: logger.level for name, logger in loggers.items() if name.split(".")[0] == "ray"}


def _get_handlers() -> dict[signal.Signals, Any]:
    """Those that Python set: only these can be set again, and only by the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in handlers.items() if handler is not None}


@contextmanager
def turn_sigterm_into_interrupt() -> Iterator[None]:
    """SIGTERM (from `ray job stop`, Slurm, Kubernetes) ends a study as Ctrl-C does: resumable."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: Any) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
