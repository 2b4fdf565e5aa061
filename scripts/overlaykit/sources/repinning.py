"""Another package of a version that is known: asked for by name, and said aloud.

It happens that an index replaces a package for a good reason. That one is carried from
then on is a person's decision, made with both digests in sight.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.series.digests import ACCEPT, Record, changed, digest_text, records
from overlaykit.series.ledger import LEDGER, encode_ledger, ledger, with_release
from overlaykit.series.lock import LOCK, LockedDist
from overlaykit.series.manifest import Manifest, Target


class Repinning:
    """What ``--accept-new-digest`` allows, and what came of it."""

    def __init__(self, root: Path, manifest: Manifest, versions: Sequence[str]) -> None:
        """Raises InputError for a version that is not pinned."""
        self.accepted = frozenset(versions)
        self._root = root
        self._records = records(root)
        self._changes: list[tuple[Target, LockedDist, tuple[Record, ...]]] = []
        pinned = [target.dist.version for target in manifest.targets.values()]
        for version in versions:
            if version not in pinned:
                what = f"{version} is not pinned"
                step = f"name one of {', '.join(dict.fromkeys(pinned))}"
                raise InputError(f"{ACCEPT}: {what}", (Finding(what, next_step=step),))

    def found(self, target: Target, dist: LockedDist) -> None:
        """A package that is about to be pinned. Where it was not asked for, it was
        fetched as the one that is recorded."""
        if target.dist.version in self.accepted:
            other = changed(self._records, dist)
            if other:
                self._changes.append((target, dist, other))

    def findings(self) -> tuple[Finding, ...]:
        """Each changed digest. Raises InputError for a version without one."""
        there = {target.dist.version for target, _, _ in self._changes}
        for version in sorted(self.accepted - there):
            what = f"the digest of {version} is as it was recorded, or not known yet"
            finding = Finding(what, path=LOCK, next_step=f"leave {ACCEPT} out")
            message = f"{ACCEPT}: {what}; nothing was written"
            raise InputError(message, (finding,))
        return tuple(
            Finding(
                f"THE DIGEST OF {target.release} CHANGED, as accepted",
                path=one.where,
                expected=f"{digest_text(one.dist)}, {one.dist.filename}",
                found=f"{digest_text(dist)}, {dist.filename}",
                next_step="read how the two packages differ before you commit this",
            )
            for target, dist, other in self._changes
            for one in other
        )

    def said(self) -> str:
        """For the end of a message."""
        return "".join(
            f"; THE DIGEST OF {target.release} CHANGED from "
            f"{' and '.join(sorted({one.dist.sha256 for one in other}))} "
            f"to {dist.sha256}"
            for target, dist, other in self._changes
        )

    def ledger(self) -> dict[str, bytes]:
        """The ledger with the new digests in place of its old ones, if it has any."""
        before = there = ledger(self._root)
        for target, dist, other in self._changes:
            for one in other:
                if one.where == LEDGER:
                    there = with_release(there, target.dist.name, one.version, dist)
        return {LEDGER: encode_ledger(there)} if there != before else {}
