"""Where a clone's HEAD is in upstream's history, seen from the bases of the overlay.

A base is found by its commit, by its tag, or, if the clone has neither, by content: the
last commits at which the touched files are those of the base. Only the history and the
trees are read, so a blobless clone will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from overlaykit.core.git import top_of_clone
from overlaykit.core.wording import quoted
from overlaykit.repository import clones
from overlaykit.repository.refs import commit_of, has_commit, is_shallow, tag_in
from overlaykit.series.carried import Carried

_SHOWN = 12


class Lineage(msgspec.Struct, frozen=True, omit_defaults=True):
    """HEAD, and the nearest base.

    ``after`` counts the commits of HEAD that the base does not have, ``before`` those
    of the base that HEAD does not have; both are null in a shallow clone, which cannot
    say. ``touching`` are those of ``after`` that change files of the series, newest
    first: id, date and subject. ``by_content`` is true if the base was found by its
    touched files.
    """

    head: str
    described: str
    base: str | None = None
    release: str | None = None
    commit: str | None = None
    by_content: bool = False
    after: int | None = None
    before: int | None = None
    touching: tuple[str, ...] = ()

    def lines(self, clone: Path) -> Iterator[str]:
        """The lineage for people."""
        yield f"HEAD is {self.described}"
        if self.base is None or self.commit is None:
            if self.after is None:
                step = f"git -C {quoted(str(clone))} fetch --unshallow"
                yield f"the clone is shallow: its history has no base; {step}"
            else:
                yield "no base of this overlay is in its history"
            return
        at = self.commit[:12]
        name = self.release or self.base
        if self.by_content:
            name += f" (its files are those of {at})"
        elif at not in name:
            name += f" ({at})"
        if not (self.after or self.before):
            yield f"that is {name}" if not self.by_content else f"nearest base: {name}"
            return
        text = f"nearest base: {name}, {_commits(self.after or 0)} before HEAD"
        if self.before:
            text += f", beside {_commits(self.before)} of its own"
        touch = "touches" if len(self.touching) == 1 else "touch"
        yield f"{text}; {len(self.touching) or 'none'} of them {touch} the series"
        yield from (f"  {row}" for row in self.touching[:_SHOWN])
        if self.touching[_SHOWN:]:
            yield f"  and {len(self.touching) - _SHOWN} older ones"


@dataclass(frozen=True)
class _Found:
    base: Carried
    commit: str
    by_content: bool = False


def lineage(clone: Path, bases: Sequence[Carried], of: str = "HEAD") -> Lineage | None:
    """The lineage of a clone's HEAD, or of another commit, among the bases of its
    package; None if the folder is not a clone or has no commit.

    Raises EnvironmentFailure if git cannot read the history.
    """
    if of == "HEAD" and top_of_clone(clone) is None:
        return None
    head = commit_of(clone, of)
    if head is None:
        return None
    shown = clones.text(
        clone, "log", "-1", "--no-show-signature", "--format=%h, %as, %s", head
    )
    named = {base.name: _by_name(clone, base) for base in bases}
    found = [_Found(b, at) for b in bases if (at := named[b.name]) is not None]
    rest = [base for base in bases if named[base.name] is None]
    if rest:
        found += [_Found(b, at, True) for b, at in _by_content(clone, rest, head)]
    if is_shallow(clone):
        here = next((one for one in found if one.commit == head), None)
        return _of(head, shown, here, None if here is None else (0, 0))
    if not found:
        return _of(head, shown, None, (0, 0))
    counts = [_between(clone, one.commit, head) for one in found]
    nearest = min(range(len(found)), key=lambda number: sum(counts[number]))
    one = found[nearest]
    return msgspec.structs.replace(
        _of(head, shown, one, counts[nearest]), touching=_touching(clone, one, head)
    )


def _of(
    head: str, shown: str, one: _Found | None, counts: tuple[int, int] | None
) -> Lineage:
    before, after = counts or (None, None)
    if one is None:
        return Lineage(head, shown, before=before, after=after)
    base = one.base
    return Lineage(
        head, shown, base.name, base.target.release, one.commit, one.by_content,
        after, before,
    )  # fmt: skip


def _by_name(clone: Path, base: Carried) -> str | None:
    """The base's commit in the clone, by its id or its tag."""
    commit, tag = base.lock.commit, base.target.tag
    if commit is None:
        return tag_in(clone, tag) if tag is not None else None
    return commit if has_commit(clone, commit) else None


def _by_content(
    clone: Path, bases: Sequence[Carried], head: str
) -> Iterator[tuple[Carried, str]]:
    """For each base, the last commit of HEAD's history with its touched files."""
    paths = tuple(dict.fromkeys(path for base in bases for path in base.chains))
    touching = clones.text(clone, "rev-list", head, "--", *paths).split()
    asked = "".join(f"{commit}:{path}\n" for commit in touching for path in paths)
    rows = clones.run(clone, "cat-file", "--batch-check", stdin=asked.encode()).stdout
    blobs = [row.split(" ")[0] for row in rows.decode(errors="replace").splitlines()]
    states = [
        dict(zip(paths, blobs[at : at + len(paths)], strict=True))
        for at in range(0, len(blobs), len(paths))
    ]
    for base in bases:
        pinned = {path: chain[0] for path, chain in base.chains.items()}.items()
        number = next((n for n, s in enumerate(states) if pinned <= s.items()), None)
        if number == 0:
            yield base, head
        elif number is not None:
            # The files stay so until just before the next commit that touches them.
            before = f"{touching[number - 1]}^"
            yield base, clones.text(clone, "rev-parse", "--verify", before)


def _between(clone: Path, base: str, head: str) -> tuple[int, int]:
    """How many commits only the base has, and how many only HEAD."""
    counts = clones.text(
        clone, "rev-list", "--left-right", "--count", f"{base}...{head}"
    ).split()
    return int(counts[0]), int(counts[1])


def _touching(clone: Path, one: _Found, head: str) -> tuple[str, ...]:
    rows = clones.text(
        clone, "log", "--no-show-signature", "--format=%h %as %s",
        f"{one.commit}..{head}", "--", *one.base.paths,
    )  # fmt: skip
    return tuple(rows.splitlines())


def _commits(count: int) -> str:
    return f"{count:,} commit" + "s" * (count != 1)
