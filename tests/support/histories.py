"""Upstream repositories made from released packages, served from a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from conftest import IDENTITY
from overlaykit.core import git
from overlaykit.series.manifest import MANIFEST
from support.edits import commit

OUTSIDE = "docs/large.txt"


@dataclass(frozen=True)
class Upstream:
    """A history with a work tree, and the bare repository that serves it.

    ``first`` is the pinned release; ``second`` changes a file that no patch touches,
    and tags it v9.
    """

    work: Path
    bare: Path
    first: str
    second: str

    @property
    def url(self) -> str:
        return f"file://{self.bare}"

    def push(self) -> None:
        git.run(self.work, "push", "-q", "-f", "--all", str(self.bare))
        git.run(self.work, "push", "-q", "-f", "--tags", str(self.bare))


def serve(work: Path, folder: Path) -> Upstream:
    """Serve a clone's history without file contents unless they are asked for."""
    first = git.text(work, "rev-parse", "HEAD")
    (work / "docs").mkdir()
    (work / OUTSIDE).write_text("outside of the package\n" * 1000)
    package = work / "python" / "sglang" / "other.py"
    package.write_text("OTHER = 1\n")
    commit(work, "A file that no patch touches")
    git.run(work, "tag", "-a", "-m", "nine", "v9", env=IDENTITY)
    second = git.text(work, "rev-parse", "HEAD")
    git.run(folder, "init", "-q", "--bare", "upstream.git")
    made = Upstream(work, folder / "upstream.git", first, second)
    git.run(made.bare, "config", "uploadpack.allowFilter", "true")
    made.push()
    return made


def repin(overlay: Path, name: str, **fields: str | None) -> None:
    """Set or remove fields of a target in overlay.toml; the lock is stale after it."""
    manifest = overlay / MANIFEST
    text = manifest.read_text(encoding="utf-8")
    header = re.search(rf'^\[targets\."?{re.escape(name)}"?\]\n', text, re.MULTILINE)
    assert header is not None
    end = text.find("\n[", header.end())
    end = len(text) if end < 0 else end
    rows = text[header.end() : end].splitlines()
    for key, value in fields.items():
        rows = [row for row in rows if not re.match(rf"{key}\s*=", row)]
        if value is not None:
            rows.insert(0, f'{key} = "{value}"')
    manifest.write_text(f"{text[: header.end()]}{chr(10).join(rows)}\n{text[end:]}")
