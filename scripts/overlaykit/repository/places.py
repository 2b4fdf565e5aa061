"""Where a clone keeps what, and whether the user's git uses it.

Git is asked, once a clone, with the user's own environment and configuration: so its
check of the owner counts, as does every ``safe.directory`` that the user has set and
every way in which that release of git reads it. From then on the clone is named
outright, and read without its configuration; see :mod:`overlaykit.repository.clones`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from pwd import getpwuid

from overlaykit.core import git, gitversion
from overlaykit.core.errors import CannotApply, EnvironmentFailure, Finding, InputError

_SEALED = Path(__file__).resolve().parent / "sealed"

# Since when git knows core.fsync.
_FSYNC = (2, 36)

# The clone's settings that are kept: how files are compared and what rights new ones
# get. None of them names anything that runs.
_SETTINGS = (
    "core.filemode",
    "core.ignorecase",
    "core.sharedrepository",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.symlinks",
    "index.sparse",
)
# What a partial clone has; only that it is there is told.
_PARTIAL = r"extensions\.partialclone|remote\..*\.promisor"


class RefusedClone(EnvironmentFailure):
    """The user's git does not use this clone: the owner is another, mostly.

    Exit code 5 and not 3: it says nothing about what the clone holds, and the remedy,
    as for a missing permission, lies outside of the clone and of the series.
    """


@dataclass(frozen=True)
class Place:
    """Where git keeps what: ``top`` is the work tree, None for a bare repository.

    ``is_partial``: it says of itself that it was cloned without some of its objects.
    """

    git_dir: Path
    common: Path
    top: Path | None
    settings: Mapping[str, str] = field(default_factory=dict)
    is_partial: bool = False
    has_sha256: bool = False


def is_clone(path: Path) -> bool:
    """Whether ``path`` itself looks like a clone or a bare repository.

    A repository further up does not count: it is not the repository of this tree.
    """
    bare = (path / "HEAD").is_file() and (path / "objects").is_dir()
    return bare or git.top_of_clone(path) is not None


def place(clone: Path) -> Place:
    """Ask the user's git for the clone. Raises InputError where there is no clone,
    RefusedClone where git does not use it."""
    where = clone.resolve()
    try:
        if not is_clone(where):
            what = "is no clone" if where.is_dir() else "does not exist"
            step = "name the top of a clone"
            finding = Finding(what, path=str(clone), next_step=step)
            raise InputError(f"{clone} {what}", (finding,))
        # Of another owner, or another repository of that name, it is asked again.
        stats = [path.lstat() for path in _own(where)]
    except OSError as error:
        finding = Finding(str(error), path=str(clone), next_step="permit reading it")
        raise EnvironmentFailure(f"cannot read {clone}", (finding,)) from error
    return _place(where, tuple((os.geteuid(), s.st_uid, s.st_ino) for s in stats))


def environment(at: Place, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of a git process in the clone: the clone's configuration is not read."""
    sealed = "reftable" if (at.common / "reftable").is_dir() else "files"
    sealed += "-sha256" if at.has_sha256 else ""
    exclude = at.common / "info" / "exclude"
    # What is written here is a part of a transaction: on disk before git ends.
    settings = {**at.settings, "core.fsync": "all"}
    if gitversion.version() < _FSYNC:
        # It knows this alone, and it is of objects: references and index may still be
        # in memory when the power fails.
        settings["core.fsyncObjectFiles"] = "true"
    if exclude.is_file():
        settings["core.excludesFile"] = str(exclude)
    made = git.environment(at.top or at.git_dir, extra, settings)
    made.update(
        GIT_DIR=str(at.git_dir),
        GIT_COMMON_DIR=str(_SEALED / sealed),
        GIT_OBJECT_DIRECTORY=str(at.common / "objects"),
        GIT_SHALLOW_FILE=str(at.common / "shallow"),
        # Twice over: there is no remote here that these would keep from being asked.
        GIT_ALLOW_PROTOCOL="none",
        GIT_NO_LAZY_FETCH="1",
    )
    if at.top is not None:
        made["GIT_WORK_TREE"] = str(at.top)
    return made


def _own(where: Path) -> Iterator[Path]:
    """What git looks at to tell the owner."""
    yield where
    if git.top_of_clone(where) is not None:
        yield where / ".git"


@lru_cache
def _place(where: Path, known: object) -> Place:
    said = _ask(where)
    if len(said) not in (4, 5):
        raise RefusedClone(f"git says of {where} what is not understood: {said}")
    git_dir, common = Path(said[0]), Path(said[1])
    bare = said[3] == "true" or git_dir == where
    if not bare and said[4:] != [""]:
        finding = Finding(
            "has its work tree elsewhere", path=str(where), expected=str(where),
            found=f"its work tree is {(where / ''.join(said[4:])).resolve()}",
            next_step="name that one, or unset core.worktree",
        )  # fmt: skip
        raise CannotApply(f"{where} is not the work tree of its clone", (finding,))
    at = Place(git_dir, common, None if bare else where, has_sha256=said[2] == "sha256")
    said_there = dict(_settings(at))
    settings = {k: v for k, v in said_there.items() if k in _SETTINGS}
    return replace(at, settings=settings, is_partial=settings != said_there)


def _ask(where: Path) -> list[str]:
    """The user's git, in the user's environment: no object is read and nothing run."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("GIT_") or k.startswith("GIT_CONFIG_")
    }
    kept.update(
        GIT_ALLOW_PROTOCOL="none",
        GIT_CEILING_DIRECTORIES=str(where.parent),
        GIT_OPTIONAL_LOCKS="0",
        LC_ALL="C",
    )
    args = ("--no-pager", "rev-parse", "--path-format=absolute", "--absolute-git-dir",
            "--git-common-dir", "--show-object-format", "--is-bare-repository",
            "--show-cdup")  # fmt: skip
    done = git.call(where, args, kept, None, (0, 128))
    if done.returncode:
        raise _refused(where, done.stderr.decode(errors="replace").strip())
    return os.fsdecode(done.stdout).removesuffix("\n").split("\n")


def _refused(where: Path, said: str) -> RefusedClone:
    """Whose it is tells why; git's words may be of any release."""
    ours = {os.geteuid()}
    if os.geteuid() == 0 and (sudo := os.environ.get("SUDO_UID", "")).isdigit():
        ours.add(int(sudo))
    paths = [*_own(where), *_named(where)]
    for path in paths:
        owner = path.stat().st_uid
        if owner not in ours:
            finding = Finding(
                "belongs to another user",
                path=str(path),
                expected=f"owner {' or '.join(map(_user, sorted(ours)))}, as this runs",
                found=f"owner {_user(owner)}",
                next_step="if you trust it: git config --global --add safe.directory "
                + shlex.quote(str(where)),
            )
            return RefusedClone(f"git refuses {where}: not its owner", (finding,))
    finding = Finding(
        "git does not use it", path=str(where), found=said,
        next_step=f"see that git -C {shlex.quote(str(where))} status works",
    )  # fmt: skip
    return RefusedClone(f"git refuses {where}", (finding,))


def _named(where: Path) -> Iterator[Path]:
    """The folder that a ``.git`` file names."""
    if (where / ".git").is_file():
        said = (where / ".git").read_text(errors="replace")
        folder = where / said.removeprefix("gitdir:").strip()
        if folder.exists():
            yield folder


def _user(uid: int) -> str:
    try:
        return f"{getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _settings(at: Place) -> Iterator[tuple[str, str]]:
    """From the clone's files and none that they include."""
    wanted = "|".join([*(name.replace(".", r"\.") for name in _SETTINGS), _PARTIAL])
    for file in (at.common / "config", at.git_dir / "config.worktree"):
        if not file.is_file():
            continue
        args = ("config", "--file", str(file), "--no-includes", "-z", "--get-regexp",
                f"^({wanted})$")  # fmt: skip
        done = git.call(at.git_dir, args, environment(at), None, (0, 1))
        for row in filter(None, done.stdout.decode(errors="replace").split("\0")):
            name, _, value = row.partition("\n")
            yield name, value if "\n" in row else "true"
