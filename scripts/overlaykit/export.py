"""The series for other tools: a quilt directory, or a mailbox for ``git am``.

Both are self-contained: the overlay's new files come first, as a patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from overlaykit.carried import Carried
from overlaykit.commits import new_files_message
from overlaykit.objects import blob_id
from overlaykit.patches import split_lines
from overlaykit.series import SERIES, NewFile, read_header

NEW_FILES_PATCH = "0000-new-files.patch"
_FROM = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001"


def exported(carried: Carried) -> Iterator[tuple[str, bytes]]:
    """The patches of the self-contained series, by name, in order."""
    if carried.new_files:
        yield NEW_FILES_PATCH, _new_files_patch(carried)
    for patch in carried.series.patches:
        yield patch.name, patch.data


def export_quilt(carried: Carried, folder: Path) -> tuple[str, ...]:
    """Write a ``patches`` directory for quilt; returns the names written.

    The folder must be empty or missing (FileExistsError): stray patches in it would
    look like ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(folder)
    patches = dict(exported(carried))
    for name, data in patches.items():
        (folder / name).write_bytes(data)
    (folder / SERIES).write_text("".join(f"{n}\n" for n in patches), encoding="utf-8")
    return (*patches, SERIES)


def mailbox(carried: Carried) -> bytes:
    """The series as one mailbox."""
    return b"\n".join(data for _, data in exported(carried))


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
    head = (
        f"diff --git a/{new.path} b/{new.path}\nnew file mode {new.mode}\n"
        f"index {'0' * 40}..{blob_id(new.data)}\n"
        f"--- /dev/null\n+++ b/{new.path}\n@@ -0,0 +{count} @@\n"
    )
    body = b"".join(b"+" + line for line in lines)
    open_end = b"" if new.data.endswith(b"\n") else b"\n\\ No newline at end of file\n"
    return head.encode() + body + open_end
