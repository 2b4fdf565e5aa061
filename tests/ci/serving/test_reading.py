"""Real output of the real client, of every release; and what must not be believed."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Pins
from overlaykit.errors import EnvironmentFailure, InputError
from serving.command import arguments, tag
from serving.points import Point
from serving.reading import read

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


def retag(line: Line, **members: Any) -> None:
    line["tag"] = json.dumps(json.loads(line["tag"]) | members)


FAULTS: dict[str, tuple[Callable[[Line], object], str]] = {
    "a request failed": (
        lambda line: line.update(completed=9, errors=[*line["errors"][1:], "500"]),
        "9 of 10 requests completed",
    ),
    "an empty stream": (
        lambda line: line["ttfts"].__setitem__(3, 0.0),
        "1 requests were answered without a token",
    ),
    "details of fewer": (
        lambda line: line["ttfts"].pop(),
        "its details are not of every request",
    ),
    "details without lengths": (
        lambda line: line.update(output_lens=None),
        "its details are not of every request",
    ),
    "stopped early": (
        lambda line: line["output_lens"].__setitem__(3, 2),
        "1 output lengths are not in 6-8 tokens",
    ),
    "tokenized otherwise": (
        lambda line: line["input_lens"].__setitem__(3, 25),
        "1 input lengths are not in 19-24 tokens",
    ),
    "fewer prompts than asked": (
        lambda line: retag(line, num_prompts=20),
        "its tag says 20 prompts, it sent 10",
    ),
    "no details, no tag": (
        lambda line: line.update(errors=None, tag=None),
        "it does not say how many prompts were sent",
    ),
    "ShareGPT": (
        lambda line: line.update(dataset_name="random"),
        "its prompts are of random, not random token ids",
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
def test_what_a_line_cannot_prove_is_a_fault(name: str, tmp_path: Path) -> None:
    change, expected = FAULTS[name]
    line = real()
    change(line)
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(line), encoding="utf-8")
    assert read(path)[0].faults == (expected,)


def test_a_tag_stands_in_for_details(tmp_path: Path) -> None:
    line = real()
    for name in ("errors", "ttfts", "input_lens", "output_lens", "itls"):
        del line[name]
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(line) + "\n\n" + json.dumps(line), encoding="utf-8")
    assert [one.faults for one in read(path)] == [(), ()]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "{", "[]", "null", '{"completed": 1}', "[" * 100_000],
    ids=["empty", "blank", "cut", "list", "null", "other", "deep"],
)
def test_what_is_no_output_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(str(path))):
        read(path)


def test_every_member_that_is_needed_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for name in ("completed", "duration", "total_throughput", "random_range_ratio"):
        line = real()
        del line[name]
        path.write_text(json.dumps(line), encoding="utf-8")
        with pytest.raises(InputError, match=name):
            read(path)


def test_bytes_and_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        read(path)
    with pytest.raises(EnvironmentFailure):
        read(tmp_path / "none.jsonl")


def test_the_pinned_clients_know_every_option(pins: Pins) -> None:
    point = Point(8192, 1024, 4)
    words = arguments(point, tag(point, "baseline", 1), "http://a", Path("out"))
    options = {word for word in words if word.startswith("--")}
    assert len(options) == 17
    for target in pins.bases("sglang"):
        with zipfile.ZipFile(pins.wheels[target]) as wheel:
            source = wheel.read("sglang/bench_serving.py").decode()
        assert {o for o in options if f'"{o}"' not in source} == set()
