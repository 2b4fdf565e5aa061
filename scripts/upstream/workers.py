"""Worker processes that end when this process ends, even if it is killed.

A pool's workers wait for their next job on a queue that each of them keeps open, so
the end of the pool's process does not end them.
"""

from __future__ import annotations

import _thread
import gc
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import ParamSpec, TypeVar

PROCESSES = 2
_MEMORY = "/dev/shm"
_COLLECTION = 20_000, 50, 100
"""How rarely Python looks for garbage; see :func:`gc.set_threshold`."""
_working = threading.Lock()
"""Held by a worker while it does a job."""

_Words = ParamSpec("_Words")
_Found = TypeVar("_Found")


def pool(processes: int = PROCESSES) -> ProcessPoolExecutor:
    """The workers; their jobs are submitted as :func:`job`."""
    return ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _start_worker
    )


def job(
    work: Callable[_Words, _Found], *args: _Words.args, **kwargs: _Words.kwargs
) -> _Found:
    """Do a job in a worker."""
    with _working:
        return work(*args, **kwargs)


def _start_worker() -> None:
    # The trees that are kept in memory are no garbage.
    gc.set_threshold(*_COLLECTION)
    # A merge makes and removes hundreds of small files, which is slow on a disk.
    if os.access(_MEMORY, os.W_OK):
        tempfile.tempdir = _MEMORY
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the pool's process has ended, then end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    if _working.locked():
        # An interrupted job removes its scratch folders.
        _thread.interrupt_main()
    with _working:
        os._exit(1)
