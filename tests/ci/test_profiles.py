"""The profiles are complete; the MI355X profile is checked against SGLang's source."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Pins
from gatekit.run.profile import FOLDER, Profile, load
from overlaykit.core.errors import InputError
from support.patience import PATIENCE_S
from support.serving_client import lay_out
from support.sglang_options import Unknown, server_parser

_SECTIONS = ("numeric", "rebuild", "chain", "gsm8k", "traces", "bench")
# Read by packages that SGLang uses; they are not in its wheel.
_OTHERS = {"SAFETENSORS_FAST_GPU", "HF_HUB_OFFLINE"}


@pytest.fixture(scope="module")
def mi355x() -> Profile:
    return load("mi355x-glm51")


@pytest.fixture(scope="module")
def parser(pins: Pins) -> argparse.ArgumentParser:
    return server_parser(pins.wheels["sglang"])


def test_names_of_the_profiles() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {
        "cpu",
        "cuda",
        "mi355x-glm51",
    }


@pytest.mark.parametrize("name", ["cpu", "cuda", "mi355x-glm51"])
def test_stage_without_a_section_has_a_reason(name: str) -> None:
    profile = load(name)
    missing = {s for s in _SECTIONS if getattr(profile, s) is None}
    assert set(profile.not_run) == missing
    assert all(profile.not_run.values())


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    text = (FOLDER / "cpu.toml").read_text(encoding="utf-8")
    path = tmp_path / "cpu.toml"
    path.write_text(text.replace("questions = 180", "question = 180"), encoding="utf-8")
    with pytest.raises(InputError, match="not a profile"):
        load(str(path))


def test_mi355x_profile_has_every_stage(mi355x: Profile) -> None:
    """PASS requires every stage to run and pass on the real thing."""
    assert mi355x.not_run == {}
    assert mi355x.numeric and mi355x.numeric.device == "cuda" and mi355x.numeric.full
    assert mi355x.chain and not mi355x.chain.interpreted
    assert mi355x.server and not mi355x.server.stands_in


def test_facts_of_the_pull_request(mi355x: Profile) -> None:
    assert mi355x.gsm8k and mi355x.bench and mi355x.traces and mi355x.container
    assert (mi355x.gsm8k.questions, mi355x.gsm8k.parallelism) == (1200, 1200)
    points = mi355x.bench.points
    assert len(set(points)) == len(points) == 10
    assert {isl for isl, _, _ in points} == {8192, 1024}
    assert {osl for _, osl, _ in points} == {1024}
    assert (8192, 1024, 4) in points
    assert (mi355x.traces.layers, mi355x.traces.copies_before) == (78, 4)
    pinned = (ROOT / "overlay.toml").read_text(encoding="utf-8")
    assert f'image = "{mi355x.container.image}"' in pinned


# --- the server, by SGLang's own parser -----------------------------------------------


def _options(command: tuple[str, ...]) -> list[str]:
    assert command[:3] == ("{python}", "-m", "sglang.launch_server")
    return [re.sub(r"^\{port\}$", "30000", word) for word in command[3:]]


def _parsed(parser: argparse.ArgumentParser, options: list[str]) -> dict[str, Any]:
    """Parse without abbreviations; an unknown option or value raises."""
    found, left = parser.parse_known_args(options)
    if left:
        raise ValueError(f"unknown: {left}")
    return vars(found)


def test_parser_is_that_of_the_release(parser: argparse.ArgumentParser) -> None:
    actions = parser._option_string_actions
    assert len(actions) > 300
    assert "--dsa-prefill-backend" not in actions, "later releases have it"


def test_server_options_are_valid(
    mi355x: Profile, parser: argparse.ArgumentParser
) -> None:
    assert mi355x.server and mi355x.traces
    options = _options(mi355x.server.command)
    found = _parsed(parser, [*options, *mi355x.traces.server_options])
    assert found["tensor_parallel_size"] == 8 and found["port"] == 30000
    assert found["model_path"] == "{model}"
    assert json.loads(found["model_loader_extra_config"])["num_threads"] == 8
    assert found["disable_cuda_graph"] and found["disable_overlap_schedule"]
    actions = parser._option_string_actions
    for word in (*options, *mi355x.traces.server_options):
        if word.startswith("--"):
            assert not isinstance(actions[word].choices, Unknown), word


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--nsa-prefill-backend", "--dsa-prefill-backend"),
        ("--tp-size", "--tp"),
        ("tilelang", "tile-lang"),
        ("glm47", "glm51"),
        ("glm45", "glm51"),
        ("fp8_e4m3", "fp8"),
        ("8", "eight"),
    ],
)
def test_wrong_options_are_found(
    mi355x: Profile, parser: argparse.ArgumentParser, old: str, new: str
) -> None:
    assert mi355x.server
    options = [new if o == old else o for o in _options(mi355x.server.command)]
    with pytest.raises((argparse.ArgumentError, ValueError)):
        _parsed(parser, options)


def test_sglang_reads_every_variable(mi355x: Profile, pins: Pins) -> None:
    assert mi355x.server and mi355x.traces
    names = {*mi355x.server.environment, *mi355x.traces.environment} - _OTHERS
    with zipfile.ZipFile(pins.wheels["sglang"]) as archive:
        for member in archive.namelist():
            if member.startswith("sglang/srt/") and member.endswith(".py"):
                text = archive.read(member).decode()
                names -= {name for name in names if name in text}
    assert names == set()


def test_release_writes_no_trace_of_a_capture(pins: Pins) -> None:
    """The reason for eager traces; check again with a release that writes one."""
    runner = "sglang/srt/model_executor/cuda_graph_runner.py"
    with zipfile.ZipFile(pins.wheels["sglang"]) as archive:
        source = archive.read(runner).decode()
    assert "enable_profile_cuda_graph" in source
    assert "export_chrome_trace" not in source


# --- the profiled load, by SGLang's own client ----------------------------------------


@contextmanager
def _server(asked: list[dict[str, Any]]) -> Iterator[int]:
    """A server that answers in two pieces and writes trace files like SGLang."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Do not log."""

        def do_GET(self) -> None:
            self._send(json.dumps({"data": [{"id": "a-model"}]}).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append({"path": self.path, **json.loads(body or b"{}")})
            if self.path == "/start_profile":
                self._leave(Path(asked[-1]["output_dir"]))
            if self.path != "/generate":
                self._send(b"{}")
                return
            tokens = asked[-1]["sampling_params"]["max_new_tokens"]
            events = b""
            for count in (1, tokens):
                meta = {"completion_tokens": count, "prompt_tokens": 8192}
                event = {"text": "t " * count, "meta_info": meta}
                events += b"data: " + json.dumps(event).encode() + b"\n\n"
            self._send(events + b"data: [DONE]\n\n")

        def _leave(self, folder: Path) -> None:
            for rank in range(8):
                for stage in ("EXTEND", "DECODE"):
                    name = f"1732233600.5-TP-{rank}-{stage}.trace.json.gz"
                    (folder / name).write_bytes(b"")

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_client_sends_the_profiled_load(
    mi355x: Profile, pins: Pins, tmp_path: Path
) -> None:
    assert mi355x.traces
    for package in ("aiohttp", "numpy", "requests", "tqdm"):
        pytest.importorskip(package, reason="pip install --group test")
    sglang = lay_out(pins.wheels["sglang"], tmp_path / "sglang")
    # A shell would run commands from this name if it were inside a script.
    traces = tmp_path / 'it\'s a "$(touch made)"; touch made\n`touch made` *'
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    python = bin_ / "python3"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    # Traces of an earlier attempt, which would be checked as well.
    (traces / "1700000000.1").mkdir(parents=True)
    (traces / "1700000000.1" / "1-TP-0-DECODE.trace.json.gz").touch()
    (traces / "1-TP-0-DECODE.trace.json.gz").touch()
    asked: list[dict[str, Any]] = []
    with _server(asked) as port:
        known = {"{port}": str(port), "{traces}": str(traces)}
        command = [
            re.sub(r"\{\w+\}", lambda m: known[m[0]], word)
            for word in mi355x.traces.client
        ]
        done = subprocess.run(
            command,
            cwd=bin_,
            env={
                **os.environ,
                "PYTHONPATH": str(sglang),
                "PATH": f"{bin_}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in bin_.iterdir()] == ["python3"]
    assert sorted(path.name for path in traces.iterdir() if "TP-" in path.name) == [
        f"1732233600.5-TP-{rank}-DECODE.trace.json.gz" for rank in range(8)
    ]
    [profile] = [one for one in asked if one["path"] == "/start_profile"]
    assert profile["profile_by_stage"] is True and profile["num_steps"] == 5
    assert profile["activities"] == ["CPU", "GPU"]
    assert Path(profile["output_dir"]).parent == traces
    requests = [one for one in asked if one["path"] == "/generate"]
    before = asked.index(profile) - 1  # the flush between warm-up and load
    assert len(requests) == 4 + 8 and asked[before]["path"] == "/flush_cache"
    measured = [one for one in asked[before:] if one["path"] == "/generate"]
    assert {len(one["input_ids"]) for one in measured} == {8192}
    assert {one["sampling_params"]["max_new_tokens"] for one in measured} == {1024}
