"""The question files: the official test set, and the training set for more power."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import msgspec

from overlaykit.errors import EnvironmentFailure, Finding, InputError

_URL = (
    "https://raw.githubusercontent.com/openai/grade-school-math/"
    "3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/{}.jsonl"
)
OFFICIAL = {
    "test": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    "train": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
}
_TIMEOUT_S = 60


class Question(msgspec.Struct, frozen=True):
    """``id`` as sgl-eval makes it of the test set: its place in the file."""

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
    sources: Sequence[str], cache: Path, fixes: dict[str, object]
) -> tuple[list[Question], tuple[QuestionFile, ...]]:
    """The questions of every file, in order. A source is a path, or ``test`` or
    ``train``, which are downloaded once. ``fixes`` are the grader's corrections of the
    training set's answers.

    Raises InputError for a file that is none of questions or that repeats one, and
    EnvironmentFailure where one cannot be fetched or read.
    """
    found: list[Question] = []
    files = []
    for source in sources:
        path = _fetched(source, cache) if source in OFFICIAL else Path(source)
        try:
            data = path.read_bytes()
        except OSError as error:
            step = "name a file, or `test` or `train` to have it downloaded"
            finding = Finding(str(error), path=str(path), next_step=step)
            raise EnvironmentFailure(f"cannot read {path}", (finding,)) from error
        sha256 = hashlib.sha256(data).hexdigest()
        prefix = "gsm8k" if sha256 == OFFICIAL["test"] else f"gsm8k-{sha256[:8]}"
        before = len(found)
        for number, line in enumerate(data.splitlines(), 1):
            found.append(_question(path, number, line, prefix, fixes))
        files.append(QuestionFile(path.name, sha256, len(found) - before))
    _refuse_twins(found)
    return found, tuple(files)


def _question(
    path: Path, number: int, line: bytes, prefix: str, fixes: dict[str, object]
) -> Question:
    try:
        row = msgspec.json.decode(line, type=_Row)
        expected = fixes.get(row.question, _number(row.answer.rpartition("####")[2]))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}:{number}: not a question of GSM8K",
            (Finding(str(error), path=str(path), line=number),),
        ) from error
    return Question(f"{prefix}-{number - 1}", row.question, str(expected))


def _number(text: str) -> int | float:
    """As sgl-eval's own preparation of the data writes it."""
    number = float(text.replace(",", ""))
    return int(number) if number.is_integer() else number


def _refuse_twins(questions: list[Question]) -> None:
    seen: dict[str, str] = {}
    for one in questions:
        if one.problem in seen:
            raise InputError(
                f"{one.id} asks what {seen[one.problem]} asks: questions of a paired "
                "comparison must be different ones"
            )
        seen[one.problem] = one.id


def _fetched(name: str, cache: Path) -> Path:
    path = cache / f"gsm8k-{name}.jsonl"
    if path.exists() and _sha256(path) == OFFICIAL[name]:
        return path
    url = _URL.format(name)
    part = path.with_suffix(".part")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            part.write_bytes(answer.read())
        if _sha256(part) != OFFICIAL[name]:
            raise EnvironmentFailure(
                f"{url} is not the file that is pinned",
                (Finding("another digest", url, None, found=_sha256(part)),),
            )
        os.replace(part, path)
    except (URLError, OSError) as error:
        step = "fetch it elsewhere and give its path"
        raise EnvironmentFailure(
            f"cannot fetch {url}", (Finding(str(error), next_step=step),)
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
