"""Git in a clone of the user's, which somebody else may have configured.

A clone's own configuration names commands: filters, hooks, diff and merge drivers, a
file system monitor, ``remote.*.uploadpack``, credential helpers and more with every
release of git. What is trusted:

- the user's git says whether the clone may be used at all. It is asked once, with the
  user's own environment and configuration, so that its check of the owner counts and so
  does every ``safe.directory`` that the user has set;
- the clone's objects, references and index, as data;
- a few of its settings that name no command (:data:`_SETTINGS`).

Nothing else of it is read. Every other git process finds the clone by ``GIT_DIR``, and
instead of the clone's configuration, ``info/`` and ``hooks/`` an empty folder of this
project (``GIT_COMMON_DIR``, see ``sealed/``). So no filter, driver, hook or remote
exists that attributes or a missing object could make git run: git fetches no object on
its own, whichever version it is. Only the commands in :data:`COMMANDS` are run.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pwd import getpwuid
from typing import IO

from overlaykit import git
from overlaykit.errors import EnvironmentFailure, Finding, InputError

_SEALED = Path(__file__).resolve().parent / "sealed"

# What may be run, and what it does. A command that is not here was not thought about.
COMMANDS = {
    "cat-file": "reads objects",
    "check-ref-format": "looks at a name",
    "commit-tree": "writes a commit",
    "config": "reads the one file that it is given",
    "diff": "compares trees with each other or with files; drivers are not configured",
    "for-each-ref": "reads references",
    "hash-object": "writes standard input, to which no filter applies",
    "log": "reads commits; signatures are left alone",
    "ls-files": "reads the index and lists files",
    "ls-tree": "reads trees",
    "merge-base": "reads commits",
    "read-tree": "fills a scratch index, and no work tree",
    "rev-list": "reads commits",
    "rev-parse": "reads references and objects",
    "status": "compares with files; filters and monitor are not configured",
    "symbolic-ref": "reads or moves HEAD",
    "update-index": "puts ids into an index, and reads no file",
    "update-ref": "makes a reference; hooks are not found",
    "write-tree": "writes trees from an index",
}

# They decide how files and rights are compared and set, and name nothing that runs.
_SETTINGS = (
    "core.filemode",
    "core.ignorecase",
    "core.sharedrepository",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.symlinks",
)


class RefusedClone(EnvironmentFailure):
    """The user's git does not use this clone: the owner is another, mostly.

    Exit code 5 and not 3: it says nothing about what the clone holds, and the remedy,
    as for a missing permission, lies outside of the clone and of the series.
    """


@dataclass(frozen=True)
class Place:
    """Where git keeps what: ``top`` is the work tree, None for a bare repository."""

    git_dir: Path
    common: Path
    top: Path | None
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether it was cloned without some of its objects."""
        return any((self.common / "objects" / "pack").glob("*.promisor"))


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


def run(
    clone: Path,
    *args: str,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
    keep: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run git in the clone, without its configuration; else as :func:`git.run`, and for
    ``keep`` as :func:`git.call`."""
    at = place(clone)
    _check(args)
    try:
        return git.call(clone, args, _environment(at, env), stdin, ok, keep)
    except EnvironmentFailure as error:
        if not at.is_partial:
            raise
        raise EnvironmentFailure(error.message, (_partial(clone),)) from error


def text(clone: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    """What git prints, without the last line end."""
    return run(clone, *args, env=env).stdout.decode(errors="replace").rstrip("\n")


def worktrees(clone: Path) -> str:
    """What ``git worktree list --porcelain`` prints: the user's git, for they are found
    in the common folder, where :func:`run` has another."""
    args = ("--no-pager", "worktree", "list", "--porcelain")
    done = git.call(clone, args, _users(clone.resolve()), None, (0,))
    return os.fsdecode(done.stdout)


def start(clone: Path, *args: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """A git process that answers over pipes; what it complains of goes to ``errors``.

    Raises what :func:`run` raises where it cannot be started.
    """
    environment = _environment(place(clone))
    _check(args)
    return git.start(clone, args, environment, errors)


def lacks(clone: Path, what: str, oid: str) -> EnvironmentFailure:
    """The error for an object that should be there. Not 'no such file': a tree names
    it, and a partial clone, or a damaged one, does not hold it."""
    where = shlex.quote(str(clone))
    if place(clone).is_partial:
        found = "not in this partial clone; no object is fetched from here"
        step = f"{_partial(clone).next_step}; git -C {where} cat-file -e {oid} "
        step += "fetches this one alone"
    else:
        found = "no such object; no object is fetched from here"
        step = f"git -C {where} fsck, then clone anew"
    finding = Finding(
        "git lacks an object", path=what, expected=f"object {oid} in {clone}",
        found=found, next_step=step,
    )  # fmt: skip
    return EnvironmentFailure(f"{clone}: git does not have {what} locally", (finding,))


def _partial(clone: Path) -> Finding:
    where = shlex.quote(str(clone))
    return Finding(
        "is a partial clone, and no object is fetched from here",
        path=str(clone),
        next_step="if you trust its configuration: "
        f"git -C {where} fetch --refetch --no-filter (git 2.36)",
    )


def _check(args: Sequence[str]) -> None:
    if args[0] not in COMMANDS:
        raise AssertionError(f"git {args[0]} is not among what is run in a clone")


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
    if said[2] != "sha1":
        finding = Finding(
            f"names its objects by {said[2]}", path=str(where), expected="sha1",
            next_step="clone it with --object-format=sha1",
        )  # fmt: skip
        raise InputError(f"{where}: the lock's ids are SHA-1", (finding,))
    bare = said[3] == "true" or git_dir == where
    if not bare and said[4:] != [""]:
        finding = Finding(
            "has its work tree elsewhere", path=str(where), expected=str(where),
            found="".join(said[4:]), next_step="name that one, or unset core.worktree",
        )  # fmt: skip
        raise InputError(f"{where} is not the work tree of its clone", (finding,))
    made = Place(git_dir, common, None if bare else where)
    return Place(git_dir, common, made.top, tuple(_settings(made)))


def _users(where: Path) -> dict[str, str]:
    """The user's environment, for the two commands that read no object and run nothing,
    whatever the clone's configuration says."""
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
    return kept


def _ask(where: Path) -> list[str]:
    args = ("--no-pager", "rev-parse", "--path-format=absolute", "--absolute-git-dir",
            "--git-common-dir", "--show-object-format", "--is-bare-repository",
            "--show-cdup")  # fmt: skip
    done = git.call(where, args, _users(where), None, (0, 128))
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
    try:
        said = (where / ".git").read_text(errors="replace")
    except OSError:
        return
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
    wanted = "|".join(name.replace(".", r"\.") for name in _SETTINGS)
    for file in (at.common / "config", at.git_dir / "config.worktree"):
        if not file.is_file():
            continue
        args = ("config", "--file", str(file), "--no-includes", "-z", "--get-regexp",
                f"^({wanted})$")  # fmt: skip
        done = git.call(at.git_dir, args, _environment(at), None, (0, 1))
        for row in filter(None, done.stdout.decode(errors="replace").split("\0")):
            name, _, value = row.partition("\n")
            yield name, value if "\n" in row else "true"


def _environment(at: Place, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    sealed = _SEALED / ("reftable" if (at.common / "reftable").is_dir() else "files")
    exclude = at.common / "info" / "exclude"
    # What is written here is a part of a transaction: on disk before git ends.
    settings = {**dict(at.settings), "core.fsync": "all"}
    if exclude.is_file():
        settings["core.excludesFile"] = str(exclude)
    made = git.environment(at.top or at.git_dir, extra, settings)
    made.update(
        GIT_DIR=str(at.git_dir),
        GIT_COMMON_DIR=str(sealed),
        GIT_OBJECT_DIRECTORY=str(at.common / "objects"),
        GIT_SHALLOW_FILE=str(at.common / "shallow"),
        # Twice over: there is no remote here that these would keep from being asked.
        GIT_ALLOW_PROTOCOL="none",
        GIT_NO_LAZY_FETCH="1",
    )
    if at.top is not None:
        made["GIT_WORK_TREE"] = str(at.top)
    return made
