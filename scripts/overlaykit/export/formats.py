"""Exports the series as a quilt directory, a mailbox for ``git am`` or a branch.

Each export is self-contained: a patch with the overlay's new files comes first. An
export never overwrites anything and never leaves a half-written result.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from overlaykit.applying.commits import (
    check_branch,
    commit_series,
    create_branch,
    new_files_message,
)
from overlaykit.core import git
from overlaykit.core.effects import record_effect
from overlaykit.core.errors import CannotApply, EnvironmentFailure, Finding, InputError
from overlaykit.core.files import write_file
from overlaykit.core.objects import blob_id
from overlaykit.repository import clones
from overlaykit.repository.refs import base_in
from overlaykit.series.carried import Carried
from overlaykit.series.diffnames import new_file_names
from overlaykit.series.patches import split_lines
from overlaykit.series.quilt import SERIES, NewFile, read_header
from overlaykit.trees.locking import signals_blocked

NEW_FILES_PATCH = "0000-new-files.patch"
_FROM = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001"


def all_patches(carried: Carried) -> Iterator[tuple[str, bytes]]:
    """The patches of the self-contained series with their names, in order."""
    if carried.new_files:
        yield NEW_FILES_PATCH, _new_files_patch(carried)
    for patch in carried.series.patches:
        yield patch.name, patch.data


def export_quilt(carried: Carried, folder: Path) -> tuple[str, ...]:
    """Write a ``patches`` directory for quilt; returns the names written.

    Raises InputError unless the folder is empty or missing: other patches in it would
    look like part of the series.
    """
    patches = dict(all_patches(carried))
    series = "".join(f"{name}\n" for name in patches).encode()
    try:
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise _exists(folder, "an empty directory, or no directory")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
        ) as scratch:
            part = Path(scratch) / "patches"
            part.mkdir()
            for name, data in {**patches, SERIES: series}.items():
                (part / name).write_bytes(data)
            # Rename replaces an empty folder and nothing else.
            with signals_blocked():
                part.rename(folder)
                record_effect(str(folder), "the patches were written")
    except OSError as error:
        raise _write_failed(folder, error) from error
    return (*patches, SERIES)


def write_new(path: Path, data: bytes) -> None:
    """Write a new file. Raises InputError if it exists."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with signals_blocked():
            write_file(path, data, new=True)
            record_effect(str(path), "was written")
    except FileExistsError:
        raise _exists(path, "no such file") from None
    except OSError as error:
        raise _write_failed(path, error) from error


def mailbox(carried: Carried) -> bytes:
    """The series as one mailbox."""
    return b"\n".join(data for _, data in all_patches(carried))


def export_branch(carried: Carried, clone: Path, branch: str) -> str:
    """Commit the series to a new branch of a clone and return its tip. The work tree
    stays as it is.

    The branch starts at the base's commit if the clone has it, else at its tag, else at
    HEAD. Raises InputError for an invalid name, and CannotApply if the branch exists or
    the start does not have the pinned files.
    """
    if git.top_of_clone(clone) is None:
        step = "name the top of a clone"
        finding = Finding("is not a clone", path=str(clone), next_step=step)
        raise InputError(f"{clone} is not a clone: --branch needs one", (finding,))
    ref = f"refs/heads/{branch}"
    if clones.run(clone, "check-ref-format", ref, ok=(0, 1)).returncode:
        finding = Finding(f"{branch!r} is not a branch name", next_step="name another")
        raise InputError(f"{branch!r} is not a branch name", (finding,))
    start = base_in(clone, carried.lock.commit, carried.target.tag) or "HEAD"
    tip = commit_series(clone, start, carried)
    if check_branch(clone, branch, tip):
        step = f"name another; {branch} already is this series"
        finding = Finding("exists", path=ref, found=tip, next_step=step)
        raise CannotApply(f"{clone}: branch {branch} exists", (finding,))
    with signals_blocked():
        create_branch(clone, branch, tip)
        record_effect(str(clone), f"the branch {branch} was created")
    return tip


def _exists(path: Path, expected: str) -> InputError:
    step = "name another, or move it away; export never overwrites anything"
    finding = Finding(
        "already exists", path=str(path), expected=expected, next_step=step
    )
    return InputError(f"{path} already exists", (finding,))


def _write_failed(path: Path, error: OSError) -> EnvironmentFailure:
    step = "free some space or permit writing there, then run it again"
    finding = Finding(str(error), path=str(error.filename or path), next_step=step)
    return EnvironmentFailure(f"{path} could not be written", (finding,))


def _new_files_patch(carried: Carried) -> bytes:
    header = read_header(carried.series.patches[0])
    subject, _, body = new_files_message(carried).partition("\n\n")
    mail = (
        f"{_FROM}\nFrom: {header.author}\nDate: {header.date}\n"
        f"Subject: [PATCH] {subject}\n\n{body}---\n\n"
    )
    return mail.encode() + b"".join(_creation(new) for new in carried.new_files)


def _creation(new: NewFile) -> bytes:
    lines = split_lines(new.data)
    count = f"1,{len(lines)}" if len(lines) != 1 else "1"
    header, name = new_file_names(new.path)
    head = (
        f"{header}\nnew file mode {new.mode}\nindex {'0' * 40}..{blob_id(new.data)}\n"
    )
    if not lines:
        return head.encode()
    head += f"--- /dev/null\n{name}\n@@ -0,0 +{count} @@\n"
    body = b"".join(b"+" + line for line in lines)
    open_end = b"" if new.data.endswith(b"\n") else b"\n\\ No newline at end of file\n"
    return head.encode() + body + open_end
