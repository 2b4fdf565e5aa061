"""Trees in memory, to be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.commits import Clones, make_clones
from faults.harness import Contents, apply, contents, copy, memory_folder


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder in memory."""
    with memory_folder() as folder:
        yield folder


@dataclass(frozen=True)
class Pair:
    """A tree without the overlay and one with it, to be copied, and their contents."""

    old: Path
    new: Path
    before: Contents
    after: Contents

    def ends(self, unapply: bool) -> tuple[Path, Contents, Contents]:
        """The tree that a run starts from, and the contents before and after it."""
        if unapply:
            return self.new, self.after, self.before
        return self.old, self.before, self.after


@pytest.fixture
def pair(slim: Callable[..., Path], room: Path) -> Pair:
    """SGLang with a read-only and an executable file, a closed folder: modes count."""
    old = copy(slim(clone=False), room / "old")
    touched = sorted(old.rglob("communicator.py"))[0]
    touched.chmod(0o444)
    sorted(old.rglob("forward_mla.py"))[0].chmod(0o755)
    (old / "test").mkdir(mode=0o750)
    (old / "test" / "README").write_text("here before")
    new = copy(old, room / "new")
    done = apply(room, new)
    assert done.code == 0, done.text
    return Pair(old, new, contents(old), contents(new))


@pytest.fixture
def clones(slim: Callable[..., Path], room: Path) -> Clones:
    """SGLang as a clone, for --commit."""
    return make_clones(slim, room)
