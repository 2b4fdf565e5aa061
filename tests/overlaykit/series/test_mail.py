"""Headers are read as ``git am`` commits them, for any header."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from conftest import IDENTITY
from overlaykit.core import git
from overlaykit.core.errors import InputError
from overlaykit.series.mail import UnreadableHeader, read_mail
from overlaykit.series.patches import parse_patch
from overlaykit.series.quilt import read_header

DIFF = "diff --git a/f b/f\nindex 0..1 100644\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-1\n+2\n"
PLAIN = {
    "From": "A Name <a@example.org>",
    "Date": "Sun, 22 Nov 2026 00:00:00 +0000",
    "Subject": "[PATCH] write it transposed",
}
BODY = "Why.\n\nForwarded: no\nX-Drop-When: never\nX-Sites:\n"


def mail(body: str = BODY, **fields: str) -> bytes:
    names = {name.replace("_", "-"): value for name, value in fields.items()}
    head = "".join(f"{k}: {v}\n" for k, v in {**PLAIN, **names}.items() if v)
    return f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n{head}\n{body}---\n\n".encode()


MAILS = {
    "as it is": mail(),
    "UTF-8 without a Content-Type": mail(f"Größe, µs.\n\n{BODY}"),
    "a tag without a space": mail(Subject="[PATCH]x"),
    "two tags": mail(Subject="[PATCH 5/5] [AMD] write it transposed"),
    "no tag": mail(Subject="sgl: write it"),
    "an author in the body": mail(f"From: Real Author <r@example.org>\n\n{BODY}"),
    "a subject in the body": mail(f"Subject: another\n\n{BODY}"),
    "a date without a zone": mail(Date="Sun, 22 Nov 2026 00:00:00 -0000"),
    "a date of another zone": mail(Date="Sun, 22 Nov 2026 09:30:00 +0530"),
    "an ISO date": mail(Date="2026-11-22 00:00:00 +0000"),
    "a date in the body": mail(f"Date: 2026-11-21 01:00:00 +0100\n\n{BODY}"),
    "a quoted name": mail(From='"Name, A." <a@example.org>'),
    "a name in Q encoding": mail(From="=?UTF-8?q?J=C3=BCrgen?= <j@example.org>"),
    "a folded subject": mail(Subject="[PATCH] a long\n one of two lines"),
    "Latin-1": mail(
        f"Größe.\n\n{BODY}",
        MIME_Version="1.0", Content_Type="text/plain; charset=ISO-8859-1",
    ).decode().encode("latin-1"),
    "blanks at line ends": mail(f"One.  \n\n\n\nTwo.\t\n\n{BODY}"),
    "a line that looks like a scissors line": mail(f"a\n-- >8 --\nb\n\n{BODY}"),
}  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git.run(tmp_path, "init", "-q")
    (tmp_path / "f").write_text("1\n")
    git.run(tmp_path, "add", "f")
    git.run(tmp_path, "commit", "-qm", "one", env=IDENTITY)
    return tmp_path


@pytest.mark.parametrize("name", MAILS)
def test_as_git_am_commits_it(name: str, clone: Path, tmp_path: Path) -> None:
    header = MAILS[name]
    where = os.environ | {"TZ": "America/New_York"}
    done = subprocess.run(
        ["git", "am", "-q"], cwd=clone, input=header + DIFF.encode(), env=where,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = read_mail(header)
    made = git.run(
        clone, "commit-tree", "HEAD^{tree}", "-p", "HEAD~1",
        stdin=f"{read.subject}\n\n{read.body}\n".encode(),
        env=git.identity(read.name, read.address, read.date),
    ).stdout.decode().strip()  # fmt: skip
    commits = [
        git.run(clone, "cat-file", "commit", ref).stdout.splitlines()
        for ref in ("HEAD", made)
    ]
    # am's committer is its user; ours is the author of the patch.
    am, ours = (
        [row for row in rows if not row.startswith(b"committer ")] for rows in commits
    )
    assert ours == am


@pytest.mark.parametrize(
    ("header", "field"),
    [
        (mail(f"Größe\n\n{BODY}", Content_Type="text/plain; charset=x-unknown"),
         "Content-Type"),
        (mail(Date="the day before yesterday, or so"), "Date"),
        (mail(From=" <>"), "From"),
    ],
)  # fmt: skip
def test_an_unreadable_header_is_refused_with_its_line(
    header: bytes, field: str
) -> None:
    with pytest.raises(UnreadableHeader) as refused:
        read_mail(header)
    assert refused.value.field == field
    ids = f"index {'0' * 39}1..{'0' * 39}2 100644"
    patch = parse_patch("0001.patch", header + DIFF.replace(
        "index 0..1 100644", ids).encode())  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_header(patch)
    (finding,) = caught.value.findings
    lines = header.splitlines()
    assert finding.line and lines[finding.line - 1].startswith(field.encode() + b":")
    assert finding.path == "0001.patch" and finding.next_step
