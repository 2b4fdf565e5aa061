"""Processes that a test started, as /proc shows them."""

from __future__ import annotations

import os
from pathlib import Path


def alive(pid: int, started: str = "") -> bool:
    """Whether the process (that started then) has not ended; a zombie has."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z" and started in ("", fields[19])


def family(pid: int) -> list[tuple[int, str]]:
    """A process's descendants, parents before children, by pid and start time, because
    pids are reused."""
    parents: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(place.name)):
            parents.setdefault(int(fields[1]), []).append(int(place.name))
    found, queue = [], [pid]
    while queue:
        for child in parents.get(queue.pop(), []):
            if fields := _stat(child):
                found.append((child, fields[19]))
                queue.append(child)
    return found


def running(where: Path) -> list[str]:
    """The command lines that contain a path, of processes that are not zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # Another test's process may have arguments that are not UTF-8.
            words = os.fsdecode((entry / "cmdline").read_bytes().replace(b"\0", b" "))
        except OSError:
            continue
        if str(where) in words and int(entry.name) != os.getpid():
            found.append(f"{entry.name} {words}")
    return found


def _stat(pid: int) -> list[str]:
    """The fields of its stat file, starting at the state; empty if it ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(") ")[2].split()
