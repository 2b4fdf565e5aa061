"""Git in a clone of the user's, which somebody else may have configured.

A clone's own configuration names commands: filters, hooks, diff and merge drivers, a
file system monitor, ``remote.*.uploadpack``, credential helpers and more with every
release of git. What is trusted:

- the user's git says whether the clone may be used at all. It is asked once, with the
  user's own environment and configuration (:mod:`overlaykit.repository.places`);
- the clone's objects, references and index, as data;
- a few of its settings, which name no command.

Nothing else of it is read. Every other git process finds the clone by ``GIT_DIR``, and
instead of the clone's configuration, ``info/`` and ``hooks/`` an empty folder of this
project (``GIT_COMMON_DIR``, see ``sealed/``). So no filter, driver, hook or remote
exists that attributes or a missing object could make git run: git fetches no object on
its own, whichever version it is. Only the commands in :data:`COMMANDS` are run: others
would write configuration into that folder, or fetch.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure, Finding
from overlaykit.repository.places import environment, place

# What may be run, and what it does. A command that is not here was not thought about.
COMMANDS = {
    "cat-file": "reads objects",
    "check-ref-format": "looks at a name",
    "commit-tree": "writes a commit",
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
        return git.call(clone, args, environment(at, env), stdin, ok, keep)
    except EnvironmentFailure as error:
        if not at.is_partial:
            raise
        raise EnvironmentFailure(error.message, (_partial(clone),)) from error


def text(clone: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    """What git prints, without the last line end."""
    return run(clone, *args, env=env).stdout.decode(errors="replace").rstrip("\n")


def start(clone: Path, *args: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """A git process that answers over pipes; what it complains of goes to ``errors``.

    Raises what :func:`run` raises where it cannot be started.
    """
    _check(args)
    return git.start(clone, args, environment(place(clone)), errors)


def missing_object(clone: Path, what: str, oid: str) -> EnvironmentFailure:
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
