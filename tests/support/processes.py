"""Processes that a test started, as /proc shows them."""

from __future__ import annotations

from pathlib import Path


def alive(pid: int) -> bool:
    """Whether the process has not ended; a zombie has."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def same_alive(pid: int, started: str) -> bool:
    """Whether the process that started then has not ended."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z" and fields[19] == started


def family(pid: int) -> set[tuple[int, str]]:
    """A process's descendants, by pid and start time, because pids are reused."""
    parents: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(place.name)):
            parents.setdefault(int(fields[1]), []).append(int(place.name))
    found, queue = set(), [pid]
    while queue:
        for child in parents.get(queue.pop(), []):
            if fields := _stat(child):
                found.add((child, fields[19]))
                queue.append(child)
    return found


def _stat(pid: int) -> list[str]:
    """The fields of its stat file, starting at the state; empty if it ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(") ")[2].split()
