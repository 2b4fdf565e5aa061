"""Every file that is read may be hostile: a bad one is refused by name, and none causes
any other error."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from conftest import ROOT, run_verb
from gatekit.gsm8k.answers import read_answers
from gatekit.gsm8k.questions import load as load_questions
from gatekit.gsm8k.results import read_run
from gatekit.records import runs as records
from gatekit.run.profile import load
from gatekit.run.store import Store
from gatekit.serving import reading
from gatekit.serving.plan import ServingRun
from gatekit.serving.points import parse
from gatekit.traces.kernels import short
from gatekit.traces.reading import read_trace
from overlaykit.core.errors import Exit, OverlayError
from overlaykit.rebase.folder import active_rebases, rebases_folder
from overlaykit.series.carried import load_overlay
from overlaykit.series.ledger import LEDGER
from overlaykit.series.patches import parse_patch
from overlaykit.series.quilt import read_header
from overlaykit.sources.releases import known
from overlaykit.trees.locking import FOLDER, JOURNAL

DEEP = 100_000
DOCUMENTS = {
    "empty": b"",
    "line ends": b"\n\r\n\r",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "string": b'"x"',
    "deep list": b"[" * DEEP,
    "whole deep list": b"[" * DEEP + b"]" * DEEP,
    "deep object": b'{"a":' * DEEP,
    "deep table": b"[" + b"a." * 5000 + b"b]\n",
    "long number": b"1" * 5000,
    "number in a list": b"[" + b"1" * 5000 + b"]",
    "infinite": b"[1e999]",
    "no number": b"[NaN, Infinity, -Infinity]",
    "null byte": b"\0",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half a character": b'{"a": "\\udcff"}',
    "long key": b'{"' + b"k" * 1_000_000 + b'": 1}',
    "torn": b'{"format": 1, "manifest": "',
    "zip": b"PK\x03\x04" + b"\0" * 40,
    "gzip": gzip.compress(b"{}")[:-6],
    "control": b"\x1b[2J\x07",
}
# Replacements for one value in a valid document.
VALUES = [
    "1" * 5000,
    "1e999",
    "-1",
    "1" * 400,
    "NaN",
    "null",
    "[]",
    "{}",
    '""',
    '"\\u0000"',
    '"\\udcff"',
    '"../../x"',
    "true",
    "1.5",
    "[" * 2000 + "]" * 2000,
]


def refused_or_read(read: Callable[[], object], what: str) -> None:
    try:
        read()
    except OverlayError as error:
        assert len(str(error)) < 1_500_000
    except Exception as error:
        pytest.fail(f"{what}: {type(error).__name__}: {error!s:.200}")


def values(document: str) -> Iterator[str]:
    """The document with each value replaced in turn; in lists only the first item,
    because the others are alike."""

    def walk(node: object, path: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
        if path:
            yield path
        if isinstance(node, dict):
            for key in node:
                yield from walk(node[key], (*path, key))
        elif isinstance(node, list) and node:
            yield from walk(node[0], (*path, 0))

    for path in walk(json.loads(document), ()):
        edited = json.loads(document)
        inside = edited
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = "@@HERE@@"
        before, after = json.dumps(edited).split('"@@HERE@@"')
        for value in VALUES:
            yield before + value + after


def overlays(root: Path) -> list[Path]:
    patch = next(root.glob("patches/sglang/0001-*.patch"))
    return [
        root / "overlay.toml",
        root / "overlay.lock",
        root / "patches" / "sglang" / "series",
        patch,
    ]


@pytest.mark.parametrize("number", range(4))
def test_parts_of_an_overlay(number: int, overlay: Path) -> None:
    place = overlays(overlay)[number]
    for name, data in DOCUMENTS.items():
        place.write_bytes(data)
        refused_or_read(lambda: load_overlay(overlay), f"{place.name}, {name}")
    place.write_bytes(("x" * 5000 + "\n\0\n").encode())
    refused_or_read(lambda: load_overlay(overlay), "names that no file has")


def test_values_of_the_lock(overlay: Path) -> None:
    whole = json.loads((overlay / "overlay.lock").read_bytes())
    whole["targets"] = {"sglang": whole["targets"]["sglang"]}
    for text in values(json.dumps(whole)):
        (overlay / "overlay.lock").write_text(text)
        refused_or_read(lambda: load_overlay(overlay), text[:80])


def test_the_ledger_of_releases(tmp_path: Path) -> None:
    place = tmp_path / LEDGER
    whole = json.loads((ROOT / LEDGER).read_bytes())
    whole["releases"] = {
        name: dict([*of.items()][:1]) for name, of in whole["releases"].items()
    }
    for data in (*DOCUMENTS.values(), *(t.encode() for t in values(json.dumps(whole)))):
        place.write_bytes(data)
        refused_or_read(lambda: known(tmp_path, "sglang"), repr(data[:60]))
    version = "1" * 5000
    wheel = next(iter(whole["releases"]["sglang"].values()))
    whole["releases"]["sglang"] = {version: wheel}
    place.write_text(json.dumps(whole))
    refused_or_read(lambda: known(tmp_path, "sglang"), "a long version")


def test_a_rebase_under_way(tmp_path: Path) -> None:
    folder = rebases_folder(tmp_path) / "one"
    for name, data in DOCUMENTS.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "request.json").write_bytes(data)
        refused_or_read(lambda: list(active_rebases(tmp_path)), name)


@pytest.mark.parametrize("name", ["deep list", "whole deep list", "not UTF-8", "torn"])
def test_a_journal(name: str, slim: Callable[..., Path]) -> None:
    tree = slim(clone=False)
    (tree / FOLDER).mkdir()
    (tree / FOLDER / JOURNAL).write_bytes(DOCUMENTS[name])
    done = run_verb("apply", "--json", str(tree))
    assert "Traceback" not in done.stderr
    assert done.returncode == json.loads(done.stdout)["exit_code"] == Exit.CANNOT_APPLY


def test_records_of_the_gate(tmp_path: Path) -> None:
    place = tmp_path / "file"
    folder = tmp_path / "apply" / "key"
    folder.mkdir(parents=True)
    store = Store(tmp_path)
    readers: dict[str, Callable[[], object]] = {
        "records": lambda: records.read(place, ServingRun),
        "answers": lambda: read_answers(place, torn_end=False),
        "bench_serving": lambda: reading.read(place),
        "questions": lambda: load_questions([str(place)], tmp_path, {}),
        "trace": lambda: read_trace(place),
        "profile": lambda: load(f"{place}.toml"),
        "run": lambda: read_run(tmp_path),
        "store": lambda: store.known("apply", "key"),
    }
    for name, data in DOCUMENTS.items():
        for where in (place, tmp_path / "file.toml", folder / "result.json"):
            where.write_bytes(data + b"\n")
        (tmp_path / "run.json").write_bytes(data)
        for reader, read in readers.items():
            refused_or_read(read, f"{reader}, {name}")


def test_a_line_of_the_benchmark(tmp_path: Path) -> None:
    outputs = Path(__file__).parents[1] / "gatekit" / "serving" / "outputs"
    for whole in sorted(outputs.glob("*.jsonl"))[:2]:
        for text in values(whole.read_text().splitlines()[0]):
            (tmp_path / "x.jsonl").write_text(text + "\n")
            refused_or_read(lambda: reading.read(tmp_path / "x.jsonl"), text[:80])


@pytest.mark.parametrize("answer", ["1e999", "nan", "-inf", "9" * 5000, "", "\u0663x"])
def test_an_answer_that_is_not_a_number(answer: str, tmp_path: Path) -> None:
    line = json.dumps({"question": "How many?", "answer": f"#### {answer}"})
    (tmp_path / "q.jsonl").write_text(line + "\n")
    with pytest.raises(OverlayError) as caught:
        load_questions([str(tmp_path / "q.jsonl")], tmp_path, {})
    assert "q.jsonl:1" in str(caught.value) and len(str(caught.value)) < 500


def test_very_long_points_and_kernel_names() -> None:
    assert short("_ZN" + "9" * 5000 + "attn")
    for text in ("1" * 5000 + "/1/1", "\u00b2/1/1", "1/1/1/1", "//"):
        with pytest.raises(OverlayError):
            parse(text)


_EVENT = {
    "ph": "X",
    "cat": "kernel",
    "name": "_ZN4attn",
    "pid": 0,
    "tid": 7,
    "ts": 1.5,
    "dur": 2.5,
    "args": {"correlation": 1, "device": 0, "stream": 7, "kernel": "k"},
}


@pytest.mark.parametrize("cat", ["kernel", "cuda_runtime", "python_function"])
@pytest.mark.parametrize("indent", [None, 2], ids=["document", "lines"])
def test_events_of_a_trace(cat: str, indent: int | None, tmp_path: Path) -> None:
    name = {"cuda_runtime": "hipLaunchKernel", "python_function": "nn.Module: A_0"}
    event = {**_EVENT, "cat": cat, "name": name.get(cat, _EVENT["name"])}
    place = tmp_path / "t.json"
    for text in values(json.dumps(event)):
        place.write_text(f'{{"traceEvents": [{text}, {json.dumps(_EVENT)}]}}')
        refused_or_read(lambda: read_trace(place), text[:80])
    if indent:
        for value in VALUES:
            place.write_text(
                '{\n  "deviceProperties": [], "traceEvents": [\n  {\n    "ph": "X", '
                f'"cat": "kernel", "name": "k", "ts": {value}, "dur": {value}, '
                f'"args": {value}\n  }}\n  ],\n  "distributedInfo": {value}\n}}'
            )
            refused_or_read(lambda: read_trace(place), f"lines, {value[:20]}")


_TOKENS = [
    b"\0",
    b"\xff",
    b"\r",
    b"\n\n",
    b"=?utf-8?q?=FF=FE?=",
    b"(" * 3000,
    b"9" * 5000,
    b"Content-Type: text/plain; charset=nope\n",
    b"Content-Type: multipart/mixed\n",
    b"Content-Type: ;;;==\n",
    b"Content-Transfer-Encoding: base64\n",
    b"Date: x\n",
    b"Date: Mon, 1 Jan 0001 00:00:00 -2359\n",
    b"From: <<>>,,@;:\n",
    b'From: ((((("\n',
    b"@@ -0,0 +1 @@\n",
    b"@@ -" + b"1" * 5000 + b" +1 @@\n",
    b"diff --git a/ b/\n",
    b"\\ No newline at end of file\n",
]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_patches(seed: int) -> None:
    """Damaged patches, including their mail headers."""
    chosen = random.Random(seed)
    seeds = [place.read_bytes() for place in sorted(ROOT.glob("patches/*/*.patch"))]
    for _ in range(300):
        data = bytearray(chosen.choice(seeds))
        for _ in range(chosen.randint(1, 4)):
            head = data.find(b"diff --git") if chosen.random() < 0.6 else -1
            at = chosen.randrange(max(head, 1) if head > 0 else len(data))
            at = data.rfind(b"\n", 0, at) + 1 if chosen.random() < 0.5 else at
            if chosen.random() < 0.7:
                data[at:at] = chosen.choice(_TOKENS)
            else:
                del data[at : at + chosen.randint(1, 200)]
        refused_or_read(partial(read_all, bytes(data)), repr(bytes(data)))


def read_all(patch: bytes) -> object:
    return read_header(parse_patch("p", patch)).sites
