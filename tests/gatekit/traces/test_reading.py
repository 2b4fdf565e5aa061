"""A trace reads the same in every form, and anything else is an error."""

from __future__ import annotations

import gzip
import json
import pickle
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatekit.traces.events import Trace, nanoseconds, split_module
from gatekit.traces.reading import read_trace
from overlaykit.core.errors import InputError
from support.profiler_traces import (
    CAPTURE,
    EAGER,
    REPLAY,
    Document,
    as_json,
    as_profiler,
    load,
    needs_traces,
)

pytestmark = needs_traces


def contents(trace: Trace) -> dict[str, object]:
    """Everything except the file and how it was read."""
    found = msgspec.structs.asdict(trace)
    kept = (name for name in found if name not in ("path", "layout", "size"))
    return {name: found[name] for name in kept}


def read(path: Path, text: bytes) -> Trace:
    path.write_bytes(text)
    return read_trace(path)


def reordered(document: Document) -> bytes:
    """The keys of every event in another order; the events as they were."""
    shuffle = random.Random(5)

    def mixed(event: dict[str, object]) -> dict[str, object]:
        names = list(event)
        shuffle.shuffle(names)
        return {name: event[name] for name in names}

    document["traceEvents"] = [mixed(event) for event in document["traceEvents"]]
    return json.dumps(document).encode()


_FORMS: dict[str, tuple[str, Callable[[Document], bytes]]] = {
    "profiler": ("lines", as_profiler),
    "one line": ("document", lambda d: json.dumps(d).encode()),
    "minified": ("document", lambda d: msgspec.json.encode(d)),
    "pretty": ("document", lambda d: json.dumps(d, indent=2).encode()),
    "keys reordered": ("document", reordered),
    "keys sorted": ("document", lambda d: json.dumps(d, sort_keys=True).encode()),
    "events first": (
        "document",
        lambda d: json.dumps({"traceEvents": d.pop("traceEvents"), **d}).encode(),
    ),
    "profiler, one event not": (
        "lines",
        lambda d: as_profiler(d).replace(
            b'    "ph": "X", "cat": "kernel"', b'    "cat": "kernel", "ph": "X"', 7
        ),
    ),
    "profiler, windows": (
        "document",
        lambda d: as_profiler(d).replace(b"\n", b"\r\n"),
    ),
}


@pytest.mark.slow("every trace in every form")
@pytest.mark.parametrize("source", [EAGER, REPLAY, CAPTURE], ids=lambda p: p.name)
@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_every_form_reads_alike(
    source: Path, form: str, zipped: bool, tmp_path: Path
) -> None:
    layout, write = _FORMS[form]
    text = write(load(source, whole=True))
    found = read(tmp_path / "t", gzip.compress(text, 1) if zipped else text)
    assert contents(found) == contents(read_trace(source))
    assert found.layout == layout


_READ = ("kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime")


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_paths_agree_on_any_events(data: st.DataObject, tmp_path: Path) -> None:
    """Events drawn from a real trace, arguments missing, names of any characters."""
    document = load(REPLAY, whole=True)
    drawn = data.draw(
        st.lists(st.sampled_from(document["traceEvents"]), min_size=2, max_size=30)
    )
    # A trace without work is rejected, which another test covers.
    drawn.append(next(e for e in document["traceEvents"] if e.get("cat") == "kernel"))
    events = []
    for event in drawn:
        copy = dict(event)
        # Events that are not kept may lack them.
        if event.get("cat") not in _READ and data.draw(st.booleans()):
            copy.pop("args", None)
        if data.draw(st.booleans()):
            copy["name"] = data.draw(st.text(max_size=20)) + copy["name"]
        events.append(copy)
    document["traceEvents"] = events
    lines = read(tmp_path / "lines", as_profiler(document))
    whole = read(tmp_path / "whole", msgspec.json.encode(document))
    assert (lines.layout, whole.layout) == ("lines", "document")
    assert contents(lines) == contents(whole)


def test_an_event_quoted_in_a_name_is_a_name(tmp_path: Path) -> None:
    document = load(REPLAY, whole=True)
    kernel = next(e for e in document["traceEvents"] if e.get("cat") == "kernel")
    text = as_profiler({"traceEvents": [kernel]}).decode()
    frame = {"ph": "X", "cat": "python_function", "name": text, "pid": 1, "tid": 1}
    document["traceEvents"].insert(4, {**frame, "ts": 1.0, "dur": 1.0, "args": {}})
    found = read(tmp_path / "t", as_profiler(document))
    assert found.layout == "lines"
    assert contents(found) == contents(read_trace(REPLAY))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nn",
        "nn.Module",
        "nn.Module:",
        "nn.Module:\x1f",
        "nn.Module: ",
        "nn.Module: A_1",
        "nn.Module: \U0010ffff",
        "nn.Module:!",
        "nn.Module; A",
        "nn.Modulf",
        "zz",
        "\U0010ffff",
    ],
)
def test_modules_are_the_frames_named_so(name: str, tmp_path: Path) -> None:
    """Frames are recognised by sort order; these names are near every border."""
    document = load(REPLAY, whole=True)
    kernel = next(e for e in document["traceEvents"] if e.get("cat") == "kernel")
    times = {"pid": 1, "tid": 1, "ts": 1.0, "dur": 1.0, "args": {}}
    frame = {"ph": "X", "cat": "python_function", "name": "NAME", **times}
    document["traceEvents"] = [kernel, frame, kernel]
    # As UTF-8, not escaped: the profiler writes names as they are.
    written = json.dumps(name, ensure_ascii=False).encode()
    found = read(tmp_path / "t", as_profiler(document).replace(b'"NAME"', written))
    assert found.layout == "lines"
    assert len(found.work) == 2
    assert len(found.spans) == name.startswith("nn.Module: ")


def test_events_cut_anywhere_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every position, a piece of the file may end."""
    import gatekit.traces.inflating

    document = load(CAPTURE, whole=True)
    document["traceEvents"] = document["traceEvents"][:3] + [
        next(e for e in document["traceEvents"] if e["name"].startswith(name))
        for name in ("nn.Module: ", "hipLaunch", "hipGetDevice", "hipExt")
    ]
    text = as_profiler(document)
    expected = contents(read(tmp_path / "t", text))
    for size in range(1, 200):
        monkeypatch.setattr(gatekit.traces.inflating, "_CHUNK", size)
        found = read(tmp_path / "t", text)
        assert (found.layout, contents(found)) == ("lines", expected)


def test_a_long_event_is_not_searched_repeatedly(tmp_path: Path) -> None:
    """Otherwise the time would grow with the square of the length."""
    document = load(REPLAY, whole=True)
    frame = {"ph": "X", "cat": "python_function", "name": "x" * (1 << 22), "pid": 1}
    document["traceEvents"].insert(4, {**frame, "tid": 1, "ts": 1.0, "dur": 1.0})
    found = read(tmp_path / "t", as_profiler(document))
    assert found.layout == "document"
    assert contents(found) == contents(read_trace(REPLAY))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"4909913692199.694", 4909913692199694),
        # Microseconds since 1970: a float holds them to a quarter only.
        (b"1775078550000000.123", 1775078550000000123),
        (b"12", 12000),
        (b"0.5", 500),
        (b"1e3", 1_000_000),
        (b"-1.5", -1500),
        (b"1.0004", 1000),
        (b"28.45", 28450),
    ],
)
def test_times_are_exact(text: bytes, expected: int) -> None:
    assert nanoseconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"true",
        b'"7.001"',
        b"NaN",
        b'"NaN"',
        b'"-Infinity"',
        b"1e999999999",
        b"1" * 5000,
        b'"\xff"',
        b"{}",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_an_invalid_time_is_rejected(text: bytes) -> None:
    with pytest.raises(InputError, match="not a time"):
        nanoseconds(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nn.Module: Attention_3", ("Attention", 3)),
        ("nn.Module: Attention_12_0", ("Attention_12", 0)),
        ("nn.Module: Attention", ("Attention", 0)),
        ("nn.Module: _7", ("_7", 0)),
        ("step[DECODE bs=4]", ("step[DECODE bs=4]", 0)),
        # No numbers, if digits of a kind; an annotation may be named anything.
        ("area in m_\N{SUPERSCRIPT TWO}", ("area in m_\N{SUPERSCRIPT TWO}", 0)),
        ("A_" + "9" * 5000, ("A_" + "9" * 5000, 0)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_modules_by_class_and_number(name: str, expected: tuple[str, int]) -> None:
    assert split_module(name) == expected


def test_members_of_a_gzip_are_one_file(tmp_path: Path) -> None:
    text = as_profiler(load(REPLAY, whole=True))
    halves = gzip.compress(text[:100_000]) + gzip.compress(text[100_000:]) + b"\0" * 64
    assert contents(read(tmp_path / "t", halves)) == contents(read_trace(REPLAY))


@cache
def whole() -> bytes:
    """A real trace, as the profiler writes it."""
    return as_profiler(load(REPLAY, whole=True))


_BAD: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "cut in an event": lambda: whole()[: len(whole()) // 2],
    "cut between events": lambda: whole()[
        : whole().index(b"\n  },\n  {\n", 200_000) + 5
    ],
    "without its end": lambda: whole()[: whole().rindex(b"\n  ]")],
    "without its last brace": lambda: whole().rstrip()[:-1],
    "cut on one line": lambda: json.dumps(load(REPLAY)).encode()[:-200_000],
    "gz cut": lambda: gzip.compress(whole())[:-9000],
    "gz without its check sum": lambda: gzip.compress(whole())[:-8],
    "gz damaged": lambda: gzip.compress(whole())[:5000] + b"\xff" * 40,
    "gz with a wrong check sum": lambda: gzip.compress(whole())[:-8] + b"\0" * 8,
    "gz of nothing": lambda: gzip.compress(b""),
    "gz with a tail": lambda: gzip.compress(whole()) + b"tail",
    "a pickled snapshot": lambda: pickle.dumps({"segments": [], "device_traces": [[]]}),
    "a snapshot as JSON": lambda: b'{"segments": [], "device_traces": [[]]}',
    "events that are no list": lambda: b'{"traceEvents": {"ph": "X"}}',
    "events that are no events": lambda: b'{"traceEvents": [1, 2]}',
    "no events": lambda: b'{"traceEvents": []}',
    "a page": lambda: b"<!doctype html><title>404</title>",
    "invalid UTF-8 in a kernel": lambda: whole().replace(
        b"direct_copy", b"direct\xffcopy"
    ),
}


@pytest.mark.parametrize("what", _BAD)
def test_an_invalid_trace_is_rejected(what: str, tmp_path: Path) -> None:
    path = tmp_path / "r-TP-0.trace.json.gz"
    with pytest.raises(InputError) as caught:
        read(path, _BAD[what]())
    (finding,) = caught.value.findings
    assert finding.path == str(path)
    assert finding.what


def test_every_truncation_of_a_small_trace_is_rejected(tmp_path: Path) -> None:
    """No part of a file is read as a complete trace."""
    document = load(REPLAY, whole=True)
    kinds = ("kernel", "cuda_runtime")
    events = [e for e in document["traceEvents"] if e.get("cat") in kinds][:6]
    document["traceEvents"] = events
    for text in (as_profiler(document).rstrip(), msgspec.json.encode(document)):
        assert read(tmp_path / "whole", text).work or events
        for length in range(len(text)):
            with pytest.raises(InputError):
                read(tmp_path / "part", text[:length])


@pytest.mark.parametrize("length", [1, 300, 5000])
@pytest.mark.parametrize("how", ["zeros", "lost", "twice", "moved"])
def test_damage_to_a_plain_file_is_seen_wherever_it_is(
    how: str, length: int, tmp_path: Path
) -> None:
    """A plain file has no checksum, so damage anywhere is an error: the missing part
    may have had launches, kernels and modules."""
    shuffle = random.Random(length)
    damaged = 0
    for _ in range(40):
        at, other = sorted(shuffle.randrange(len(whole()) - length) for _ in range(2))
        part = whole()[at : at + length]
        middle = {"zeros": b"\0" * length, "lost": b"", "twice": part + part}
        text = whole()[:at] + middle.get(how, part) + whole()[at + length :]
        if how == "moved":
            text = text[:other] + part + text[other:]
        try:
            json.loads(text)
        except ValueError:
            damaged += 1
            with pytest.raises(InputError):
                read(tmp_path / "t", text)
    assert damaged > 5


def test_members_far_apart_are_still_one_file(tmp_path: Path) -> None:
    """Padding longer than one read does not end the file."""
    text = as_profiler(load(REPLAY, whole=True))
    one, other = gzip.compress(text[:100_000]), gzip.compress(text[100_000:])
    for zeros in (1, 1 << 15, 3 << 15, 100_001):
        padded = gzip.compress(b"") + one + b"\0" * zeros + other + b"\0" * zeros
        assert contents(read(tmp_path / "t", padded)) == contents(read_trace(REPLAY))


@pytest.mark.parametrize("zeros", [0, 3 << 15])
def test_two_traces_in_one_file_are_rejected(zeros: int, tmp_path: Path) -> None:
    text = as_profiler(load(REPLAY, whole=True))
    twice = gzip.compress(text) + b"\0" * zeros + gzip.compress(text)
    for content in (text + text, twice):
        with pytest.raises(InputError):
            read(tmp_path / "t", content)


@pytest.mark.parametrize("at_once", [False, True], ids=["lines", "document"])
def test_two_lists_of_events_are_rejected(at_once: bool, tmp_path: Path) -> None:
    """Some JSON readers take the first list, others the last."""
    document = load(REPLAY, whole=True)
    write = as_json if at_once else as_profiler
    one, other = (write({**document, "traceEvents": part}) for part in (
        document["traceEvents"][:900], document["traceEvents"],
    ))  # fmt: skip
    text = one.rstrip().removesuffix(b"}") + b"," + other.lstrip().removeprefix(b"{")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "t", text)
    assert "appears twice" in caught.value.findings[0].what


def test_a_file_that_grows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from gatekit.traces.inflating import chunks

    path = tmp_path / "t"
    path.write_bytes(whole())

    def growing(place: Path):  # type: ignore[no-untyped-def]
        yield from chunks(place)
        os.utime(place, ns=(1, 1))

    monkeypatch.setattr("gatekit.traces.reading.chunks", growing)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert "changed while" in caught.value.findings[0].what
