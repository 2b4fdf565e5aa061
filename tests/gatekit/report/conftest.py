"""Runs of the gate, built from real output of its verbs: run here if a CPU is enough,
and recorded on an H200 otherwise."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import ROOT, Checkouts
from gatekit.report.schema import GateReport, StageReport, StageState, Subject
from overlaykit.core.errors import Finding
from support.patience import PATIENCE_S

Document = dict[str, Any]
Gate = Callable[..., GateReport]
TRACES = ROOT / "tests" / "data" / "traces" / "h200-m64"
CLIENT_LINE = ROOT / "tests" / "gatekit" / "serving" / "outputs" / "0.5.11.jsonl"
POINTS = tuple(f"{isl}/1024/{c}" for isl in (8192, 1024) for c in (4, 8, 16, 32, 64))
NAMES = ("apply", "verify", "numeric", "rebuild", "chain", "gsm8k", "traces")
MACHINE = {"host": "node-1", "GPUs": "none found"}
VERSIONS = {"python": "3.11.7"}
STAGES = (*NAMES, *(f"bench:{point}" for point in POINTS), "bench")


def verb(*words: object, codes: tuple[int, ...] = (0,)) -> Document:
    """A verb's report."""
    done = subprocess.run(
        [sys.executable, *map(str, words), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode in codes, done.stderr + done.stdout
    report: Document = json.loads(done.stdout)
    return report


def trace(arm: str, mode: str = "eager") -> Path:
    return TRACES / f"{arm}-{mode}-TP-0-DECODE.trace.json.gz"


def compared(after: Path, before: Path, *more: object, code: int = 0) -> Document:
    return verb("ci/trace_check.py", after, "--baseline", before, "--expect-layers",
                3, *more, codes=(code,))  # fmt: skip


def answered(folder: Path, arm: str, wrong: range, questions: int = 1319) -> Path:
    """A run of GSM8K on disk, with chosen questions answered wrong."""
    pytest.importorskip("scipy", reason="pip install --group gate")
    from gatekit.gsm8k.questions import QuestionFile
    from gatekit.gsm8k.results import OWN_PROMPT, RunFile, Settings, write_run
    from gatekit.records import runs as records

    gen: dict[str, object] = {"temperature": 0.0, "max_tokens": 64}
    ids = tuple(f"gsm8k-{number}" for number in range(questions))
    series = "none" if arm == "baseline" else "sha256:" + "a" * 64
    place = folder / f"{arm}-{wrong.start}-{wrong.stop}"
    place.mkdir()
    write_run(
        place,
        RunFile(
            arm=arm,
            settings=Settings(model="m", sgl_eval="0.1.3", prompt=OWN_PROMPT, gen=gen),
            files=(QuestionFile("test.jsonl", "0" * 64, questions),),
            asked=ids,
            origin=records.Origin(tree=f"tree of {arm}", series=series),
        ),
    )
    lines = [
        json.dumps(
            {
                "id": one,
                "problem": f"Question {number}?",
                "expected_answer": str(number),
                "generation": f"It is \\boxed{{{-1 if number in wrong else number}}}",
                "finish_reason": "stop",
                "predicted_answer": str(-1 if number in wrong else number),
                "symbolic_correct": number not in wrong,
                "prompt_tokens": 9,
            }
        )
        for number, one in enumerate(ids)
    ]
    random.Random(arm).shuffle(lines)
    text = "".join(f"{line}\n" for line in lines)
    (place / "answers.jsonl").write_text(text, encoding="utf-8")
    return place


def answers(folder: Path, lost: int, gained: int, code: int) -> Document:
    """The comparison of two runs that differ in this many answers."""
    before = answered(folder, "baseline", range(gained))
    after = answered(folder, "patched", range(100, 100 + lost))
    return verb("ci/gsm8k.py", "compare", "--baseline", before, "--patched", after,
                codes=(code,))  # fmt: skip


def served(folder: Path, gain: float, points: tuple[str, ...], code: int) -> Document:
    """The comparison of real client output with other points and speeds."""
    pytest.importorskip("scipy", reason="pip install --group gate")
    rng = random.Random(7)
    real = json.loads(CLIENT_LINE.read_text(encoding="utf-8"))
    files = []
    for arm in ("baseline", "patched"):
        lines = []
        for point in points:
            isl, osl, concurrency = map(int, point.split("/"))
            for number in range(1, 7):
                speed = (1 + gain * (arm == "patched")) * rng.gauss(1, 0.004)
                prompts = 10 * concurrency
                tag = {**json.loads(real["tag"]), "arm": arm, "round": number}
                tag["num_prompts"] = prompts
                tag |= {"seed": number, "warmup_requests": concurrency}
                asked = round(0.9 * isl) * prompts
                said = round(0.9 * osl) * prompts
                duration = real["duration"] / speed
                slower = rng.gauss(1, 0.01)
                line = {
                    **real,
                    "tag": json.dumps(tag),
                    "random_input_len": isl,
                    "random_output_len": osl,
                    "max_concurrency": concurrency,
                    "completed": prompts,
                    "total_input_tokens": asked,
                    "total_output_tokens": said,
                    "total_throughput": (asked + said) / duration,
                    "input_throughput": asked / duration,
                    "output_throughput": said / duration,
                    "request_throughput": prompts / duration,
                    "median_tpot_ms": real["median_tpot_ms"] / speed,
                    "median_ttft_ms": real["median_ttft_ms"] * slower,
                    "p99_ttft_ms": real["p99_ttft_ms"] * slower,
                    "duration": duration,
                }
                for name in ("input_lens", "output_lens", "ttfts", "errors", "itls"):
                    line.pop(name, None)
                lines.append(json.dumps(line) + "\n")
        files.append(folder / f"{arm}.jsonl")
        files[-1].write_text("".join(lines), encoding="utf-8")
    return verb("ci/bench.py", "compare", "--points", *POINTS, "--baseline", files[0],
                "--patched", files[1], codes=(code,))  # fmt: skip


@pytest.fixture(scope="session")
def evidence(
    checkouts: Checkouts, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Document]:
    """Evidence by stage, from a run in which everything passed."""
    folder = tmp_path_factory.mktemp("evidence")
    recorded = ROOT / "docs" / "evidence"
    numeric = json.loads((recorded / "numeric-h200.json").read_text(encoding="utf-8"))
    bench = json.loads((recorded / "microbench-h200.json").read_text(encoding="utf-8"))
    trees = (checkouts.sglang, checkouts.aiter)
    return {
        "apply": {"apply": verb("scripts/apply.py", *trees)},
        "verify": {"verify": verb("scripts/verify.py", *trees)},
        "numeric": {"numeric": numeric["gpu, full"]["report"]},
        # The recorded file is the only result in the verb's report.
        "chain": {"chain": {"verb": "microbench", "exit_code": 0, "results": [bench]}},
        "gsm8k": {"compare": answers(folder, 20, 24, 0)},
        "traces": {
            "baseline": verb("ci/trace_check.py", trace("pristine"), "--expect-layers",
                             3, "--expect-copies", 4),
            "compare": compared(trace("series"), trace("pristine")),
        },
        "bench": {"compare": served(folder, 0.03, POINTS, 0)},
    }  # fmt: skip


@pytest.fixture
def gate(evidence: dict[str, Document]) -> Gate:
    """A run in which every stage passed, except those given."""

    def make(
        verdict: StageState = StageState.PASS, **others: dict[str, Any]
    ) -> GateReport:
        stages = []
        for number, name in enumerate(STAGES):
            members: dict[str, Any] = {
                "name": name,
                "title": f"what {name} is about",
                "state": StageState.PASS,
                "key": f"{number:016x}",
                "folder": f"{name.replace('/', '-').replace(':', '-')}/{number:016x}",
                "started": 1790000000.0 + number,
                "seconds": 12.5 * (number + 1),
                "commands": (f"python ci/{name}.py --json",),
                "evidence": evidence.get(name, {}),
                "files": ("STEP.log",),
                "machine": MACHINE,
                "versions": VERSIONS,
            }
            stages.append(StageReport(**{**members, **others.get(name, {})}))
        return GateReport(
            profile="mi355x-glm51",
            about="GLM-5.1-FP8 at TP=8.",
            verdict=verdict,
            reasons=tuple(
                f"{s.name}: {s.state.value}: {s.reason}"
                for s in stages
                if s.state is not StageState.PASS
            ),
            started=1790000000.0,
            seconds=4321.0,
            command="ci/gate.py --profile mi355x-glm51",
            subject=Subject(
                overlay="pretransposed-x-scale",
                series="5" * 64,
                code="c" * 64,
                commit="d" * 40,
                profile="mi355x-glm51",
                packages={"sglang": "e" * 64, "aiter": "f" * 64},
            ),
            machine=MACHINE,
            versions=VERSIONS,
            stages=tuple(stages),
        )

    return make


def failed(what: str) -> Finding:
    return Finding(what, path="a/file.py", line=7, expected="0", found="1")


def again(report: GateReport) -> GateReport:
    """The report after writing and reading it as JSON."""
    return msgspec.json.decode(msgspec.json.encode(report), type=GateReport)
