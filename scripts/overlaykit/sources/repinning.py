"""Accepts a different package of a known version, by name and with a clear report.

An index sometimes replaces a package for a good reason. Using the new one is a person's
decision, made with both digests in view.
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
    """The versions that ``--accept-new-digest`` names, and the digests that changed."""

    def __init__(self, root: Path, manifest: Manifest, versions: Sequence[str]) -> None:
        """Raises InputError if a version is not pinned."""
        self.accepted = frozenset(versions)
        self._root = root
        self._records = records(root)
        self._changes: list[tuple[Target, LockedDist, tuple[Record, ...]]] = []
        dists = (target.dist for target in manifest.targets.values())
        pinned = [dist.version for dist in dists if dist is not None]
        for version in versions:
            if version not in pinned:
                what = f"{version} is not pinned"
                step = f"name one of {', '.join(dict.fromkeys(pinned))}"
                raise InputError(f"{ACCEPT}: {what}", (Finding(what, next_step=step),))

    def note(self, target: Target, dist: LockedDist) -> None:
        """Note a package that is about to be pinned.

        If its version was not named, the package was fetched by its recorded digest.
        """
        if target.package_dist.version in self.accepted:
            other = changed(self._records, dist)
            if other:
                self._changes.append((target, dist, other))

    def findings(self) -> tuple[Finding, ...]:
        """The changed digests. Raises InputError for a named version with no change."""
        there = {target.package_dist.version for target, _, _ in self._changes}
        for version in sorted(self.accepted - there):
            what = f"the digest of {version} did not change, or is not recorded yet"
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

    def summary(self) -> str:
        """The changes, for the end of a message."""
        return "".join(
            f"; THE DIGEST OF {target.release} CHANGED from "
            f"{' and '.join(sorted({one.dist.sha256 for one in other}))} "
            f"to {dist.sha256}"
            for target, dist, other in self._changes
        )

    def ledger(self) -> dict[str, bytes]:
        """The ledger's new contents if it records a changed digest; otherwise empty."""
        before = there = ledger(self._root)
        for target, dist, other in self._changes:
            for one in other:
                if one.where == LEDGER:
                    name = target.package_dist.name
                    there = with_release(there, name, one.version, dist)
        return {LEDGER: encode_ledger(there)} if there != before else {}
