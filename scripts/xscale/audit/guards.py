"""The dead guards of a tree, by the names that a user gives them.

A guard is a line that reads an attribute which the format's linears do not have. It is
named by its function, by its own line, or by the line of a test that it keeps shut, as
``verify --numeric`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from overlaykit.core.errors import Finding, InputError
from xscale.numeric.lives import Life, LiveState, MissedRead

ALL = "all"
"""The name of all dead guards together."""


@dataclass(frozen=True)
class DeadGuard:
    """``reads`` is the attribute that it looks for, ``instead`` the one that the linear
    has in its place, or ''. ``tests`` are the shut tests, ``sites`` those behind."""

    path: str
    line: int
    function: str
    reads: str
    instead: str
    sites: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.function.rpartition(".")[2]

    @property
    def at(self) -> str:
        return f"{self.path}:{self.line}"

    def is_named(self, name: str) -> bool:
        """A path may be shortened from the left."""
        places = (f"/{place}" for place in (self.at, *self.tests))
        return name in (self.name, self.function) or (
            ":" in name and any(place.endswith(f"/{name}") for place in places)
        )


def dead_guards(states: Mapping[str, LiveState]) -> tuple[DeadGuard, ...]:
    """Each guard once, with all of its sites."""
    found: dict[tuple[str, int], DeadGuard] = {}
    for state in states.values():
        for read in state.reads if state.state is Life.DEAD else ():
            guard = found.setdefault((read.path, read.line), _guard(read))
            found[read.path, read.line] = replace(
                guard,
                sites=_with(guard.sites, state.site),
                tests=_with(guard.tests, state.at),
            )
    return tuple(found.values())


def chosen(guards: Iterable[DeadGuard], name: str) -> tuple[DeadGuard, ...]:
    """The guards of that name. Raises InputError if there is none, or if one of them
    cannot be opened."""
    guards = tuple(guards)
    found = tuple(g for g in guards if name == ALL or g.is_named(name))
    if not found:
        what = f"no dead guard is named {name}"
        raise InputError(what, tuple(map(_described, guards)))
    for guard in found:
        if not guard.instead:
            step = "open it in the tree, then run verify.py --numeric"
            finding = replace(_described(guard), next_step=step)
            what = f"{guard.name} cannot be opened: no attribute is like {guard.reads}"
            raise InputError(what, (finding,))
    return found


def _guard(read: MissedRead) -> DeadGuard:
    like = (name for name in read.has if name.startswith(read.name))
    where = read.path, read.line, read.function
    return DeadGuard(*where, read.name, next(like, ""), (), ())


def _with(values: tuple[str, ...], more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*values, *filter(None, (more,)))))


def _described(guard: DeadGuard) -> Finding:
    return Finding(
        f"{guard.function} reads {guard.reads}",
        path=guard.path,
        line=guard.line,
        site=" ".join(guard.sites),
        next_step=f"--open {guard.name}, --open {guard.at} or --open {ALL}",
    )
