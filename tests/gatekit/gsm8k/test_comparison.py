"""Comparisons of result sets on disk: verdicts, and invalid input."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy", reason="pip install --group gate-test")

import msgspec

from gatekit.gsm8k.answers import Answer
from gatekit.gsm8k.comparison import ArmComparison, compare
from gatekit.gsm8k.consistency import NEEDED
from gatekit.gsm8k.questions import QuestionFile
from gatekit.gsm8k.results import (
    OWN_PROMPT,
    AccuracyRun,
    RunFile,
    Settings,
    answers_digest,
    load_results,
    read_run,
    write_run,
)
from gatekit.gsm8k.sentences import sentence
from gatekit.records import runs as records
from gatekit.records.checks import Verdict
from overlaykit.core.errors import InputError

_GEN: dict[str, object] = {"temperature": 0.0, "max_tokens": 64}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a run with the given wrong questions and other differences."""

    def make(
        name: str,
        n: int = 1319,
        wrong: range = range(0),
        change: Callable[[dict[str, Any]], None] = lambda row: None,
        missing: int = 0,
        settings: Settings | None = None,
        arm: str = "baseline",
        **origin: str,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        own = Settings(model="m", sgl_eval="0.1.3", prompt=OWN_PROMPT, gen=_GEN)
        ids = tuple(f"gsm8k-{number}" for number in range(n))
        run = RunFile(
            arm=arm,
            settings=settings or own,
            files=(QuestionFile("test.jsonl", "0" * 64, n),),
            asked=ids,
            origin=records.Origin(**origin),
        )
        write_run(folder, run)
        rows = []
        for number, one in enumerate(ids[: n - missing]):
            right = number not in wrong
            row: dict[str, Any] = {
                "id": one,
                "problem": f"Question {number}?",
                "expected_answer": str(number),
                "generation": f"It is \\boxed{{{number if right else -1}}}",
                "finish_reason": "stop",
                "predicted_answer": str(number if right else -1),
                "symbolic_correct": right,
                "prompt_tokens": 9,
                "model": "m",
            }
            change(row)
            rows.append(json.dumps(row) + "\n")
        random.Random(name).shuffle(rows)
        (folder / "answers.jsonl").write_text("".join(rows), encoding="utf-8")
        return folder

    return make


def _compare(
    baseline: list[Path], patched: list[Path], margin: float | None = None
) -> ArmComparison:
    before, after = (
        [one for path in arm for one in load_results(path)]
        for arm in (baseline, patched)
    )
    return compare(before, after, margin)


@pytest.mark.parametrize(
    "lost, gained, verdict",
    [
        (0, 0, Verdict.PASS),
        (20, 20, Verdict.PASS),
        (29, 12, Verdict.FAIL),  # the incident at its mildest
        (8, 0, Verdict.FAIL),  # small, but certain
        (50, 40, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(make: Make, lost: int, gained: int, verdict: Verdict) -> None:
    before = make("a", wrong=range(gained))
    after = make("b", wrong=range(100, 100 + lost))
    compared = _compare([before], [after])
    assert compared.verdict is verdict, compared.claims
    assert compared.score
    assert (compared.score.lost, compared.score.gained) == (lost, gained)
    assert compared.score.margin == 0.015
    assert compared.score.newcombe == pytest.approx(
        (compared.score.lower, compared.score.upper), abs=0.0025
    )
    assert (compared.score.further is not None) == (verdict is Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    "n, wrong, lost, said",
    [
        (
            1319, 100, 0,
            "pass: the baseline answers 1219 of 1319 correctly, and the patched arm "
            "1219 of 1319 correctly; a drop of 1.5 points or more is ruled out.",
        ),
        (
            1319, 100, 30,
            "fail: the patched arm is worse: the baseline answers 1219 of 1319 "
            "correctly, and the patched arm 1189 of 1319 correctly; this claim does "
            "not hold: "
            "the patch does no harm (p = 0.0000).",
        ),
        (
            8, 1, 0,
            "inconclusive: the baseline answers 7 of 8 correctly, and the patched arm "
            "7 of 8 correctly; a drop of 1.5 points is neither shown nor ruled out, "
            "which about 170 more questions would decide.",
        ),
        (
            8, 8, 0,
            "inconclusive: the baseline answers 0 of 8 correctly, so it has nothing to "
            "lose, and the comparison says nothing about the patched arm.",
        ),
        (
            1319, 1319, 0,
            "invalid: the baseline answers 0 of 1319 correctly, so it has nothing to "
            "lose, and the comparison says nothing about the patched arm.",
        ),
    ],
    ids=["pass", "fail", "inconclusive", "nothing to lose", "and many questions"],
)  # fmt: skip
def test_the_sentence(make: Make, n: int, wrong: int, lost: int, said: str) -> None:
    before = make("a", n, wrong=range(wrong))
    after = make("b", n, wrong=range(wrong + lost))
    assert sentence(_compare([before], [after])) == said


def test_no_feasible_number_of_questions(make: Make) -> None:
    compared = _compare([make("a", 8)], [make("b", 8)])
    assert compared.score
    score = msgspec.structs.replace(compared.score, further=None)
    said = sentence(msgspec.structs.replace(compared, score=score))
    assert said.endswith(", and no feasible number of questions would decide it.")


def test_an_invalid_comparison_gives_its_reason(make: Make) -> None:
    said = sentence(_compare([make("a", 40)], [make("b", 40, missing=1)]))
    assert said.startswith("invalid: the answers of the two arms cannot be compared: ")
    assert "every question is answered (1: 39 of 40 answered in " in said


def test_the_margin_is_narrower_with_more_questions(make: Make) -> None:
    compared = _compare([make("a", 3957)], [make("b", 3957)])
    assert compared.score and compared.score.margin == 0.010


def _set(name: str, value: object, id_: str = "gsm8k-7") -> Callable[[Any], None]:
    def change(row: dict[str, Any]) -> None:
        if row["id"] == id_:
            row[name] = value

    return change


@pytest.mark.parametrize(
    "control, change",
    [
        ("no request failed", _set("finish_reason", "error")),
        ("no request failed", _set("finish_reason", None)),
        ("the same id is the same question", _set("problem", "Another?")),
        ("the same id is the same question", _set("expected_answer", "8")),
        ("all answers name one model", _set("model", "another")),
        ("prompts have equal lengths in tokens", _set("prompt_tokens", 10)),
        ("equal answers are graded alike", _set("symbolic_correct", False)),
    ],
)
def test_one_answer_that_cannot_be_compared_invalidates_all(
    make: Make, control: str, change: Callable[[Any], None]
) -> None:
    compared = _compare([make("a")], [make("b", change=change)])
    assert compared.verdict is Verdict.INVALID
    assert compared.score is None
    assert control in {one.name for one in compared.controls if not one.holds}


def test_different_settings_questions_or_gaps_invalidate(make: Make) -> None:
    before = make("a")
    for name, other in {
        "model": Settings(model="x", sgl_eval="0.1.3", prompt=OWN_PROMPT, gen=_GEN),
        "sgl_eval": Settings(model="m", sgl_eval="0.1.4", prompt=OWN_PROMPT, gen=_GEN),
        "prompt": Settings(model="m", sgl_eval="0.1.3", prompt="sha256:0", gen=_GEN),
        "gen": Settings(model="m", sgl_eval="0.1.3", prompt=OWN_PROMPT,
                        gen=_GEN | {"max_tokens": 65}),
    }.items():  # fmt: skip
        compared = _compare([before], [make(name, settings=other)])
        (found,) = [one for one in compared.controls if not one.holds]
        assert compared.verdict is Verdict.INVALID
        assert {"gen": "max_tokens 64"}.get(name, name) in found.found
    assert _compare([before], [make("b", missing=1)]).verdict is Verdict.INVALID
    assert _compare([before], [make("c", n=1318)]).verdict is Verdict.INVALID


def test_truncation_and_silence_must_not_rise(make: Make) -> None:
    wrong = range(0, 1319, 100)

    def cut(row: dict[str, Any]) -> None:
        if int(row["id"].rpartition("-")[2]) % 100 == 0:
            row["finish_reason"] = "length"

    def mute(row: dict[str, Any]) -> None:
        if int(row["id"].rpartition("-")[2]) % 100 == 0:
            row["predicted_answer"] = None

    def blank(row: dict[str, Any]) -> None:
        mute(row)
        row["predicted_answer"] = row["predicted_answer"] or " "

    for name, change in (
        ("truncated answers", cut),
        ("answers without", mute),
        ("answers without a", blank),
    ):
        before = make(f"a-{name}", wrong=wrong)
        compared = _compare([before], [make(f"b-{name}", wrong=wrong, change=change)])
        assert compared.verdict is Verdict.FAIL
        (claim,) = [one for one in compared.claims if not one.holds]
        assert claim.name.startswith(name)
        back = _compare(
            [make("b", wrong=wrong, change=change)], [make("a", wrong=wrong)]
        )
        assert back.verdict is Verdict.PASS


def _broken(compared: ArmComparison) -> list[str]:
    assert compared.verdict is Verdict.INVALID and compared.score is None
    return [one.name for one in compared.broken]


def test_the_runs_of_an_arm_have_one_origin(make: Make) -> None:
    members = {"tree": "4b825dc", "image": "sha256:0d5b", "command": "sha256:aa"}
    before = make("a", series="none", **members)
    after = make("b", arm="patched", series="9f2c1ab", **members)
    compared = _compare([before], [after])
    assert compared.verdict is Verdict.PASS and not compared.self_comparison
    assert compared.baseline.origin == records.Origin(series="none", **members)
    assert compared.patched.origin == records.Origin(series="9f2c1ab", **members)
    again = make("a2", series="none", **members)
    for name, other in {
        "tree": make("b2", arm="patched", series="9f2c1ab", **members | {"tree": "1"}),
        "series": make("b3", arm="patched", series="0000000", **members),
        "image": make("b4", arm="patched", series="9f2c1ab", **members | {"image": ""}),
        "command": make(
            "b5", arm="patched", series="9f2c1ab", **members | {"command": "x"}
        ),
        "arm": make("b6", series="9f2c1ab", **members),
    }.items():
        compared = _compare([before, again], [after, other])
        assert _broken(compared) == ["the runs of an arm have one origin"], name
        (reason,) = compared.reasons
        assert f"{name} '" in reason and str(other) in reason
        assert (compared.patched.origin is None) == (name != "arm")
    # In the other arm too.
    compared = _compare([before, make("a3", series="1", **members)], [after, after])
    assert _broken(compared) == ["the runs of an arm have one origin"]


def test_arms_with_the_same_series(make: Make) -> None:
    for name, series in (("digest", "9f2c1ab"), ("none", "none")):
        before = make(f"a-{name}", series=series)
        compared = _compare([before], [make(f"b-{name}", arm="patched", series=series)])
        assert _broken(compared) == ["the arms differ in the series"]
        # The baseline against itself is valid, and reported as such.
        compared = _compare([before], [make(f"a2-{name}", series=series)])
        assert compared.verdict is Verdict.PASS and compared.self_comparison
    unnamed_arms = _compare([make("a")], [make("b", arm="patched", series="9f2c1ab")])
    assert unnamed_arms.verdict is Verdict.PASS


def test_swapped_arms(make: Make) -> None:
    worse = make("b", wrong=range(40), arm="patched")
    better = make("a")
    compared = _compare([worse], [better])
    assert _broken(compared) == ["runs belong to the arm they are given as"]
    assert _compare([better], [worse]).verdict is Verdict.FAIL


def _record(folder: Path, started: float) -> Path:
    """Write the record of a finished run."""
    (run,) = load_results(folder)
    records.append(
        folder / "records.jsonl",
        AccuracyRun(
            arm=run.arm,
            origin=run.origin,
            started=started,
            seconds=1.0,
            run=read_run(folder),
            answers=answers_digest(run.answers.values()),
            correct=run.correct,
            truncated=0,
            silent=0,
            resumed=0,
        ),
    )
    return folder


def _regrade(folder: Path) -> None:
    path = folder / "answers.jsonl"
    text = path.read_text("utf-8").replace('"symbolic_correct": false', '"x": 1')
    path.write_text(text.replace('"x": 1', '"symbolic_correct": true'), "utf-8")


def _relabel(folder: Path) -> None:
    path = folder / "run.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('"baseline"', '"patched"'), "utf-8")


def _leave_out(folder: Path) -> None:
    """Remove the wrong answers from the plan."""
    run = read_run(folder)
    write_run(folder, msgspec.structs.replace(run, asked=run.asked[:1300]))


@pytest.mark.parametrize(
    "change, name",
    [
        (_regrade, "answers.jsonl"),
        (_relabel, "run.json"),
        (_leave_out, "run.json"),
    ],
)
def test_an_edited_finished_run(
    make: Make, change: Callable[[Path], None], name: str
) -> None:
    before = _record(make("a"), 1.0)
    after = _record(make("b", wrong=range(1300, 1319)), 2.0)
    assert _compare([before], [after]).verdict is Verdict.FAIL
    change(after)
    compared = _compare([before], [after])
    assert "a finished run is unchanged" in _broken(compared)
    assert f"{name} in {after}" in compared.reasons[-1]


def test_a_copy_of_a_run_is_not_a_run(make: Make, tmp_path: Path) -> None:
    before, after = _record(make("a"), 1.0), _record(make("b", arm="patched"), 2.0)
    copy, again = tmp_path / "copy", _record(make("b2", arm="patched"), 3.0)
    shutil.copytree(before, copy)
    for arms in (([before], [copy]), ([before, copy], [after, again])):
        assert _broken(_compare(*arms)) == ["no run is listed twice"]
    other = _record(make("a2"), 4.0)
    assert _compare([before, other], [after, again]).verdict is Verdict.PASS


def test_the_document_has_the_fields_of_the_report(make: Make) -> None:
    def some(row: dict[str, Any]) -> None:
        number = int(row["id"].rpartition("-")[2])
        if number < 66:
            row["finish_reason"] = "length"
        if number < 33:
            row["predicted_answer"] = None
            row["symbolic_correct"] = False

    before = make("a", wrong=range(70, 110), change=some)
    after = make("b", wrong=range(110, 160), change=some, arm="patched")
    document = json.loads(msgspec.json.encode(_compare([before], [after])))
    assert document["verdict"] == "inconclusive"
    (reason,) = document["reasons"]
    assert reason.startswith("does not hold: any harm is below the margin: -")
    score = document["score"]
    assert (score["gained"], score["lost"], score["questions"]) == (40, 50, 1319)
    assert score["lower"] < -score["margin"] == -0.015 and score["further"] > 0
    assert document["baseline"]["accuracy"] == (1319 - 40 - 33) / 1319
    for arm in ("baseline", "patched"):
        assert document[arm]["truncated"] == 66 / 1319
        assert document[arm]["silent"] == 33 / 1319
        (run,) = document[arm]["runs"]
        assert run["arm"] == arm and run["answers"].startswith("sha256:")
    assert document["threshold"]["found"] == f"{(1319 - 50 - 33) / 1319:.4f}"
    assert document["settings"]["gen"] == _GEN
    assert document["files"] == [
        {"name": "test.jsonl", "sha256": "0" * 64, "questions": 1319}
    ]


def test_unanswered_questions_are_not_scored_as_wrong(make: Make) -> None:
    compared = _compare([make("a")], [make("b", missing=19)])
    assert compared.baseline.accuracy == 1.0
    assert compared.patched.accuracy is None
    assert compared.patched.runs[0].answered == 1300


def test_nothing_passes_if_the_baseline_answers_nothing(make: Make) -> None:
    broken = range(1319)
    compared = _compare([make("a", wrong=broken)], [make("b", wrong=broken)])
    assert compared.verdict is Verdict.INVALID


def test_several_runs_and_the_discordance_of_an_arm_with_itself(make: Make) -> None:
    baseline = [make("a1", wrong=range(40)), make("a2", wrong=range(20, 60))]
    patched = [make("b1", wrong=range(40)), make("b2", wrong=range(20, 60))]
    compared = _compare(baseline, patched)
    assert compared.score
    assert compared.score.baseline_discordance == pytest.approx(40 / 1319)
    assert compared.score.patched_discordance == pytest.approx(40 / 1319)
    assert compared.score.discordance == 0
    assert compared.score.newcombe is None
    assert compared.verdict is Verdict.PASS
    worse = [make("c1", wrong=range(60)), make("c2", wrong=range(20, 80))]
    assert _compare(baseline, worse).verdict is Verdict.FAIL


def test_upstreams_threshold_is_shown_and_decides_nothing(make: Make) -> None:
    """The incident: every score above a gate of 0.91, and 17 questions lost."""
    before = make("a", wrong=range(99))
    after = make("b", wrong=range(12, 128))
    compared = _compare([before], [after])
    assert compared.threshold and not compared.threshold.holds
    assert compared.verdict is Verdict.FAIL
    same = _compare([before], [make("c", wrong=range(99))])
    assert same.threshold and not same.threshold.holds
    assert same.verdict is Verdict.PASS


def test_invalid_result_sets(tmp_path: Path, make: Make) -> None:
    with pytest.raises(InputError, match="is not a GSM8K run"):
        load_results(tmp_path)
    folder = make("a", n=3)
    path = folder / "answers.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(True)[0])
    with pytest.raises(InputError, match="two answers"):
        load_results(folder)
    path.write_bytes(b'{"id": 3}\n')
    with pytest.raises(InputError, match="is not an answer"):
        load_results(folder)
    _record(_record(make("b", n=3), 1.0), 2.0)
    with pytest.raises(InputError, match="contains 2 runs, expected one"):
        load_results(tmp_path / "b")
    (folder / "run.json").write_bytes(b"[]")
    with pytest.raises(InputError, match=r"is not a valid run\.json"):
        load_results(folder)


@pytest.mark.parametrize(
    "members, match",
    [
        ({"n_repeats": 0}, "contains no repeats"),
        ({"prompt": {"spec": "own"}}, "yaml"),
        ({"name": "mmlu"}, "expected gsm8k"),
    ],
)
def test_invalid_plain_result_sets(
    tmp_path: Path, members: dict[str, Any], match: str
) -> None:
    metrics: dict[str, Any] = {"name": "gsm8k", "model": "m", "gen": {}}
    metrics |= {"sgl_eval_version": "0.1.3", "num_examples": 1, "n_repeats": 1}
    metrics |= {"total_completion_tokens": 0, "aggregate": {"score": 1.0}, **members}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    with pytest.raises(InputError) as raised:
        load_results(tmp_path)
    assert match in f"{raised.value.message} {raised.value.findings}"


def _edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Edit one document of a run."""

    def edit(folder: Path) -> None:
        document = json.loads((folder / name).read_text("utf-8"))
        change(document)
        (folder / name).write_text(json.dumps(document) + "\n", "utf-8")

    return edit


def _row(**members: Any) -> Callable[[Path], None]:
    """The answer to question 7."""

    def edit(folder: Path) -> None:
        (path,) = (*folder.glob("answers.jsonl"), *folder.glob("output-rs0.jsonl"))
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        next(row for row in rows if row["id"] == "gsm8k-7").update(members)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    return edit


def _stray(folder: Path) -> None:
    path = folder / "answers.jsonl"
    row = json.loads(path.read_text("utf-8").splitlines()[0]) | {"id": "gsm8k-9999"}
    path.write_text(path.read_text("utf-8") + json.dumps(row) + "\n", "utf-8")


OURS: dict[str, tuple[Callable[[Path], None], str]] = {
    "right without an answer": (
        _row(predicted_answer=" "),
        'gsm8k-7: "symbolic_correct": expected false: no answer, found true',
    ),
    "right with another number": (
        _row(predicted_answer="8"),
        'gsm8k-7: "symbolic_correct": expected false of 8 for 7, found true',
    ),
    "wrong with the number": (
        _row(symbolic_correct=False),
        'gsm8k-7: "symbolic_correct": expected true of 7 for 7, found false',
    ),
    "fewer tokens than none": (
        _row(num_generated_tokens=-1),
        'gsm8k-7: "num_generated_tokens": expected 0 or more, found -1',
    ),
    "more tokens than asked for": (
        _row(num_generated_tokens=65),
        'gsm8k-7: "num_generated_tokens": expected 64 (max_tokens) or fewer, found 65',
    ),
    "no prompt": (
        _row(prompt_tokens=0),
        'gsm8k-7: "prompt_tokens": expected 1 or more, found 0',
    ),
    "an answer that was not asked for": (
        _stray,
        '"id": expected one of the 1319 asked, found gsm8k-9999',
    ),
    "a question asked twice": (
        _edit("run.json", lambda run: run["asked"].__setitem__(0, "gsm8k-7")),
        '"asked": expected each question once, found gsm8k-7 again; "id": expected one '
        "of the 1318 asked, found gsm8k-0",
    ),
    "more questions than there are": (
        _edit("run.json", lambda run: run["files"][0].update(questions=1300)),
        '"asked": expected 1300 (those of its "files") or fewer, found 1319',
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_answers_that_contradict_a_run(make: Make, name: str) -> None:
    change, said = OURS[name]
    before, after = make("a"), make("b")
    change(after)
    compared = _compare([before], [after])
    assert "a run's totals match its answers" in _broken(compared)
    (reason,) = [one for one in compared.reasons if "totals" in one]
    assert said in reason.replace(f" in {after};", ";") and str(after) in reason


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("correct", 1319, '"correct": expected 1300, found 1319'),
        ("truncated", 4, '"truncated": expected 0, found 4'),
        ("silent", -1, '"silent": expected 0, found -1'),
        ("resumed", 5000, '"resumed": expected 1319, found 5000'),
        ("arm", "patched", '"arm": expected baseline, found patched'),
    ],
)
def test_a_record_whose_counts_contradict_the_answers(
    make: Make, field: str, value: object, said: str
) -> None:
    before, after = make("a"), _record(make("b", wrong=range(19)), 1.0)
    assert _compare([before], [after]).verdict is Verdict.FAIL
    _edit("records.jsonl", lambda record: record.update({field: value}))(after)
    compared = _compare([before], [after])
    assert _broken(compared) == ["a finished run is unchanged"]
    assert f"records.jsonl ({said}) in {after}" in compared.reasons[0]


def plain(folder: Path, wrong: range = range(0)) -> Path:
    """A run of 1,319 questions in sgl-eval's format."""
    folder.mkdir()
    rows = [
        {
            "id": f"gsm8k-{number}",
            "problem": f"Question {number}?",
            "expected_answer": str(number),
            "generation": f"It is \\boxed{{{-1 if number in wrong else number}}}",
            "reasoning_content": None,
            "num_generated_tokens": 5,
            "finish_reason": "length" if number < 3 else "stop",
            "predicted_answer": str(-1 if number in wrong else number),
            "symbolic_correct": number not in wrong,
            "generation_start_time": hash(folder.name) + number,
        }
        for number in range(1319)
    ]
    metrics = {
        "name": "gsm8k",
        "model": "m",
        "gen": _GEN,
        "sgl_eval_version": "0.1.3",
        "num_examples": 1319,
        "n_repeats": 1,
        "latency_seconds": 9.5,
        "output_throughput_tps": 5 * 1319 / 9.5,
        "total_completion_tokens": 5 * 1319,
        "total_prompt_tokens": 9 * 1319,
        "aggregate": {
            "score": (1319 - len(wrong)) / 1319,
            "stop_rate": 1316 / 1319,
            "truncated_rate": 3 / 1319,
            "error_rate": 0.0,
        },
    }
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "output-rs0.jsonl").write_text(lines, encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def _metric(**members: Any) -> Callable[[Path], None]:
    return _edit("metrics.json", lambda metrics: metrics.update(members))


def _mean(name: str, value: float) -> Callable[[Path], None]:
    return _edit(
        "metrics.json", lambda metrics: metrics["aggregate"].update({name: value})
    )


PLAIN: dict[str, tuple[Callable[[Path], None], str]] = {
    "another score": (
        _mean("score", 0.98),
        '"aggregate.score": expected 0.992418499 (1309 of 1319 answers), found 0.98',
    ),
    "a score that is no number": (_mean("score", float("nan")), "found nan"),
    "no truncated answer": (
        _mean("truncated_rate", 0.0),
        '"aggregate.truncated_rate": expected 0.00227445034 (3 of 1319 answers)',
    ),
    "fewer that stopped": (_mean("stop_rate", 0.5), '"aggregate.stop_rate": expected'),
    "failed requests": (_mean("error_rate", 0.1), '"aggregate.error_rate": expected 0'),
    "fewer tokens": (
        _metric(total_completion_tokens=5),
        '"total_completion_tokens": expected 6595, found 5',
    ),
    "fewer questions": (
        _metric(num_examples=1318),
        '"num_examples, by output-rs0.jsonl": expected 1319, found 1318',
    ),
    "fewer planned than answered": (
        _metric(planned_examples=7),
        '"planned_examples": expected 1319 or more, found 7',
    ),
    "fewer samples": (
        _metric(completed_samples=7),
        '"completed_samples": expected 1319, found 7',
    ),
    "another grade": (
        _row(symbolic_correct=False),
        'gsm8k-7: "symbolic_correct": expected true of 7 for 7, found false',
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_answers_that_contradict_a_summary(tmp_path: Path, name: str) -> None:
    change, said = PLAIN[name]
    wrong = range(100, 110)
    before, after = plain(tmp_path / "a", wrong), plain(tmp_path / "b", wrong)
    assert _compare([before], [after]).verdict is Verdict.PASS
    change(after)
    compared = _compare([before], [after])
    assert "a run's totals match its answers" in _broken(compared)
    (reason,) = [one for one in compared.reasons if "totals" in one]
    assert said in reason and str(after) in reason


NEEDED_OF = {
    "metrics.json": [name for name in NEEDED if "." not in name],
    "output-rs0.jsonl": ["id", "problem", "expected_answer", "generation",
                         "finish_reason", "predicted_answer", "symbolic_correct"],
    "run.json": ["arm", "settings", "files", "asked", "origin"],
    "answers.jsonl": ["id", "problem", "expected_answer", "generation",
                      "finish_reason", "predicted_answer", "symbolic_correct"],
    "records.jsonl": ["arm", "origin", "started", "seconds", "run", "answers",
                      "correct", "truncated", "silent", "resumed"],
}  # fmt: skip
_COUNTS = ("num_examples", "n_repeats", "total_completion_tokens", "correct",
           "truncated", "silent", "resumed", "started", "seconds")  # fmt: skip


@pytest.mark.parametrize(
    "name, field", [(name, field) for name, all_ in NEEDED_OF.items() for field in all_]
)
def test_a_document_without_a_field(
    make: Make, tmp_path: Path, name: str, field: str
) -> None:
    """The last line of the message names the file, the field, and both values."""
    if name in ("metrics.json", "output-rs0.jsonl"):
        folder = plain(tmp_path / "p")
    else:
        folder = _record(make("a", n=3), 1.0)
    text = (folder / name).read_text("utf-8")
    first, *rest = text.splitlines() if name.endswith("jsonl") else [text]
    values = (
        [["gone"], [3.5], True, float("nan")] if field in _COUNTS else [["gone"], 3.5]
    )
    if field in ("symbolic_correct", "finish_reason", "predicted_answer"):
        values += [1]
    for value in values:
        document = json.loads(first) | {field: value}
        if value == ["gone"]:
            del document[field]
        text = "\n".join([json.dumps(document), *rest]) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
        with pytest.raises(InputError) as caught:
            load_results(folder)
        last = caught.value.message.splitlines()[-1]
        assert str(folder / name) in last
        (finding,) = caught.value.findings
        assert finding.path == str(folder / name) and finding.next_step
        if value == value:
            assert f'"{field}": expected ' in last and ", found " in last


def test_answers_survive_a_round_trip(make: Make) -> None:
    run = load_results(make("a", n=5))[0]
    again = [
        msgspec.json.decode(msgspec.json.encode(answer), type=Answer)
        for answer in run.answers.values()
    ]
    assert again == list(run.answers.values())
