"""``report.json`` against its committed schema.

Run as a program, it prints the current schema:
``.venv/bin/python tests/gatekit/report/test_schema.py > docs/gate-report.schema.json``.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[3]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "ci")]

import msgspec  # noqa: E402

from gatekit.report.schema import GateReport, StageState  # noqa: E402

if TYPE_CHECKING:
    from .conftest import Gate


def schema() -> str:
    """The schema. The evidence is described by docs/report.schema.json instead."""
    found = _flush(msgspec.json.schema(GateReport))
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def _flush(value: Any) -> Any:
    """Docstrings without indentation, as Python 3.13 and later have them."""
    if isinstance(value, list):
        return [_flush(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inspect.cleandoc(one)
        if key == "description" and isinstance(one, str)
        else _flush(one)
        for key, one in value.items()
    }


def test_the_committed_schema_is_current() -> None:
    committed = (ROOT / "docs" / "gate-report.schema.json").read_text(encoding="utf-8")
    assert committed == schema()


def test_reports_match_the_schema(gate: Gate) -> None:
    import jsonschema

    lost = {"traces": {"state": StageState.NOT_RUN, "reason": "why", "evidence": {}}}
    for report in (gate(), gate(StageState.INCONCLUSIVE, **lost)):
        written = json.loads(msgspec.json.encode(report))
        jsonschema.validate(written, json.loads(schema()))


if __name__ == "__main__":
    print(schema(), end="")
