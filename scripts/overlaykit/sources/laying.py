"""Lays out a base as a clone of its repository would be, with the package's files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core import git, gitversion
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.wording import quoted
from overlaykit.repository import clones
from overlaykit.repository.places import is_clone
from overlaykit.series.lock import LockedDist, TreeWithModes
from overlaykit.series.manifest import Target

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Label:
    """The message of the commit that is laid out. ``about`` identifies the base."""

    title: str
    about: str


def release_label(target: Target, locked: LockedDist) -> Label:
    """The label of a release, by its wheel."""
    about = f"{locked.filename} sha256 {locked.sha256}"
    return Label(f"{target.release} as released", about)


def commit_label(target: Target, commit: str) -> Label:
    """The label of a commit. Where it came from makes no difference."""
    return Label(f"{target.package} at {commit[:12]}", f"commit {commit}")


def lay_out(
    tree: TreeWithModes, label: Label, folder: Path, progress: Progress
) -> bool:
    """Lay out a base at ``folder``. Returns False if it is laid out already.

    Refuses a folder with another base, which may contain somebody's work. The folder
    appears complete or not at all.
    """
    gitversion.check()
    if folder.exists():
        if is_clone(folder):
            known = clones.run(folder, "log", "-1", "--format=%b", "pin", ok=(0, 128))
            if known.stdout.decode(errors="replace").strip() == label.about:
                return False
        step = f"keep what you need of it, then: rm -r {quoted(str(folder))}"
        what = f"{folder} exists and is not {label.about}"
        finding = Finding("has another base", path=str(folder), next_step=step)
        raise InputError(f"{what}; move it away, then run this again", (finding,))
    modes = {path: tree.mode(path) for path in sorted(tree.paths())}
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for number, (path, mode) in enumerate(modes.items(), 1):
            write_file(part / path, tree.read(path) or b"", mode)
            progress(f"laying out {folder.name}", number, len(modes))
        _make_clone(label, part, modes)
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return True


def write_file(place: Path, data: bytes, mode: str) -> None:
    """Write a new file of a folder that is not complete yet, with its git mode."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    if mode == "100755":
        place.chmod(0o755)


def _make_clone(label: Label, folder: Path, modes: Mapping[str, str]) -> None:
    """Commit all files with a fixed author and date, for a fixed commit id.

    The files are not trusted, and git acts on some of them: ``.gitattributes`` makes it
    convert what it stores, even by running a command. So git stores them without
    looking at their names, and ignores the package's attributes later.
    """
    env = git.identity("overlay", "overlay@localhost", "@0 +0000")
    git.run(folder, "init", "-q", "--template=")
    info = folder / ".git" / "info"
    info.mkdir(exist_ok=True)
    (info / "attributes").write_text(git.NO_ATTRIBUTES, encoding="ascii")
    # The prefix `./` keeps git from reading a leading quotation mark as quoting. No
    # name contains a line end.
    names = "".join(f"./{path}\n" for path in modes).encode()
    stored = git.run(
        folder, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names
    ).stdout.split()
    rows = (
        f"{mode} {blob.decode()}\t{path}\0"
        for (path, mode), blob in zip(modes.items(), stored, strict=True)
    )
    git.run(
        folder, "update-index", "-z", "--add", "--index-info",
        stdin="".join(rows).encode(),
    )  # fmt: skip
    # Record the files' times in the index, so that `git status` is quick.
    git.run(folder, "update-index", "-q", "--refresh")
    message = f"{label.title}\n\n{label.about}\n"
    git.run(folder, "commit", "-q", "-m", message, env=env)
    git.run(folder, "tag", "pin")
