"""The series for other tools: a quilt directory, a mailbox for ``git am``, a branch.

All are self-contained: the overlay's new files come first. Nothing that is there
already is written to, and nothing is there half written.
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
from overlaykit.core.effects import tell
from overlaykit.core.errors import CannotApply, EnvironmentFailure, Finding, InputError
from overlaykit.core.files import put
from overlaykit.core.objects import blob_id
from overlaykit.repository import clones
from overlaykit.series.carried import Carried
from overlaykit.series.diffnames import new_file_names
from overlaykit.series.patches import split_lines
from overlaykit.series.quilt import SERIES, NewFile, read_header
from overlaykit.trees.locking import undisturbed

NEW_FILES_PATCH = "0000-new-files.patch"
_FROM = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001"


def all_patches(carried: Carried) -> Iterator[tuple[str, bytes]]:
    """The patches of the self-contained series, by name, in order."""
    if carried.new_files:
        yield NEW_FILES_PATCH, _new_files_patch(carried)
    for patch in carried.series.patches:
        yield patch.name, patch.data


def export_quilt(carried: Carried, folder: Path) -> tuple[str, ...]:
    """Write a ``patches`` directory for quilt; returns the names written.

    Raises InputError unless the folder is empty or missing: stray patches in it would
    look like ours.
    """
    patches = dict(all_patches(carried))
    series = "".join(f"{name}\n" for name in patches).encode()
    try:
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise _exists(folder, "an empty directory, or none")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
        ) as scratch:
            part = Path(scratch) / "patches"
            part.mkdir()
            for name, data in {**patches, SERIES: series}.items():
                (part / name).write_bytes(data)
            # Takes the place of an empty folder, and of nothing else.
            with undisturbed():
                part.rename(folder)
                tell(str(folder), "the patches are written")
    except OSError as error:
        raise _write_failed(folder, error) from error
    return (*patches, SERIES)


def write_new(path: Path, data: bytes) -> None:
    """Write a whole file where there is none. Raises InputError where there is one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with undisturbed():
            put(path, data, new=True)
            tell(str(path), "is written")
    except FileExistsError:
        raise _exists(path, "no such file") from None
    except OSError as error:
        raise _write_failed(path, error) from error


def mailbox(carried: Carried) -> bytes:
    """The series as one mailbox."""
    return b"\n".join(data for _, data in all_patches(carried))


def export_branch(carried: Carried, clone: Path, branch: str) -> str:
    """Put the series on a new branch of a clone and return its tip; what is checked
    out stays as it is.

    It goes on top of the manifest's tag where the clone has it, else of HEAD. Raises
    InputError for a name that is none, CannotApply where the branch exists or the
    base does not hold the pinned files.
    """
    if git.top_of_clone(clone) is None:
        finding = Finding("is no clone", path=str(clone), next_step="name its top")
        raise InputError(f"{clone} is no clone: a branch needs one", (finding,))
    ref = f"refs/heads/{branch}"
    if clones.run(clone, "check-ref-format", ref, ok=(0, 1)).returncode:
        finding = Finding(f"{branch!r} cannot be a branch", next_step="name another")
        raise InputError("no name of a branch", (finding,))
    tag = f"refs/tags/{carried.target.tag}^{{commit}}"
    has = clones.run(clone, "rev-parse", "--verify", "-q", tag, ok=(0, 1, 128))
    tip = commit_series(clone, "HEAD" if has.returncode else tag, carried)
    if check_branch(clone, branch, tip):
        step = f"name another; {branch} is this very series already"
        finding = Finding("exists", path=ref, found=tip, next_step=step)
        raise CannotApply(f"{clone}: branch {branch} exists", (finding,))
    with undisturbed():
        create_branch(clone, branch, tip)
        tell(str(clone), f"the branch {branch} is made")
    return tip


def _exists(path: Path, expected: str) -> InputError:
    step = "name another, or move it away; export overwrites nothing"
    finding = Finding(
        "is there already", path=str(path), expected=expected, next_step=step
    )
    return InputError(f"{path} is in the way", (finding,))


def _write_failed(path: Path, error: OSError) -> EnvironmentFailure:
    step = "make room or permit writing there, then run it again"
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
