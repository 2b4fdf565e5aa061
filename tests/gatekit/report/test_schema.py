"""``report.json`` against its committed schema.

Run as a program it prints the schema as the code has it now:
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
    """Evidence is the verbs' own: docs/report.schema.json, and what they add."""
    found = _flush(msgspec.json.schema(GateReport))
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def _flush(value: Any) -> Any:
    """Docstrings without their indentation, which Python drops from 3.13 on."""
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


def test_reports_keep_to_it(gate: Gate) -> None:
    import jsonschema

    lost = {"traces": {"state": StageState.NOT_RUN, "reason": "why", "evidence": {}}}
    for report in (gate(), gate(StageState.INCONCLUSIVE, **lost)):
        written = json.loads(msgspec.json.encode(report))
        jsonschema.validate(written, json.loads(schema()))


if __name__ == "__main__":
    print(schema(), end="")
