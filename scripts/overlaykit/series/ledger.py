"""``releases.lock``: the wheel of every release that was ever looked at.

overlay.lock is reviewed and pins what the series is made for; the ledger is a record of
what was seen, so that a finding about a release can be made again from the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from overlaykit.core.documents import from_json
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.versions import order
from overlaykit.series.lock import LockedDist, check_dist

LEDGER = "releases.lock"
_FORMAT = 1

Releases = dict[str, dict[str, LockedDist]]


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of ``releases.lock``: wheels by distribution and version."""

    format: int = _FORMAT
    releases: Releases = {}


def ledger(root: Path) -> Ledger:
    """Read ``releases.lock``; an overlay without one has met no release yet.

    Raises InputError where it is malformed.
    """
    path = root / LEDGER
    try:
        found = from_json(path.read_bytes(), Ledger)
    except FileNotFoundError:
        return Ledger()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, str(error)) from error
    if found.format != _FORMAT:
        raise _wrong(path, f"format {found.format}, expected {_FORMAT}")
    for releases in found.releases.values():
        for version, dist in releases.items():
            try:
                order(version)
                check_dist(dist)
            except InputError as error:
                raise _wrong(path, error.message) from error
    return found


def _wrong(path: Path, what: str) -> InputError:
    step = "restore it from version control; it is never edited by hand"
    finding = Finding(what, path=LEDGER, next_step=step)
    return InputError(f"{path} is not a ledger of releases: {what}", (finding,))


def with_release(there: Ledger, name: str, version: str, dist: LockedDist) -> Ledger:
    """The ledger with that release in it, in order."""
    names = {known: dict(releases) for known, releases in there.releases.items()}
    names.setdefault(name, {})[version] = dist
    releases = {
        name: {version: names[name][version] for version in sorted(of, key=order)}
        for name, of in sorted(names.items())
    }
    return Ledger(_FORMAT, releases)


def encode_ledger(there: Ledger) -> bytes:
    """The ledger as it is committed."""
    return msgspec.json.format(msgspec.json.encode(there)) + b"\n"
