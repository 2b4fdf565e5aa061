"""A census that is kept by the contents of the files that it was made from.

Which files those are is known only afterwards. So an entry is found by the files that a
census starts from, those that contain one of its texts, and names all others that it
read, or looked for in vain. It holds if each of them is the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from overlaykit.core.digests import SCRIPTS, of_program, sha256
from overlaykit.core.errors import OverlayError
from overlaykit.core.kept import FOLDER, Kept, key_of
from overlaykit.trees.tree import Tree
from xscale.census.rows import Census, SiteRow, census_of, files_of

_PROGRAM = ("overlaykit", "xscale")
_NOT_THERE = "not there"


class Taken(msgspec.Struct, frozen=True):
    """The rows of a census, and the digests of the other files that it read, by
    path."""

    rows: tuple[SiteRow, ...]
    read: dict[str, str]


_KEPT: Kept[Taken] = Kept(SCRIPTS.parent / FOLDER / "census", Taken)


@dataclass
class _Noting:
    """A tree that notes what is read from it."""

    tree: Tree
    noted: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.tree.name

    def read(self, path: str) -> bytes | None:
        data = self.tree.read(path)
        self.noted[path] = sha256(data) if data is not None else _NOT_THERE
        return data

    def holds(self, path: str) -> bool:
        return self.tree.holds(path)

    def paths(self) -> Iterator[str]:
        return self.tree.paths()


def kept_census(tree: Tree, within: str = "") -> Census:
    """What :func:`xscale.census.take_census` finds."""
    files = files_of(tree, within)
    inputs = {f"file {path}": sha256(data) for path, data in files.items()}
    program = {"program": of_program(*_PROGRAM), "python": sys.version}
    key = key_of({**program, "within": within, **inputs})
    known = _KEPT.load(key)
    if known is not None and _reads_the_same(tree, known.read):
        return Census(tree.name, known.rows)
    noting = _Noting(tree)
    census = census_of(noting, files)
    _KEPT.save(key, Taken(census.rows, noting.noted))
    return census


def _reads_the_same(tree: Tree, noted: Mapping[str, str]) -> bool:
    """Whether the files are as noted. A file that cannot be read now could be then."""
    noting = _Noting(tree)
    with suppress(OverlayError):
        for path in noted:
            noting.read(path)
    return noting.noted == noted
