"""Records with a missing field or a negative duration are refused by line number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatekit.records import runs as records
from overlaykit.core.errors import Exit, InputError, InvalidEvidence


class Counted(records.Record, frozen=True, kw_only=True, tag="counted"):
    """A record type of this test."""

    count: int


WHOLE: dict[str, Any] = {
    "kind": "counted", "schema": 1, "arm": "baseline", "origin": {},
    "started": 1.5, "seconds": 2.0, "count": 3,
}  # fmt: skip
NEEDED = ("arm", "origin", "started", "seconds", "count")


def refusal(path: Path, text: str) -> InputError:
    path.write_text(f"{json.dumps(WHOLE)}\n{text}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        records.read(path, Counted)
    (finding,) = caught.value.findings
    assert (finding.path, finding.line) == (str(path), 2) and finding.next_step
    assert caught.value.message.startswith(f"{path}:2")
    return caught.value


def test_complete_records_are_read(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(WHOLE) + "\n", encoding="utf-8")
    (one,) = records.read(path, Counted)
    assert (one.count, one.seconds) == (3, 2.0)


@pytest.mark.parametrize("field", NEEDED)
@pytest.mark.parametrize("value", ["gone", None, True, [], "NaN"], ids=repr)
def test_missing_or_wrong_field(field: str, value: Any, tmp_path: Path) -> None:
    if field == "arm" and isinstance(value, str) and value != "gone":
        return
    document = WHOLE | {field: value}
    if value == "gone":
        del document[field]
    said = refusal(tmp_path / "records.jsonl", json.dumps(document))
    assert said.exit_code is Exit.USAGE
    assert f'"{field}": expected ' in said.message and ", found " in said.message


@pytest.mark.parametrize("field", ["started", "seconds"])
def test_negative_start_or_duration(field: str, tmp_path: Path) -> None:
    said = refusal(tmp_path / "records.jsonl", json.dumps(WHOLE | {field: -0.5}))
    assert isinstance(said, InvalidEvidence) and said.exit_code is Exit.INVALID
    assert f'"{field}": expected 0 seconds or more, found -0.5' in said.message


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_refused(word: str, tmp_path: Path) -> None:
    text = json.dumps(WHOLE).replace("2.0", word)
    assert "not a record" in refusal(tmp_path / "records.jsonl", text).message


def test_duplicate_field(tmp_path: Path) -> None:
    text = json.dumps(WHOLE).replace('"count": 3', '"count": 3, "count": 4')
    said = refusal(tmp_path / "records.jsonl", text)
    assert '"count": expected one value, found two' in said.message
