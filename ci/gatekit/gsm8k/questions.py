"""Question files: the official test set, and the training set for more power."""

from __future__ import annotations

import hashlib
import math
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import msgspec

from gatekit.records.fields import Misfit, decoded
from overlaykit.cli import say
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.files import write_whole

PLACE = (
    "https://raw.githubusercontent.com/openai/grade-school-math/"
    "3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data"
)
OFFICIAL = {
    "test": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    "train": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
}
_TIMEOUT_S = 60
_SHOWN = 24
_STEP = "give a file in GSM8K's format: one question and answer per line"


class Question(msgspec.Struct, frozen=True):
    """``id`` is the position in the file, as sgl-eval numbers the test set."""

    id: str
    problem: str
    expected: str


class QuestionFile(msgspec.Struct, frozen=True):
    name: str
    sha256: str
    questions: int


class _Row(msgspec.Struct):
    question: str
    answer: str


def load(
    sources: Sequence[str], cache: Path, fixes: dict[str, object], place: str = PLACE
) -> tuple[list[Question], tuple[QuestionFile, ...]]:
    """Read the questions of every file, in order. A source is a path, or ``test`` or
    ``train``, which are downloaded once from ``place``. ``fixes`` are the grader's
    corrections of the training set's answers.

    Raises InputError if a file is not a question file or repeats a question, and
    EnvironmentFailure if a file cannot be downloaded or read.
    """
    found: list[Question] = []
    files = []
    for source in sources:
        named = source in OFFICIAL
        path = _fetched(source, cache, place) if named else Path(source)
        try:
            data = path.read_bytes()
        except OSError as error:
            step = "give a file, or `test` or `train` to download one"
            finding = Finding(str(error), path=str(path), next_step=step)
            raise EnvironmentFailure(f"cannot read {path}", (finding,)) from error
        sha256 = _sha256(data)
        prefix = "gsm8k" if sha256 == OFFICIAL["test"] else f"gsm8k-{sha256[:8]}"
        before = len(found)
        for number, line in enumerate(data.splitlines(), 1):
            found.append(_question(path, number, line, prefix, fixes))
        if len(found) == before:
            raise InputError(f"{path} contains no questions")
        files.append(QuestionFile(path.name, sha256, len(found) - before))
    _refuse_twins(found)
    return found, tuple(files)


def _question(
    path: Path, number: int, line: bytes, prefix: str, fixes: dict[str, object]
) -> Question:
    try:
        row = decoded(line, _Row)
        text = row.answer.rpartition("####")[2]
        expected = fixes.get(row.question, _number(text))
    except Misfit as error:
        head = f"{path}:{number}: not a GSM8K question"
        raise error.refusal(head, path, _STEP, number) from error
    return Question(f"{prefix}-{number - 1}", row.question, str(expected))


def _number(text: str) -> int | float:
    """The number as sgl-eval's data preparation writes it. Raises Misfit."""
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        shown = text.strip()[:_SHOWN] or "nothing"
        what = "the answer is not a number"
        raise Misfit(what, "answer", "a finite number after ####", shown)
    return int(number) if number.is_integer() else number


def _refuse_twins(questions: list[Question]) -> None:
    seen: dict[str, str] = {}
    for one in questions:
        if one.problem in seen:
            raise InputError(
                f"{one.id} and {seen[one.problem]} are the same question: a paired "
                "comparison needs distinct questions"
            )
        seen[one.problem] = one.id


def _fetched(name: str, cache: Path, place: str) -> Path:
    path = cache / f"gsm8k-{name}.jsonl"
    if path.exists() and _sha256(path.read_bytes()) == OFFICIAL[name]:
        return path
    url = f"{place}/{name}.jsonl"
    say(f"gsm8k: fetching {url}")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            data = answer.read()
    except (HTTPException, OSError) as error:
        raise _unfetched(url, str(error)) from error
    if _sha256(data) != OFFICIAL[name]:
        raise _unfetched(url, _sha256(data), f"sha256 {OFFICIAL[name]}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"cannot use {cache}: {error.strerror}") from error
    write_whole(path, data.decode())
    return path


def _unfetched(url: str, found: str, expected: str | None = None) -> EnvironmentFailure:
    step = "download the file elsewhere, and give it with --questions"
    finding = Finding(
        "not the pinned file" if expected else "no response",
        path=url,
        expected=expected,
        found=found,
        next_step=step,
    )
    return EnvironmentFailure(f"cannot fetch {url}", (finding,))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
