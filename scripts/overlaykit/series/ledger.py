"""``releases.lock``: the wheel of every release that was ever examined.

overlay.lock is reviewed and pins the bases of the series. The ledger only records which
wheels were examined, so that a finding about a release can be reproduced from the same
bytes.
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
    """Read ``releases.lock``. Without the file, the ledger is empty.

    Raises InputError if the file is malformed.
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
    step = "restore it from version control; do not edit it by hand"
    finding = Finding(what, path=LEDGER, next_step=step)
    return InputError(f"{path} is not a valid ledger of releases: {what}", (finding,))


def with_release(there: Ledger, name: str, version: str, dist: LockedDist) -> Ledger:
    """The ledger with one more release, in order."""
    names = {known: dict(releases) for known, releases in there.releases.items()}
    names.setdefault(name, {})[version] = dist
    releases = {
        name: {version: names[name][version] for version in sorted(of, key=order)}
        for name, of in sorted(names.items())
    }
    return Ledger(_FORMAT, releases)


def encode_ledger(there: Ledger) -> bytes:
    """The ledger's bytes, as committed."""
    return msgspec.json.format(msgspec.json.encode(there)) + b"\n"
