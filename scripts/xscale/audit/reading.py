"""Read the audits in a report of ``verify --open --json``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from overlaykit.core.documents import from_json
from overlaykit.core.errors import Finding, InputError
from xscale.audit.auditing import Audit

_STEP = "scripts/verify.py --numeric --open GUARD --json ... > REPORT"


class _Result(msgspec.Struct, frozen=True):
    target: str
    audit: Audit


class _Report(msgspec.Struct, frozen=True):
    results: tuple[_Result, ...]


def audits_in(path: Path) -> tuple[tuple[str, Audit], ...]:
    """The audits with their targets. Raises InputError if the file has none."""
    try:
        report = from_json(path.read_bytes(), _Report)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    except msgspec.DecodeError as error:
        raise _refused(path, str(error)) from error
    if not report.results:
        raise _refused(path, "no result")
    return tuple((result.target, result.audit) for result in report.results)


def _refused(path: Path, found: str) -> InputError:
    finding = Finding(
        "is not a report of an audit",
        path=str(path),
        expected="the JSON of verify.py --open",
        found=found,
        next_step=_STEP,
    )
    return InputError("cannot read the audit", (finding,))
