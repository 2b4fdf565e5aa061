"""A record without a required field is rejected, with its name, field and position.

A default would change the meaning: a kernel without duration, or a launch on no thread
and so in no module.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatekit.traces.reading import read_trace
from gatekit.traces.verdicts import Requirement, analyse
from overlaykit.core.errors import InputError
from support.profiler_traces import Document, Event, as_json, as_profiler
from support.small_traces import COPY, MODULE, eager

_KINDS: dict[str, tuple[int, str]] = {
    "kernel": (2, "kernel"),
    "launch": (1, "cuda_runtime"),
    "module": (0, "python_function"),
}
_FIELDS = {
    "kernel": ("ph", "name", "ts", "dur", "args", "device", "stream", "correlation"),
    "launch": ("ph", "name", "ts", "dur", "args", "correlation", "pid", "tid"),
    "module": ("ph", "name", "ts", "dur", "pid", "tid"),
}
_OF_ARGS = ("device", "stream", "correlation")
_WORDS = ("ph", "name", "args")
_EACH = [(kind, field) for kind, fields in _FIELDS.items() for field in fields]
_NUMBERS = [(kind, field) for kind, field in _EACH if field not in _WORDS]


def as_lines(document: Document) -> bytes:
    """Compressed, so that events that are not kept are not parsed."""
    return gzip.compress(as_profiler(document), 1)


_FORMS = {"lines": as_lines, "plain": as_profiler, "document": as_json}


def changed(kind: str, field: str, edit: Callable[[Event], object]) -> Document:
    document = copy.deepcopy(eager())
    event = document["traceEvents"][_KINDS[kind][0]]
    edit(event["args"] if field in _OF_ARGS else event)
    return document


def refusal(path: Path, text: bytes) -> str:
    path.write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    (finding,) = caught.value.findings
    assert finding.path == str(path)
    return finding.what


def test_whole_records_are_read(tmp_path: Path) -> None:
    for name, write in _FORMS.items():
        (tmp_path / name).write_bytes(write(eager()))
        trace = read_trace(tmp_path / name)
        assert (len(trace.work), len(trace.launches), len(trace.spans)) == (6, 6, 3)


@pytest.mark.parametrize(("kind", "field"), _EACH)
@pytest.mark.parametrize("form", _FORMS)
def test_a_record_without_a_field(
    kind: str, field: str, form: str, tmp_path: Path
) -> None:
    document = changed(kind, field, lambda record: record.pop(field))
    said = refusal(tmp_path / "t", _FORMS[form](document))
    number, category = _KINDS[kind]
    assert f'has no "{field}"' in said
    assert f"event {number} " in said and category in said


@pytest.mark.parametrize(("kind", "field"), _NUMBERS)
@pytest.mark.parametrize("value", [None, True, "7", "NaN", [], {}], ids=repr)
def test_an_invalid_number(kind: str, field: str, value: Any, tmp_path: Path) -> None:
    if field == "pid" and isinstance(value, str):
        return  # Tools that merge ranks replace process ids with names.
    document = changed(kind, field, lambda record: record.update({field: value}))
    for write in _FORMS.values():
        said = refusal(tmp_path / "t", write(document))
        assert field in said and f"event {_KINDS[kind][0]} " in said


@pytest.mark.parametrize(("kind", "field"), _NUMBERS)
def test_a_negative_number(kind: str, field: str, tmp_path: Path) -> None:
    """A control reports a negative duration; other fields are rejected."""
    document = changed(kind, field, lambda record: record.update({field: -5}))
    (tmp_path / "t").write_bytes(as_profiler(document))
    if field != "dur":
        assert field in refusal(tmp_path / "t", as_profiler(document))
        return
    controls = analyse(tmp_path / "t", Requirement(MODULE, 3, 0), []).controls
    broken = [control.name for control in controls if not control.holds]
    assert any("ends before it starts" in name for name in broken)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ["ts", "dur"])
def test_words_for_numbers_are_not_json(word: str, field: str, tmp_path: Path) -> None:
    """Although some readers accept them."""
    document = changed("kernel", field, lambda record: record.update({field: 4321}))
    for write in (as_profiler, as_json):
        text = write(document).replace(b"4321", word.encode())
        assert "not valid JSON" in refusal(tmp_path / "t", text)


@pytest.mark.parametrize("field", ["cat", "name", "dur", "correlation", "stream"])
@pytest.mark.parametrize("form", ["lines", "plain", "document"])
def test_a_duplicate_key(field: str, form: str, tmp_path: Path) -> None:
    """Readers differ in the value they take."""
    document = changed("kernel", field, lambda record: record.update({field: "HERE"}))
    text = as_profiler(document) if form != "document" else as_json(document)
    value = {"cat": "kernel", "name": COPY}.get(field, 1)
    twice = f"{json.dumps(value)}, {json.dumps(field)}: {json.dumps(value)}"
    text = text.replace(b'"HERE"', twice.encode())
    assert json.loads(text)["traceEvents"][2]["cat"] == "kernel"
    said = refusal(tmp_path / "t", gzip.compress(text) if form == "lines" else text)
    assert f'the key "{field}" appears twice' in said


def test_a_key_twice_in_other_letters(tmp_path: Path) -> None:
    text = as_profiler(eager()).replace(b'"dur": 2.0', b'"dur": 2.0, "d\\u0075r": 3.0')
    assert "twice" in refusal(tmp_path / "t", text)


@pytest.mark.parametrize("name", [COPY, "a::b:c", 'quoted "x": y', "back\\slash"])
def test_names_with_colons_are_names(name: str, tmp_path: Path) -> None:
    """Colons are counted to detect duplicate keys."""
    document = eager()
    for event in document["traceEvents"][1:3]:
        event["args"]["more"] = {"of": ["them", {"a:b": ":"}]}
        event["name"] = f"hipLaunchKernel {name}" if "Launch" in event["name"] else name
    for write in _FORMS.values():
        (tmp_path / "t").write_bytes(write(document))
        assert read_trace(tmp_path / "t").work[0].name == name


@pytest.mark.parametrize(
    ("found", "given", "said"),
    [
        ('"rank": 0', '"rank": null', "rank"),
        ('"rank": 0', '"rank": true', "rank"),
        ('"rank": 0', '"rank": "0"', "rank"),
        ('"rank": 0', '"rank": -1', "rank"),
        ('"rank": 0', '"rank": 0, "rank": 0', '"rank" appears twice'),
        ('"world_size": 1', '"world_size": 1.5', "world_size"),
        ('"traceEvents"', '"traceEvents": [], "traceEvents"', "appears twice"),
    ],
)
def test_an_invalid_header(found: str, given: str, said: str, tmp_path: Path) -> None:
    for write in (as_profiler, as_json):
        text = write(eager()).replace(found.encode(), given.encode(), 1)
        assert said in refusal(tmp_path / "t", text)


def test_a_rank_beyond_its_world(tmp_path: Path) -> None:
    document = eager()
    document["distributedInfo"]["rank"] = 3
    (tmp_path / "t").write_bytes(as_profiler(document))
    controls = analyse(tmp_path / "t", Requirement(MODULE, 3, 0), []).controls
    broken = [control.name for control in controls if not control.holds]
    assert broken == ["the rank is below the world size"]


def test_events_that_name_no_category(tmp_path: Path) -> None:
    """Otherwise the event would be ignored."""
    document = changed("launch", "cat", lambda record: record.pop("cat"))
    assert 'has no "cat"' in refusal(tmp_path / "t", as_profiler(document))


# --- valid JSON in any form, and invalid JSON ----------------------------------------


def with_closing(closing: bytes) -> bytes:
    """The profiler's format with a different end."""
    head, _, _ = as_profiler(eager()).rpartition(b"\n  ]")
    return head + closing


_CLOSINGS = {
    "at the margin": b'\n],\n  "distributedInfo": {"rank": 0}\n}\n',
    "on the event's line": b"]}",
    "of one space": b"\n ]\n}",
    "of tabs": b"\n\t]\n}",
    "of Windows": b"\r\n  ]\r\n}",
}


@pytest.mark.parametrize("closing", _CLOSINGS)
@pytest.mark.parametrize("zipped", [False, True])
def test_any_closing_is_read(closing: str, zipped: bool, tmp_path: Path) -> None:
    text = with_closing(_CLOSINGS[closing])
    header = b'"distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 1},'
    if "margin" in closing:  # As old Kineto has it, behind the events.
        text = text.replace(header, b"")
    json.loads(text)
    (tmp_path / "t").write_bytes(gzip.compress(text) if zipped else text)
    assert len(read_trace(tmp_path / "t").work) == 6


@pytest.mark.parametrize("indent", [None, 0, 1, 2, 3, "\t"])
def test_any_indentation_is_read(indent: int | str | None, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(json.dumps(eager(), indent=indent))
    assert len(read_trace(tmp_path / "t").work) == 6


@pytest.mark.parametrize("closing", [b"", b",", b"]", b"],", b'],\n  "traceName": "x'])
def test_a_file_that_ends_early_says_so(closing: bytes, tmp_path: Path) -> None:
    assert "ends early" in refusal(tmp_path / "t", with_closing(closing))


@pytest.mark.parametrize("control", [b"\t", b"\n", b"\x00", b"\x1f"])
def test_a_control_character_is_named_with_its_place(
    control: bytes, tmp_path: Path
) -> None:
    text = as_profiler(eager()).replace(b"fused_rms", b"fused" + control + b"rms", 1)
    line = text[: text.index(b"fused")].count(b"\n") + 1
    said = refusal(tmp_path / "t", text)
    assert f"control character 0x{control[0]:02x} at line {line}, column " in said
    assert "truncated" not in said and "unfinished" not in said


def test_old_categories_are_named(tmp_path: Path) -> None:
    document = eager()
    for event in document["traceEvents"]:
        event["cat"] = {"kernel": "Kernel"}.get(event["cat"], "Runtime")
    assert "old categories" in refusal(tmp_path / "t", as_profiler(document))
