"""Recorded package digests, and a refusal when one changes silently.

Somebody reviewed each recorded digest. A different package of the same version is a
different program, no matter which server offers it. So overlay.lock and releases.lock
must record the same digest for a release, and a fetched package must match it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.versions import Order, release_of, same_release
from overlaykit.series.ledger import LEDGER, Ledger, ledger
from overlaykit.series.lock import LOCK, Lock, LockedDist, read_lock
from overlaykit.series.manifest import Dist

ACCEPT = "--accept-new-digest"


@dataclass(frozen=True)
class Record:
    """One release as one of the two files records it."""

    where: str
    version: str
    dist: LockedDist
    release: tuple[str, str | Order]

    def __str__(self) -> str:
        return f"{digest_text(self.dist)} in {self.where}"


def digest_text(dist: LockedDist) -> str:
    """A wheel's digest and size, for a message."""
    return f"sha256 {dist.sha256} ({dist.size} bytes)"


def records(root: Path) -> tuple[Record, ...]:
    """The records of both files. Raises InputError if one cannot be read."""
    return tuple(_records(read_lock(root), ledger(root)))


def _records(lock: Lock | None, ledger: Ledger) -> Iterator[Record]:
    for target in lock.targets.values() if lock is not None else ():
        if target.dist is None:
            continue
        name, version = release_of(target.dist.filename)
        yield Record(LOCK, version, target.dist, same_release(name, version))
    for name, releases in ledger.releases.items():
        for version, dist in releases.items():
            yield Record(LEDGER, version, dist, same_release(name, version))


def recorded(root: Path, dist: Dist) -> LockedDist | None:
    """The recorded wheel of a release, from either file; None without a record."""
    release = same_release(dist.name, dist.version)
    known = [one.dist for one in records(root) if one.release == release]
    return known[0] if known else None


def changed(known: tuple[Record, ...], found: LockedDist) -> tuple[Record, ...]:
    """The records of the wheel's release that have a different digest."""
    release = same_release(*release_of(found.filename))
    return tuple(
        one
        for one in known
        if one.release == release and one.dist.sha256 != found.sha256
    )


def refuse_changed(root: Path, found: LockedDist) -> None:
    """Raises InputError if overlay.lock or releases.lock records another wheel for the
    release."""
    if other := changed(records(root), found):
        raise InputError(
            f"{found.filename} does not match the recorded package",
            tuple(
                Finding(
                    f"{one.where} records another package of this version",
                    path=found.filename,
                    expected=digest_text(one.dist),
                    found=digest_text(found),
                    next_step="find out who changed the package and why; to accept it, "
                    f"run scripts/lock.py {ACCEPT} {one.version}",
                )
                for one in other
            ),
        )


def refuse_disagreement(root: Path, lock: Lock) -> None:
    """Raises InputError if the two files disagree on a pinned release."""
    known = tuple(_records(None, ledger(root)))
    for target in lock.targets.values():
        if target.dist is None:
            continue
        for one in changed(known, target.dist):
            finding = Finding(
                f"{LOCK} and {one.where} record different packages of one version",
                path=target.dist.filename,
                expected=digest_text(one.dist),
                found=f"{digest_text(target.dist)} in {LOCK}",
                next_step="find out which one was reviewed (git log -p), restore the "
                f"other file, or run scripts/lock.py {ACCEPT} {one.version}",
            )
            message = f"{LOCK} and {one.where} disagree on {target.dist.filename}"
            raise InputError(message, (finding,))
