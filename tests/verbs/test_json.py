"""The JSON of every verb against its committed schema.

Run as a program, it prints the current schema:
``.venv/bin/python tests/verbs/test_json.py > docs/report.schema.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "scripts"))

import msgspec  # noqa: E402

from overlaykit.cli import Report  # noqa: E402


def schema() -> str:
    """The schema of a report. Verbs may add members to a result; verify does."""
    return json.dumps(msgspec.json.schema(Report), indent=2, sort_keys=True) + "\n"


def test_the_committed_schema_is_current() -> None:
    committed = (ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8")
    assert committed == schema()


def test_reports_match_the_schema(slim: Callable[..., Path], tmp_path: Path) -> None:
    import jsonschema

    from conftest import run_verb

    root = slim()
    runs: list[tuple[str | Path, ...]] = [
        ("apply", "--status", root),
        ("apply", "--dry-run", root),
        ("verify", root),
        ("apply", root),
        ("verify", root),
        ("apply", "--unapply", root),
        ("apply", tmp_path / "nowhere"),
        ("lock", "--check"),
    ]
    for verb, *arguments in runs:
        done = run_verb(str(verb), "--json", *map(str, arguments))
        report = json.loads(done.stdout)
        jsonschema.validate(report, json.loads(schema()))
        assert report["exit_code"] == done.returncode
        assert report["verb"] == verb


if __name__ == "__main__":
    print(schema(), end="")
