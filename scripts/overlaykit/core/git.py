"""Running git so that the same input gives the same bytes on every machine.

User and system configuration, signing, hooks, localised messages and object
replacement are switched off. A repository around a directory is never used as the
directory's own (``GIT_CEILING_DIRECTORIES``): ``git apply`` in a plain directory
inside another repository exits 0 and changes nothing.

:func:`run` and :func:`text` are for repositories that this project made itself, such as
a scratch store or a laid-out release, whose configuration can be trusted. The
configuration of any other clone may name commands, so only
:mod:`overlaykit.repository.clones` runs git there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from overlaykit.core import gitversion
from overlaykit.core.errors import EnvironmentFailure, not_started

_CONFIG = {
    "core.autocrlf": "false",
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.quotePath": "false",
    "commit.gpgSign": "false",
    "diff.algorithm": "histogram",
    "diff.context": "3",
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
    "diff.renames": "true",
    "gc.auto": "0",
    "init.defaultBranch": "main",
    "maintenance.auto": "false",
    "merge.conflictStyle": "diff3",
    "merge.renames": "true",
}

# For info/attributes: resets every attribute that changes what git stores, shows or
# runs; `text` and those that name commands are off.
NO_ATTRIBUTES = (
    "* -text !eol -crlf -ident -filter !working-tree-encoding !diff !merge !whitespace"
    " !conflict-marker-size !export-ignore !export-subst -delta\n"
)


def environment(
    where: Path,
    extra: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a git process that works in ``where``; ``settings`` are added
    to our configuration."""
    config = {**_CONFIG, **(settings or {})}
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    env.update(
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
        GIT_ATTR_NOSYSTEM="1",
        GIT_CEILING_DIRECTORIES=str(where.resolve().parent),
        # `[128, 128].json` is a file name, not a pattern.
        GIT_LITERAL_PATHSPECS="1",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_OPTIONAL_LOCKS="0",
        GIT_TERMINAL_PROMPT="0",
        GIT_CONFIG_COUNT=str(len(config)),
        LC_ALL="C",
        TZ="UTC",
    )
    for number, (key, value) in enumerate(config.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    env.update(extra or {})
    return env


def identity(name: str, address: str, date: str) -> dict[str, str]:
    """Author and committer of a commit, as environment variables."""
    return {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", name), ("EMAIL", address), ("DATE", date))
    }


def run(
    where: Path,
    *args: str,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
) -> subprocess.CompletedProcess[bytes]:
    """Run git in ``where``, a repository that this project made.

    ``GIT_DIR`` names the repository, so git does not check its owner: a file system may
    report another owner for every file. Raises EnvironmentFailure if git is missing or
    exits with a code that is not in ``ok``. Callers read the exit code, never the
    message.
    """
    given = {**environment(where), **_location_env(where), **(env or {})}
    return call(where, args, given, stdin, ok)


def _location_env(where: Path) -> dict[str, str]:
    where = where.resolve()
    if (where / ".git").is_dir():
        return {"GIT_DIR": str(where / ".git"), "GIT_WORK_TREE": str(where)}
    if (where / "HEAD").is_file() and (where / "objects").is_dir():
        return {"GIT_DIR": str(where)}
    return {}


def call(
    where: Path,
    args: Sequence[str],
    environment: Mapping[str, str],
    stdin: bytes | None,
    ok: Sequence[int],
    keep: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run git with exactly this environment. Raises as :func:`run` does.

    The process inherits the handles in ``keep``: a flock(2) on one of them is held
    until git has ended, even if this process is killed first.
    """
    gitversion.check()
    try:
        done = subprocess.run(
            ["git", *args],
            cwd=where,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=environment,
            check=False,
            pass_fds=keep,
        )
    except OSError as error:
        raise not_started("git", error) from error
    if done.returncode not in ok:
        message = done.stderr.decode(errors="replace").strip()
        raise EnvironmentFailure(
            f"git {' '.join(args)} in {where}: exit {done.returncode}: {message}"
        )
    return done


def start(
    where: Path,
    args: Sequence[str],
    environment: Mapping[str, str],
    errors: IO[bytes],
) -> subprocess.Popen[bytes]:
    """Start git with exactly this environment, connected by pipes."""
    gitversion.check()
    try:
        return subprocess.Popen(
            ["git", *args],
            cwd=where,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
    except OSError as error:
        raise not_started("git", error) from error


def text(where: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    """Git's standard output, without the last line end."""
    return run(where, *args, env=env).stdout.decode().rstrip("\n")


def top_of_clone(path: Path) -> Path | None:
    """``path`` if it is the top of a git work tree, else None.

    A repository further up does not count: it is not this tree's repository.
    """
    return path if (path / ".git").exists() else None
