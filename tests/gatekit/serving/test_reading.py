"""Real output of every release's client, and output that must be rejected."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

import pytest

from conftest import Pins
from gatekit.serving.command import arguments, tag
from gatekit.serving.line import FIELDS, NEEDED
from gatekit.serving.line import Line as LineRead
from gatekit.serving.points import Point
from gatekit.serving.reading import read
from overlaykit.core.errors import EnvironmentFailure, InputError
from support.serving_client import command

OUTPUTS = sorted(Path(__file__).with_name("outputs").glob("*.jsonl"))
Line = dict[str, Any]


def real() -> Line:
    line: Line = json.loads(OUTPUTS[0].read_text(encoding="utf-8"))
    return line


def test_outputs_are_of_the_releases_that_are_to_be_read() -> None:
    names = {path.stem for path in OUTPUTS}
    assert {"0.5.10.post1", "0.5.11", "0.5.14", "0.5.18", "0.5.23"} <= names
    # Formats: without and with the percentiles of 0.5.14.
    assert len({frozenset(json.loads(p.read_text("utf-8"))) for p in OUTPUTS}) == 2


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda path: path.stem)
def test_every_release_is_read_and_its_run_is_whole(path: Path) -> None:
    (found,) = read(path)
    line = json.loads(path.read_text(encoding="utf-8"))
    assert found.faults == ()
    assert found.point == Point(24, 8, 1)
    assert found.tag == tag(found.point, "baseline", 1)
    assert found.completed == 10 == len(line["errors"])
    assert found.throughput == line["total_throughput"]
    assert found.throughput == pytest.approx(
        (sum(line["input_lens"]) + sum(line["output_lens"])) / found.duration_s
    )
    assert found.median_tpot_ms == line["median_tpot_ms"] > 1
    assert found.median_ttft_ms == line["median_ttft_ms"]
    assert found.server == {
        "model_path": '"a-model"',
        "tp_size": "8",
        "version": '"0.0.0"',
    }


def test_equal_seeds_give_equal_work_within_a_release_and_across() -> None:
    assert len({read(path)[0].lengths for path in OUTPUTS}) == 1


def settle(line: Line) -> Line:
    """Recompute the totals, so that a changed detail contradicts none of them."""
    inputs, outputs, ttfts = line["input_lens"], line["output_lens"], line["ttfts"]
    line["total_input_tokens"], line["total_output_tokens"] = sum(inputs), sum(outputs)
    line["input_throughput"] = sum(inputs) / line["duration"]
    line["output_throughput"] = sum(outputs) / line["duration"]
    line["total_throughput"] = (sum(inputs) + sum(outputs)) / line["duration"]
    line["mean_ttft_ms"] = 1000 * fmean(ttfts)
    line["median_ttft_ms"] = 1000 * median(ttfts)
    line["p99_ttft_ms"] = 1000 * quantiles(ttfts, n=100, method="inclusive")[98]
    return line


def put(field: str, place: int, value: float) -> Callable[[Line], object]:
    def change(line: Line) -> None:
        line[field][place] = value
        settle(line)

    return change


def without_details(line: Line) -> Line:
    for name in ("errors", "ttfts", "input_lens", "output_lens", "itls"):
        del line[name]
    return line


def retag(line: Line, **members: Any) -> None:
    line["tag"] = json.dumps(json.loads(line["tag"]) | members)


FAULTS: dict[str, tuple[Callable[[Line], object], str]] = {
    "a request failed": (
        lambda line: line.update(
            completed=9,
            request_throughput=9 / line["duration"],
            errors=[*line["errors"][1:], "500"],
        ),
        "9 of 10 requests completed",
    ),
    "an empty stream": (
        put("ttfts", 3, 0.0),
        "1 requests were answered without a token",
    ),
    "details of fewer": (
        lambda line: line["ttfts"].pop(),
        "its details do not cover every request",
    ),
    "details without lengths": (
        lambda line: line.update(output_lens=None),
        "its details do not cover every request",
    ),
    "stopped early": (
        put("output_lens", 3, 2),
        "1 output lengths are outside 6-8 tokens",
    ),
    "tokenized otherwise": (
        put("input_lens", 3, 25),
        "1 input lengths are outside 19-24 tokens",
    ),
    "fewer prompts than asked": (
        lambda line: retag(line, num_prompts=20),
        "its tag says 20 prompts, but it sent 10",
    ),
    "no details, no tag": (
        lambda line: (without_details(line), line.update(tag=None)),
        "the number of prompts is not recorded",
    ),
    "ShareGPT": (
        lambda line: line.update(dataset_name="random"),
        "its prompts are random, not random token ids",
    ),
    "the default range": (
        lambda line: line.update(random_range_ratio=0.0),
        "its range ratio is 0",
    ),
    "a rate": (
        lambda line: line.update(request_rate=4.0),
        "its request rate is limited: 4.0",
    ),
    "no limit": (
        lambda line: line.update(max_concurrency=None),
        "its concurrency is not limited",
    ),
    "no flush": (
        lambda line: retag(line, flush_cache=False),
        "the cache was not flushed, or prompts were sent as text",
    ),
    "no time": (
        lambda line: line.update(median_tpot_ms=0.0),
        "its median TPOT is 0.0",
    ),
    "not a number": (
        lambda line: line.update(median_tpot_ms=float("nan")),
        "its median TPOT is nan",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_unproven_line_has_a_fault(name: str, tmp_path: Path) -> None:
    change, expected = FAULTS[name]
    line = real()
    change(line)
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(line), encoding="utf-8")
    (fault,) = read(path)[0].faults
    assert (fault.what, fault.path, fault.line) == (expected, str(path), 1)
    assert fault.expected and fault.found


NAN = float("nan")


def update(**members: Any) -> Callable[[Line], object]:
    return lambda line: line.update(members)


def double(*names: str) -> Callable[[Line], object]:
    return lambda line: line.update({name: 2 * line[name] for name in names})


# The change; then the fault's field, expected value and found value.
CONTRADICTIONS: dict[str, tuple[Callable[[Line], object], str, str, str]] = {
    "an error text beside all completed": (
        lambda line: line["errors"].__setitem__(4, "Bad Gateway: "),
        "errors[4]", '"completed" 9', '"completed" 10',
    ),
    "every TTFT no number beside a finite median": (
        lambda line: line.update(ttfts=[NAN] * 10),
        "ttfts[0]", "a finite number", "nan",
    ),
    "a TTFT without end": (
        lambda line: line["ttfts"].__setitem__(9, float("inf")),
        "ttfts[9]", "a finite number", "inf",
    ),
    "a TTFT before its request": (
        lambda line: line["ttfts"].__setitem__(9, -0.5),
        "ttfts[9]", "0 or more", "-0.5",
    ),
    "a length below nothing": (
        lambda line: line["input_lens"].__setitem__(2, -20),
        "input_lens[2]", "0 or more", "-20",
    ),
    "a token's time that is no number": (
        lambda line: line["itls"][3].__setitem__(1, NAN),
        "itls[3][1]", "a finite number", "nan",
    ),
    "another median TTFT": (
        double("median_ttft_ms", "p99_ttft_ms"), "median_ttft_ms", "3.60", "7.2"
    ),
    "another P99 TTFT": (double("p99_ttft_ms"), "p99_ttft_ms", "6.3", "12.6"),
    "another mean TTFT": (update(mean_ttft_ms=NAN), "mean_ttft_ms", "4.12", "nan"),
    "a P99 below the median": (
        lambda line: (without_details(line), line.update(p99_ttft_ms=3.5)),
        "p99_ttft_ms", "3.60", "3.5",
    ),
    "another TPOT": (update(median_tpot_ms=0.02), "median_tpot_ms", " to ", "0.02"),
    "tokens that are not counted": (
        lambda line: (
            line["output_lens"].__setitem__(0, 7),
            line["itls"][0].append(0.002),
        ),
        "total_output_tokens", "72", "71",
    ),
    "prompts that are not counted": (
        lambda line: line["input_lens"].__setitem__(0, 20),
        "total_input_tokens", "208", "212",
    ),
    "another throughput": (
        double("total_throughput"), "total_throughput", "1577.", "3154."
    ),
    "another output throughput": (
        double("output_throughput"), "output_throughput", "395.", "791."
    ),
    "another request throughput": (
        double("request_throughput"), "request_throughput", "55.7", "111."
    ),
    "another input throughput": (
        update(input_throughput=NAN), "input_throughput", "1181.", "nan"
    ),
    "shorter than its longest request": (
        lambda line: line["itls"][0].__setitem__(0, 0.5),
        "request 0", "duration", "0.179",
    ),
    "shorter than its requests one after another": (
        lambda line: (
            line.update(duration=line["duration"] / 2),
            line.update(request_throughput=line["request_throughput"] * 2),
            settle(line),
        ),
        "1 at once", "duration", "0.0897",
    ),
    "details of some": (
        lambda line: line.pop("errors"), "details", "errors", "errors missing"
    ),
    "token times of some": (
        lambda line: line["itls"].pop(), "details", "as many", "itls 9"
    ),
    "nothing asked": (update(total_input_tokens=0), "total_input_tokens", "1", "0"),
    "nobody at once": (update(max_concurrency=-1), "concurrency", "1 or more", "-1"),
    "before it began": (update(duration=-1.0), "duration", "above 0", "-1.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_details_that_contradict_the_totals(name: str, tmp_path: Path) -> None:
    change, field, expected, found = CONTRADICTIONS[name]
    line = json.loads(OUTPUTS[1].read_text(encoding="utf-8"))
    change(line)
    path = tmp_path / "out.jsonl"
    path.write_text("\n" + json.dumps(line), encoding="utf-8")
    faults = read(path)[0].faults
    assert all((one.path, one.line) == (str(path), 2) for one in faults)
    assert any(
        field in one.what and expected in str(one.expected) and found in str(one.found)
        for one in faults
    ), faults


def test_contradictions_make_the_comparison_invalid(tmp_path: Path) -> None:
    """Through the verb."""
    pytest.importorskip("numpy", reason="pip install --group gate")
    whole = json.loads(OUTPUTS[1].read_text(encoding="utf-8"))
    whole["tag"] = None
    (tmp_path / "whole.jsonl").write_text(json.dumps(whole), encoding="utf-8")
    for name in list(CONTRADICTIONS)[:2]:
        change = CONTRADICTIONS[name][0]
        line = copy.deepcopy(whole)
        change(line)
        path = tmp_path / "other.jsonl"
        path.write_text(json.dumps(line), encoding="utf-8")
        done = subprocess.run(
            command("compare", "--points", "24/8/1", "--baseline",
                    tmp_path / "whole.jsonl", "--patched", path),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 4, done.stderr
        assert f"{path}:1: invalid: 24/8/1 patched round 1: " in done.stderr
        for word in ("  expected  ", "  found     ", "  next      "):
            assert word in done.stderr


def test_every_field_has_a_unit() -> None:
    assert set(FIELDS) == set(LineRead.__struct_fields__)
    line = json.loads(OUTPUTS[1].read_text(encoding="utf-8"))
    assert set(FIELDS) <= set(line)


@pytest.mark.parametrize("field", NEEDED)
@pytest.mark.parametrize("value", ["gone", True, "7", [], {}], ids=repr)
def test_a_line_without_a_field(field: str, value: Any, tmp_path: Path) -> None:
    line = real()
    if isinstance(line[field], str) and value == "7":
        return
    line[field] = value
    if value == "gone":
        del line[field]
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read(path)
    (finding,) = caught.value.findings
    assert (finding.path, finding.line) == (str(path), 1) and finding.next_step
    last = caught.value.message
    assert f"{path}:1" in last and field in last
    assert "expected" in last and "found" in last
    if value == "gone":
        assert NEEDED[field] in last


def test_a_duplicate_field(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    text = json.dumps(real())
    path.write_text(text.replace('"completed": 10', '"completed": 9, "completed": 10'))
    with pytest.raises(InputError, match='"completed": expected one value, found two'):
        read(path)


def test_a_tag_replaces_details(tmp_path: Path) -> None:
    line = real()
    without_details(line)
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(line) + "\n\n" + json.dumps(line), encoding="utf-8")
    assert [one.faults for one in read(path)] == [(), ()]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "{", "[]", "null", '{"completed": 1}', "[" * 100_000],
    ids=["empty", "blank", "cut", "list", "null", "other", "deep"],
)
def test_invalid_output_is_rejected(text: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(str(path))):
        read(path)


def test_every_needed_field_is_required(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for name in ("completed", "duration", "total_throughput", "random_range_ratio"):
        line = real()
        del line[name]
        path.write_text(json.dumps(line), encoding="utf-8")
        with pytest.raises(InputError, match=name):
            read(path)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        read(path)
    with pytest.raises(EnvironmentFailure):
        read(tmp_path / "none.jsonl")


_CLIENTS = ("sglang/bench_serving.py", "sglang/benchmark/serving.py")


def test_the_pinned_clients_know_every_option(pins: Pins) -> None:
    point = Point(8192, 1024, 4)
    words = arguments(point, tag(point, "baseline", 1), "http://a", Path("out"))
    options = {word for word in words if word.startswith("--")}
    assert len(options) == 17
    for target in pins.bases("sglang"):
        with zipfile.ZipFile(pins.wheels[target]) as wheel:
            # In later releases, the first only calls the second.
            held = {*_CLIENTS} & {*wheel.namelist()}
            source = "".join(wheel.read(path).decode() for path in sorted(held))
        assert {o for o in options if f'"{o}"' not in source} == set()
