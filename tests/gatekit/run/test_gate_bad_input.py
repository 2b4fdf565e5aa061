"""Errors name the cause and have the right exit code, and no result is lost.

Servers on loopback and answers on disk are real. The run directories have both arms
installed already, because installing takes the most time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.gate_runs import (
    REBUILD,
    SCRIPTED,
    Copy,
    Ended,
    another,
    answers,
    gsm8k,
    lines,
    profile,
    results,
    served,
    unique,
)
from support.patience import PATIENCE_S, wait_until
from support.processes import running

pytestmark = pytest.mark.slow("gates with servers that fail, stall and die")

# Enough questions to interrupt a run.
COUNT = 24
Trial = Callable[..., Path]


@pytest.fixture(autouse=True)
def grader() -> None:
    pytest.importorskip("sgl_eval", reason="pip install --group gate")


@pytest.fixture
def trial(questions: Path, tmp_path: Path) -> Trial:
    """Writes a profile whose server is the scripted one with these options."""

    def write(
        *options: object, count: int = COUNT, threads: int = 1, more: str = ""
    ) -> Path:
        words = ("--port", "{port}", "--arm", "{arm}", "--questions", questions,
                 "--folder", "{folder}")  # fmt: skip
        # One question at a time, so that the number of answers at a crash is known.
        section = gsm8k(questions, count, threads=threads)
        server = served(SCRIPTED, *words, *options, more=more)
        return profile(tmp_path, REBUILD, server, section)

    return write


def failed(ended: Ended, *said: str) -> None:
    """An error in GSM8K's stage, also in the reports; earlier results stay."""
    assert ended.code == 5, ended.all_output
    assert ended.states["gsm8k"] == "error"
    assert {ended.states[name] for name in ("apply", "verify", "rebuild")} == {"pass"}
    assert ended.document["verdict"] == "error"
    for part in said:
        assert part in ended.all_output, ended.all_output
    assert not running(ended.out)


def whole(ended: Ended, count: int = COUNT) -> None:
    """Every question was answered once in each arm; so few questions decide nothing."""
    assert ended.states["gsm8k"] in ("pass", "inconclusive"), ended.all_output
    assert ended.code == 4
    kept = answers(ended.out)
    assert {run: len(rows) for run, rows in kept.items()} == {
        "run-1-baseline": count,
        "run-2-patched": count,
    }
    for rows in kept.values():
        assert unique(json.loads(row)["id"] for row in rows)


# --- the model --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ('path = "/no/such/model"', 5, "/no/such/model"),
        ('package = "no-such-package"\nsuffix = ".gguf"\nsha256 = "00"', 5,
         "no-such-package"),
        ('package = "msgspec"\nsuffix = ".gguf"\nsha256 = "00"', 5, "msgspec"),
        ('package = "msgspec"\nsuffix = "METADATA"\nsha256 = "00"', 2, "sha256 00"),
    ],
)  # fmt: skip
def test_missing_or_wrong_model(
    model: str, code: int, said: str, trial: Trial, repository: Copy, tmp_path: Path
) -> None:
    """Reported before any stage starts."""
    path = trial()
    path.write_text(f"{path.read_text()}\n[model]\n{model}\n")
    ended = repository.gate(path, tmp_path / "new")
    assert ended.code == code, ended.all_output
    assert said in json.dumps(ended.report)
    assert not (tmp_path / "new").exists()


def test_changed_model_is_refused(
    trial: Trial, repository: Copy, out: Path, tmp_path: Path
) -> None:
    """The run neither continues nor is compared; results stay until a rerun."""
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    path = trial(count=4)
    path.write_text(f"{path.read_text()}\n[model]\npath = {json.dumps(str(weights))}\n")
    whole(first := repository.gate(path, out), 4)
    [stage] = [s for s in first.document["stages"] if s["name"] == "gsm8k"]
    assert stage["model"] in (out / "report.md").read_text()
    before = results(out), answers(out)
    (weights / "config.json").write_text('{"layers": 78}')
    for words in ((), ("--resume",), ("--only", "report"), ("--dry-run",)):
        ended = repository.gate(path, out, *words)
        assert ended.code == 2, ended.all_output
        (finding,) = ended.report["findings"]
        assert stage["model"] in finding["found"] and "gsm8k" in finding["next_step"]
    assert (results(out), answers(out)) == before
    whole(last := repository.gate(path, out, "--from", "gsm8k"), 4)
    assert stage["model"] not in json.dumps(last.document)
    assert repository.gate(path, out, "--resume").states == last.states
    shutil.rmtree(weights)
    # As on a node that only collects results.
    assert repository.gate(path, out, "--only", "report").states == last.states


# --- the server -------------------------------------------------------------------


def test_port_in_use(trial: Trial, repository: Copy, out: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        ended = repository.gate(trial(more=f"port = {port}"), out)
        failed(ended, f"port {port} is in use", "set server.port to 0")
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_server_that_fails_its_health_check(
    questions: Path, repository: Copy, out: Path, tmp_path: Path
) -> None:
    sleeps = "import time; print('loading', flush=True); time.sleep(600)"
    mute = served("-c", sleeps, "{folder}", deadline_s=15)
    ended = repository.gate(profile(tmp_path, REBUILD, mute, gsm8k(questions, 4)), out)
    failed(ended, "the server of gsm8k, run-1-baseline did not start",
           "no answer after 15 s; the server still runs", "loading",
           "server.deadline_s")  # fmt: skip


def test_server_that_ends_at_once(
    questions: Path, repository: Copy, out: Path, tmp_path: Path
) -> None:
    gone = served("-c", "import sys; print('no weights here'); sys.exit(3)")
    ended = repository.gate(profile(tmp_path, REBUILD, gone, gsm8k(questions, 4)), out)
    failed(ended, "the server ended with exit code 3", "no weights here", ".server.log")


def test_missing_server_program(
    questions: Path, repository: Copy, out: Path, tmp_path: Path
) -> None:
    gone = '[server]\ncommand = ["/no/such/server"]'
    ended = repository.gate(profile(tmp_path, REBUILD, gone, gsm8k(questions, 4)), out)
    failed(ended, "cannot run /no/such/server")


def test_server_that_answers_500(trial: Trial, repository: Copy, out: Path) -> None:
    """A missing answer is an error, not a verdict; the next run repeats the
    question."""
    path = trial("--status", 500, count=3, threads=3)
    failed(repository.gate(path, out), "3 of 3 are unanswered", "500")
    assert not any(answers(out).values())
    plan = repository.gate(path, out, "--resume", "--dry-run")
    assert plan.states["gsm8k"] == "would run"


def test_server_that_dies_during_a_run(
    trial: Trial, repository: Copy, out: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    mortal = trial("--die-after", 9, "--died", tmp_path / "died", "--asked", asked)
    failed(repository.gate(mortal, out), "the server died", "exit code 9",
           "dying as scripted")  # fmt: skip
    kept = answers(out)["run-1-baseline"]
    assert len(kept) == 9 == len(lines(asked))
    whole(repository.gate(mortal, out, "--resume"))
    assert answers(out)["run-1-baseline"][:9] == kept
    assert len(lines(asked)) == 2 * COUNT
    assert unique(lines(asked))


# --- interrupted, and two at once -------------------------------------------------


@pytest.fixture
def stalled(
    trial: Trial, repository: Copy, out: Path, tmp_path: Path
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A gate whose server has stopped answering after seven questions."""
    (tmp_path / "stalling").touch()
    path = trial("--stall-after", 7, "--stalling", tmp_path / "stalling",
                 "--asked", tmp_path / "asked")  # fmt: skip
    process = repository.start(path, out)
    try:
        wait_until(lambda: len(answers(out).get("run-1-baseline", [])) == 7)
        yield path, process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(
    number: signal.Signals,
    stalled: tuple[Path, subprocess.Popen[str]],
    repository: Copy,
    out: Path,
    tmp_path: Path,
) -> None:
    path, process = stalled
    process.send_signal(number)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert json.loads(said)["message"] == "interrupted"
    assert not running(out)
    (tmp_path / "stalling").unlink()
    whole(repository.gate(path, out, "--resume"))
    assert unique(lines(tmp_path / "asked"))


def test_second_gate_in_the_same_directory(
    stalled: tuple[Path, subprocess.Popen[str]], repository: Copy, out: Path
) -> None:
    """The second gate refuses, and leaves the server and answers of the first alone."""
    path, process = stalled
    before = answers(out), running(out)
    ended = repository.gate(path, out)
    assert ended.code == 5
    assert "is in use" in ended.all_output
    assert f"pid {process.pid} on " in ended.all_output
    assert (answers(out), running(out)) == before
    assert process.poll() is None


# --- the disk ---------------------------------------------------------------------


def test_full_disk(trial: Trial, repository: Copy, out: Path, tmp_path: Path) -> None:
    """GSM8K's folder is on a disk with space for some answers, then for all."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    disk, full = out / "gsm8k", tmp_path / "full"
    disk.mkdir()
    full.mkdir()
    try:
        probe = subprocess.run(
            [*unshare, "mount", "-t", "tmpfs", "none", str(disk)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("unshare(1) is not installed")
    if probe.returncode:
        pytest.skip(f"no mounts for us here: {probe.stderr.strip()}")
    command = repository.command("--profile", trial(), "--out", out)
    script = f"""
    mount -t tmpfs -o size=40k none {disk}
    "$@" >{full}/first.json 2>{full}/first; echo $? >{full}/first.code
    cat {disk}/*/*/answers.jsonl >{full}/kept
    mount -o remount,size=8m {disk}
    "$@" --resume >{full}/second.json 2>{full}/second; echo $? >{full}/second.code
    cp -r {disk} {full}/disk
    """
    subprocess.run([*unshare, "bash", "-c", script, "-", *command], check=True)
    output = (full / "first").read_text() + (full / "first.json").read_text()
    assert (full / "first.code").read_text() == "5\n", output
    assert "No space left on device" in output
    kept = lines(full / "kept")
    assert 2 <= len(kept) < 2 * COUNT
    again = (full / "second.json").read_text()
    assert (full / "second.code").read_text() == "4\n", again
    assert json.loads(again)["exit_code"] == 4
    rows = lines(next((full / "disk").glob("*/run-1-baseline/answers.jsonl")))
    assert len(rows) == COUNT and rows[: len(kept) - 1] == kept[: len(kept) - 1]


def occupied(place: Path) -> Path:
    place.write_text("not ours")
    return place


@pytest.mark.parametrize("where", ["a file", "below a file", "/proc/no-such"])
def test_unwritable_run_directory(
    where: str, trial: Trial, repository: Copy, tmp_path: Path
) -> None:
    file = occupied(tmp_path / "file")
    place = {"a file": file, "below a file": file / "run"}.get(where, Path(where))
    ended = repository.gate(trial(), place)
    assert ended.code == 5, ended.all_output
    assert str(place) in json.dumps(ended.report)
    assert file.read_text() == "not ours"


# --- what is asked for ------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--only", "gsm8"], 2, "there is no stage gsm8; the stages are apply, verify"),
        (["--from", "benchmark"], 2, "there is no stage benchmark"),
        (
            ["--only", "gsm8k", "--from", "apply"],
            2,
            "--only and --from cannot be used together",
        ),
        (["--questions", "no-such.jsonl"], 2, "no-such.jsonl"),
        (["--resume"], 2, "there is no run to resume"),
    ],
)
def test_unknown_stage_file_or_run(
    words: list[str],
    code: int,
    said: str,
    trial: Trial,
    repository: Copy,
    tmp_path: Path,
) -> None:
    for more in ([], ["--dry-run"]):
        ended = repository.gate(trial(), tmp_path / "new", *words, *more)
        assert ended.code == code
        assert said in json.dumps(ended.report)
        assert not (tmp_path / "new").exists()


def test_from_reruns_the_stage(
    trial: Trial, repository: Copy, out: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    path = trial("--asked", asked, count=4)
    whole(repository.gate(path, out), 4)
    before = answers(out)
    for words, times in (((), 1), (("--resume",), 1), (("--from", "gsm8k"), 2)):
        ended = repository.gate(path, out, *words)
        assert len(lines(asked)) == 8 * times
        assert {ended.states[n] for n in ("apply", "rebuild")} == {"pass"}
    kept = list(out.glob("gsm8k/*.1/run-*/answers.jsonl"))
    assert {p.parent.name: lines(p) for p in kept} == before


def test_only_the_reports(trial: Trial, repository: Copy, out: Path) -> None:
    """The reports of existing results; no stage runs. Each stage that ran has its
    machine, and the report has its profile."""
    path = trial()
    ended = repository.gate(path, out, "--only", "report")
    assert ended.code == 4, ended.all_output
    assert ended.states["rebuild"] == "pass"
    assert ended.states["gsm8k"] == "not run"
    assert ended.reason("gsm8k") == "not run yet"
    assert not (out / "gsm8k").exists()
    document = ended.document
    for one in document["stages"]:
        ran = one["state"] == "pass"
        assert one["machine"] == (document["machine"] if ran else {})
        assert one["versions"] == (document["versions"] if ran else {})
    sha256 = document["subject"]["profile_sha256"]
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# --- another series ---------------------------------------------------------------


@pytest.fixture
def changed(repository: Copy, tmp_path: Path) -> Copy:
    """The same repository with another series: one word in a patch's header differs."""
    copy = another(repository, tmp_path / "changed")
    name = "patches/sglang/0005-o-proj-flatten.patch"
    copy.edit(name, "for o_proj. Ask", "for o_proj; ask")
    copy.lock()
    return copy


def test_resume_with_another_series(
    changed: Copy, trial: Trial, repository: Copy, out: Path, installed: Path
) -> None:
    path = trial(count=4)
    whole(repository.gate(path, out), 4)
    before = results(out), answers(out)
    ended = changed.gate(path, out, "--resume")
    assert ended.code == 2
    (finding,) = ended.report["findings"]
    assert finding["path"] == str(out)
    assert finding["found"] == "results for another series, code or profile"
    ended = changed.gate(path, out, "--only", "report")
    assert ended.code == 4
    assert set(ended.states.values()) == {"not run"}
    assert "results for another series, code or profile" in ended.reason("gsm8k")
    assert (results(out), answers(out)) == before


def test_result_of_another_series(
    changed: Copy, trial: Trial, repository: Copy, out: Path
) -> None:
    """Copied into this series' folder, it is refused by name and left there."""
    path = trial(count=4)
    whole(repository.gate(path, out), 4)
    (theirs,) = out.glob("gsm8k/*/result.json")
    plan = changed.gate(path, out, "--dry-run").report["results"]
    (ours,) = (Path(r["tree"]) for r in plan if r["target"] == "gsm8k")
    assert ours != theirs.parent
    ours.mkdir()
    shutil.copy(theirs, ours)
    before = theirs.read_bytes()
    ended = changed.gate(path, out, "--only", "report")
    assert ended.code == 2
    (finding,) = ended.report["findings"]
    assert finding["path"] == str(ours / "result.json")
    assert ours.name in finding["expected"] and theirs.parent.name in finding["found"]
    assert before == theirs.read_bytes() == (ours / "result.json").read_bytes()


@pytest.mark.parametrize("what", ["the state", "the evidence"])
def test_pass_written_by_hand(
    what: str, trial: Trial, repository: Copy, out: Path
) -> None:
    path = trial(count=4)
    whole(repository.gate(path, out), 4)
    (place,) = out.glob("gsm8k/*/result.json")
    result = json.loads(place.read_text())
    result["state"] = "pass"
    if what == "the evidence":
        result["evidence"] = {
            "compare": result["evidence"]["compare"] | {"exit_code": 0}
        }
    place.write_text(json.dumps(result))
    for words in ((), ("--only", "report"), ("--dry-run",)):
        ended = repository.gate(path, out, *words)
        assert ended.code == 4
        findings = ended.report["findings"]
        assert {finding["path"] for finding in findings} == {str(place)}
        said = [f"{finding['what']}: {finding['expected']}" for finding in findings]
        expected = {
            "the state": 'its evidence is not: "state" inconclusive, the state of step '
            "compare",
            "the evidence": 'its evidence is not: "evidence" of step run-1-baseline',
        }
        assert any(expected[what] in one for one in said), said
        assert str(place) in ended.report["message"]
        assert "expected" in ended.report["message"]


def test_answers_of_another_series(
    trial: Trial, repository: Copy, out: Path, tmp_path: Path
) -> None:
    """Answers copied into this run's folder: the patched arm's record its series."""
    path = trial(count=4)
    whole(repository.gate(path, out), 4)
    (run,) = out.glob("gsm8k/*/run-2-patched/run.json")
    (run.parent.parent / "result.json").unlink()
    record = json.loads(run.read_text())
    record["origin"]["series"] = "0" * 64
    run.write_text(json.dumps(record))
    before = answers(out)
    failed(
        repository.gate(path, out, "--resume"), "different origin", str(run), "0" * 64
    )
    assert answers(out) == before
