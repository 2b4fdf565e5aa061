"""Where a clone's git directories are, and whether the user's git accepts the clone.

Git runs once for each clone with the user's own environment and configuration. So its
owner check applies, and every ``safe.directory`` that the user has set, as that release
of git reads it. After that the clone is named by ``GIT_DIR`` and read without its
configuration; see :mod:`overlaykit.repository.clones`.
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

# The first version with core.fsync.
_FSYNC = (2, 36)

# The clone's settings that are used: how files are compared and which permissions new
# files get. None of them names a command.
_SETTINGS = (
    "core.filemode",
    "core.ignorecase",
    "core.sharedrepository",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.symlinks",
    "index.sparse",
)
# The settings of a partial clone; only their presence matters.
_PARTIAL = r"extensions\.partialclone|remote\..*\.promisor"


class RefusedClone(EnvironmentFailure):
    """The user's git refuses this clone, usually because another user owns it.

    The exit code is 5, not 3: the error is unrelated to the clone's contents, and like
    a missing permission it is fixed outside the clone and the series.
    """


@dataclass(frozen=True)
class CloneLocation:
    """A clone's directories: ``top`` is the work tree, None for a bare repository.

    ``is_partial``: its configuration says that it was cloned without some objects.
    """

    git_dir: Path
    common: Path
    top: Path | None
    settings: Mapping[str, str] = field(default_factory=dict)
    is_partial: bool = False
    has_sha256: bool = False


def is_clone(path: Path) -> bool:
    """Whether ``path`` itself looks like a clone or a bare repository.

    A repository further up does not count: it is not this tree's repository.
    """
    bare = (path / "HEAD").is_file() and (path / "objects").is_dir()
    return bare or git.top_of_clone(path) is not None


def clone_location(clone: Path) -> CloneLocation:
    """Ask the user's git for the clone's directories. Raises InputError if ``clone`` is
    not a clone, RefusedClone if git refuses it."""
    where = clone.resolve()
    try:
        if not is_clone(where):
            what = "is not a clone" if where.is_dir() else "does not exist"
            step = "name the top of a clone"
            finding = Finding(what, path=str(clone), next_step=step)
            raise InputError(f"{clone} {what}", (finding,))
        # Git is asked again if the owner changes, or the repository at this path.
        stats = [path.lstat() for path in _own(where)]
    except OSError as error:
        finding = Finding(str(error), path=str(clone), next_step="permit reading it")
        raise EnvironmentFailure(f"cannot read {clone}", (finding,)) from error
    return _clone_location(
        where, tuple((os.geteuid(), s.st_uid, s.st_ino) for s in stats)
    )


def environment(
    at: CloneLocation, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a git process that does not read the clone's configuration."""
    sealed = "reftable" if (at.common / "reftable").is_dir() else "files"
    sealed += "-sha256" if at.has_sha256 else ""
    exclude = at.common / "info" / "exclude"
    # Writes are a part of a transaction, so they must be on disk before git ends.
    settings = {**at.settings, "core.fsync": "all"}
    if gitversion.version() < _FSYNC:
        # This older setting covers objects only: a power failure may still lose changes
        # of references and the index.
        settings["core.fsyncObjectFiles"] = "true"
    if exclude.is_file():
        settings["core.excludesFile"] = str(exclude)
    made = git.environment(at.top or at.git_dir, extra, settings)
    made.update(
        GIT_DIR=str(at.git_dir),
        GIT_COMMON_DIR=str(_SEALED / sealed),
        GIT_OBJECT_DIRECTORY=str(at.common / "objects"),
        GIT_SHALLOW_FILE=str(at.common / "shallow"),
        # A second safeguard: no remote is configured that git could fetch from.
        GIT_ALLOW_PROTOCOL="none",
        GIT_NO_LAZY_FETCH="1",
    )
    if at.top is not None:
        made["GIT_WORK_TREE"] = str(at.top)
    return made


def _own(where: Path) -> Iterator[Path]:
    """The paths whose owner git checks."""
    yield where
    if git.top_of_clone(where) is not None:
        yield where / ".git"


@lru_cache
def _clone_location(where: Path, known: object) -> CloneLocation:
    rows = _ask(where)
    if len(rows) not in (4, 5):
        raise RefusedClone(f"unexpected output of git rev-parse in {where}: {rows}")
    git_dir, common = Path(rows[0]), Path(rows[1])
    bare = rows[3] == "true" or git_dir == where
    if not bare and rows[4:] != [""]:
        finding = Finding(
            "has its work tree elsewhere", path=str(where), expected=str(where),
            found=f"its work tree is {(where / ''.join(rows[4:])).resolve()}",
            next_step="name that work tree, or unset core.worktree",
        )  # fmt: skip
        raise CannotApply(f"{where} is not the work tree of its clone", (finding,))
    at = CloneLocation(
        git_dir, common, None if bare else where, has_sha256=rows[2] == "sha256"
    )
    configured = dict(_settings(at))
    settings = {k: v for k, v in configured.items() if k in _SETTINGS}
    return replace(at, settings=settings, is_partial=settings != configured)


def _ask(where: Path) -> list[str]:
    """Run the user's git in the user's environment; it reads no object and runs no
    command."""
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


def _refused(where: Path, output: str) -> RefusedClone:
    """The error, with the reason read from the owners: git's message depends on its
    version."""
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
                expected=f"owner {' or '.join(map(_user, sorted(ours)))}, "
                "the user running this",
                found=f"owner {_user(owner)}",
                next_step="if you trust it: git config --global --add safe.directory "
                + shlex.quote(str(where)),
            )
            return RefusedClone(f"git refuses {where}: not its owner", (finding,))
    finding = Finding(
        "git refuses to use it", path=str(where), found=output,
        next_step=f"make git -C {shlex.quote(str(where))} status work",
    )  # fmt: skip
    return RefusedClone(f"git refuses {where}", (finding,))


def _named(where: Path) -> Iterator[Path]:
    """The folder that a ``.git`` file names."""
    if (where / ".git").is_file():
        pointer = (where / ".git").read_text(errors="replace")
        folder = where / pointer.removeprefix("gitdir:").strip()
        if folder.exists():
            yield folder


def _user(uid: int) -> str:
    try:
        return f"{getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _settings(at: CloneLocation) -> Iterator[tuple[str, str]]:
    """Settings from the clone's own configuration files, without included files."""
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
