"""Git histories, built from trees without a checkout."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from overlaykit.core import git
from overlaykit.trees.tree import Tree

# The files that the planner and the census read in these releases.
_WANTED = (
    "python/sglang/__init__.py",
    "python/sglang/srt/layers/",
    "python/sglang/srt/models/deepseek",
    "python/sglang/srt/utils/",
)
Files = Mapping[str, bytes]


def needed(tree: Tree) -> dict[str, bytes]:
    """The files of a release that a history contains."""
    return {
        path: tree.read(path) or b""
        for path in tree.paths()
        if path.startswith(_WANTED) and path.endswith(".py")
    }


def build(folder: Path, steps: Iterable[tuple[str, Files]]) -> dict[str, str]:
    """Make a bare repository with a commit for each step on the branch ``main``.

    Returns the commits by subject.
    """
    git.run(folder.parent, "init", "-q", "--bare", folder.name)
    marks: dict[bytes, int] = {}
    subjects = []
    with subprocess.Popen(
        ["git", "fast-import", "--quiet"],
        cwd=folder,
        stdin=subprocess.PIPE,
        env=git.environment(folder),
    ) as importer:
        write = importer.stdin.write if importer.stdin else None
        assert write is not None
        for number, (subject, files) in enumerate(steps):
            rows = []
            for path, data in files.items():
                if data not in marks:
                    marks[data] = len(marks) + 1
                    write(b"blob\nmark :%d\ndata %d\n" % (marks[data], len(data)))
                    write(data + b"\n")
                rows.append(b"M 100644 :%d %s\n" % (marks[data], path.encode()))
            who = b"A Tester <tester@localhost> %d +0000" % (1_700_000_000 + number)
            text = subject.encode()
            write(b"commit refs/heads/main\nauthor %s\ncommitter %s\n" % (who, who))
            write(b"data %d\n%s\ndeleteall\n" % (len(text), text) + b"".join(rows))
            subjects.append(subject)
        assert importer.stdin is not None
        importer.stdin.close()
    assert importer.returncode == 0
    commits = git.text(folder, "rev-list", "--reverse", "main").split()
    return dict(zip(subjects, commits, strict=True))
