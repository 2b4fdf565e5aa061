"""Question files: downloaded by checksum, read, and rejected if invalid."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gatekit.gsm8k.questions import OFFICIAL, PLACE, load
from overlaykit.core.errors import EnvironmentFailure, InputError

from .conftest import Verb

# Status, what Content-Length says, and the body.
Answer = tuple[int, int, bytes]


@contextlib.contextmanager
def _place(answers: Callable[[str], Answer]) -> Iterator[tuple[str, list[str]]]:
    """A real file server, and the requests it gets."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, length, body = answers(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/data", asked
    finally:
        server.shutdown()
        server.server_close()


def test_downloaded_once_and_by_its_checksum(questions: Path, tmp_path: Path) -> None:
    data = questions.read_bytes()
    cache = tmp_path / "not" / "there" / "yet"
    with _place(lambda _: (200, len(data), data)) as (place, asked):
        found, files = load(["test"], cache, {}, place)
        assert (len(found), found[0].id, found[-1].id) == (
            1319,
            "gsm8k-0",
            "gsm8k-1318",
        )
        assert files[0].sha256 == OFFICIAL["test"]
        assert load(["test"], cache, {}, place)[0] == found
        assert asked == ["/data/test.jsonl"]
        # An edited cached file is downloaded again.
        (cached,) = cache.iterdir()
        cached.write_bytes(data[:-1] + b" ")
        assert load(["test"], cache, {}, place)[0] == found
        assert len(asked) == 2 and cached.read_bytes() == data


@pytest.mark.parametrize(
    "what, found",
    [
        ("altered", "not the pinned file"),
        ("shorter", "not the pinned file"),
        ("cut off", "IncompleteRead"),
        ("another", "not the pinned file"),
        ("missing", "404"),
        ("failing", "500"),
    ],
)
def test_a_download_that_is_not_the_pinned_file(
    questions: Path, tmp_path: Path, what: str, found: str
) -> None:
    data = questions.read_bytes()
    answers = {
        "altered": (200, len(data), data.replace(b"18", b"19", 1)),
        "shorter": (200, 100_000, data[:100_000]),
        "cut off": (200, len(data), data[:100_000]),
        "another": (200, 5, b"hello"),
        "missing": (404, 9, b"not found"),
        "failing": (500, 0, b""),
    }
    with (
        _place(lambda _: answers[what]) as (place, _),
        pytest.raises(EnvironmentFailure, match="cannot fetch") as raised,
    ):
        load(["test"], tmp_path, {}, place)
    (finding,) = raised.value.findings
    assert found in f"{finding.what} {finding.found}"
    assert finding.path == f"{place}/test.jsonl" and finding.next_step
    assert not list(tmp_path.iterdir())


def test_no_file_server_and_no_cache_folder(questions: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="cannot fetch"):
        load(["train"], tmp_path, {}, "http://127.0.0.1:9")
    data = questions.read_bytes()
    file = tmp_path / "file"
    file.write_bytes(b"")
    with (
        _place(lambda _: (200, len(data), data)) as (place, _),
        pytest.raises(EnvironmentFailure, match="cannot use"),
    ):
        load(["test"], file / "cache", {}, place)


def test_the_pinned_place_serves_the_pinned_files(tmp_path: Path) -> None:
    """Opt-in: needs the network."""
    if not os.environ.get("GSM8K_DOWNLOAD"):
        pytest.skip("opt-in, needs the network: GSM8K_DOWNLOAD=1")
    found, files = load(["test", "train"], tmp_path, {}, PLACE)
    assert [file.questions for file in files] == [1319, 7473]
    assert len({one.problem for one in found}) == 8792


@pytest.mark.parametrize(
    "damage, match",
    [
        (lambda data: data[:1000], r"few.jsonl:\d+: not a GSM8K question"),
        (lambda data: b"\x00\xff" * 40, r"few.jsonl:1: not a GSM8K question"),
        (lambda data: data.replace(b"#### ", b"#### about "), "not a GSM8K question"),
        (lambda data: b"", "contains no questions"),
        (lambda data: data + data.splitlines(True)[0], "needs distinct questions"),
    ],
)
def test_a_damaged_file_is_refused(
    few: Path, damage: Callable[[bytes], bytes], match: str
) -> None:
    few.write_bytes(damage(few.read_bytes()))
    with pytest.raises(InputError, match=match):
        load([str(few)], few.parent, {})


def test_more_questions_than_exist(gsm8k: Verb, few: Path, tmp_path: Path) -> None:
    done = gsm8k("run", "--arm", "baseline", "--url", "http://127.0.0.1:9/v1",
                 "--out", tmp_path / "out", "--questions", few,
                 "--first", 41)  # fmt: skip
    assert done.returncode == 2
    assert "there are 40 questions, not 41" in done.stderr
    assert "--questions test train" in done.stderr
    assert not (tmp_path / "out").exists()
    done = gsm8k("run", "--arm", "baseline", "--url", "http://127.0.0.1:9/v1",
                 "--out", tmp_path / "out", "--questions", tmp_path / "no")  # fmt: skip
    assert done.returncode == 5
    assert f"cannot read {tmp_path / 'no'}" in done.stderr
