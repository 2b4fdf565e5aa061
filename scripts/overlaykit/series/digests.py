"""What is known of a release's package, and that it never changes in silence.

A digest that is recorded was looked at by somebody; another package of the same version
is another program, whoever serves it. So overlay.lock and releases.lock must say one
thing of a release, and a package that is fetched must be what they say.
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
    """One file's word for one release."""

    where: str
    version: str
    dist: LockedDist
    release: tuple[str, str | Order]

    def __str__(self) -> str:
        return f"{told(self.dist)} in {self.where}"


def told(dist: LockedDist) -> str:
    """A wheel's bytes as a message names them."""
    return f"sha256 {dist.sha256} ({dist.size} bytes)"


def records(root: Path) -> tuple[Record, ...]:
    """What both files say. Raises InputError where one of them cannot be read."""
    return tuple(_records(read_lock(root), ledger(root)))


def _records(lock: Lock | None, ledger: Ledger) -> Iterator[Record]:
    for target in lock.targets.values() if lock is not None else ():
        name, version = release_of(target.dist.filename)
        yield Record(LOCK, version, target.dist, same_release(name, version))
    for name, releases in ledger.releases.items():
        for version, dist in releases.items():
            yield Record(LEDGER, version, dist, same_release(name, version))


def recorded(root: Path, dist: Dist) -> LockedDist | None:
    """The release's wheel, of whichever file knows it."""
    release = same_release(dist.name, dist.version)
    known = [one.dist for one in records(root) if one.release == release]
    return known[0] if known else None


def changed(known: tuple[Record, ...], found: LockedDist) -> tuple[Record, ...]:
    """The records of that wheel's release that say another digest."""
    release = same_release(*release_of(found.filename))
    return tuple(
        one
        for one in known
        if one.release == release and one.dist.sha256 != found.sha256
    )


def refuse_changed(root: Path, found: LockedDist) -> None:
    """Raises InputError where a wheel is not the one that is recorded of its release,
    in overlay.lock or in releases.lock."""
    if other := changed(records(root), found):
        raise InputError(
            f"{found.filename} is not the package that was recorded",
            tuple(
                Finding(
                    f"another package of this version is recorded in {one.where}",
                    path=found.filename,
                    expected=told(one.dist),
                    found=told(found),
                    next_step="find out who made the other package, and why; if it is "
                    f"to be carried, scripts/lock.py {ACCEPT} {one.version}",
                )
                for one in other
            ),
        )


def refuse_disagreement(root: Path, lock: Lock) -> None:
    """Raises InputError where the two files do not agree on a pinned release."""
    known = tuple(_records(None, ledger(root)))
    for target in lock.targets.values():
        for one in changed(known, target.dist):
            finding = Finding(
                f"{LOCK} and {one.where} record two packages of one version",
                path=target.dist.filename,
                expected=told(one.dist),
                found=f"{told(target.dist)} in {LOCK}",
                next_step="find out which was reviewed (git log -p), and restore the "
                f"other file; to carry another: scripts/lock.py {ACCEPT} {one.version}",
            )
            message = f"{LOCK} and {one.where} do not agree on {target.dist.filename}"
            raise InputError(message, (finding,))
