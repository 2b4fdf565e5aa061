"""Running git in the user's clone, whose configuration may be hostile.

A clone's own configuration names commands: filters, hooks, diff and merge drivers, a
file system monitor, ``remote.*.uploadpack``, credential helpers and more with every
release of git. Three things are trusted:

- the user's git, which decides whether the clone may be used at all. It runs once, with
  the user's own environment and configuration (:mod:`overlaykit.repository.places`);
- the clone's objects, references and index, as data;
- a few of its settings, which name no command.

Nothing else in the clone is read. Every other git process gets the clone as ``GIT_DIR``
and an empty folder of this project as ``GIT_COMMON_DIR`` (see ``sealed/``) in place of
the clone's configuration, ``info/`` and ``hooks/``. So there is no filter, driver, hook
or remote that attributes or a missing object could make git run, and no version of git
fetches objects on its own. Only the commands in :data:`COMMANDS` are run: others would
write configuration into that folder, or fetch.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure, Finding
from overlaykit.repository.places import clone_location, environment

# The commands that may run, and what they do. Any other has not been reviewed.
COMMANDS = {
    "cat-file": "reads objects",
    "check-ref-format": "checks a name",
    "commit-tree": "writes a commit",
    "diff": "compares trees with each other or with files; drivers are not configured",
    "for-each-ref": "reads references",
    "hash-object": "writes standard input, to which no filter applies",
    "log": "reads commits; signatures are not checked",
    "ls-files": "reads the index and lists files",
    "ls-tree": "reads trees",
    "merge-base": "reads commits",
    "pack-objects": "reads objects, and writes them to standard output",
    "read-tree": "fills a scratch index, not a work tree",
    "rev-list": "reads commits",
    "rev-parse": "reads references and objects",
    "status": "compares with files; filters and monitor are not configured",
    "symbolic-ref": "reads or moves HEAD",
    "update-index": "writes ids to an index; reads no file",
    "update-ref": "creates a reference; hooks are not found",
    "write-tree": "writes trees from an index",
}


def run(
    clone: Path,
    *args: str,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
    keep: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run git in the clone without its configuration, otherwise like :func:`git.run`;
    ``keep`` is that of :func:`git.call`."""
    at = clone_location(clone)
    _check(args)
    try:
        return git.call(clone, args, environment(at, env), stdin, ok, keep)
    except EnvironmentFailure as error:
        if not at.is_partial:
            raise
        raise EnvironmentFailure(error.message, (_partial(clone),)) from error


def text(clone: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    """Git's standard output, without the last line end."""
    return run(clone, *args, env=env).stdout.decode(errors="replace").rstrip("\n")


def start(clone: Path, *args: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start git connected by pipes; its error output goes to ``errors``.

    Raises what :func:`run` raises if it cannot be started.
    """
    _check(args)
    return git.start(clone, args, environment(clone_location(clone)), errors)


def missing_object(clone: Path, what: str, oid: str) -> EnvironmentFailure:
    """The error for an object that a tree names and the clone does not have: it is a
    partial clone, or damaged. This is not the same as 'no such file'."""
    where = shlex.quote(str(clone))
    if clone_location(clone).is_partial:
        found = "not in this partial clone; this program fetches no objects"
        step = f"{_partial(clone).next_step}; git -C {where} cat-file -e {oid} "
        step += "fetches this object alone"
    else:
        found = "no such object; this program fetches no objects"
        step = f"git -C {where} fsck, then clone again"
    finding = Finding(
        "an object is missing", path=what, expected=f"object {oid} in {clone}",
        found=found, next_step=step,
    )  # fmt: skip
    return EnvironmentFailure(f"{clone}: git does not have {what} locally", (finding,))


def _partial(clone: Path) -> Finding:
    where = shlex.quote(str(clone))
    return Finding(
        "is a partial clone, and this program fetches no objects",
        path=str(clone),
        next_step="if you trust its configuration: "
        f"git -C {where} fetch --refetch --no-filter (git 2.36)",
    )


def _check(args: Sequence[str]) -> None:
    if args[0] not in COMMANDS:
        raise AssertionError(f"git {args[0]} must not be run in a clone")
