"""The one way this project runs git: same input, same bytes, on every machine.

User and system configuration, signing, hooks, localised messages and object
replacement are shut out; a repository that merely surrounds a directory is never
taken for its repository (``GIT_CEILING_DIRECTORIES``: a ``git apply`` inside a plain
directory nested in another repository exits 0 and changes nothing).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from overlaykit.errors import EnvironmentFailure

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
    "safe.directory": "*",
}

DURABLY = ("-c", "core.fsync=all")
"""Options for what git writes as a part of a transaction: fsynced before git ends."""


def environment(where: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a git process that works in ``where``."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    env.update(
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
        GIT_ATTR_NOSYSTEM="1",
        GIT_CEILING_DIRECTORIES=str(where.resolve().parent),
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_OPTIONAL_LOCKS="0",
        GIT_TERMINAL_PROMPT="0",
        GIT_CONFIG_COUNT=str(len(_CONFIG)),
        LC_ALL="C",
        TZ="UTC",
    )
    for number, (key, value) in enumerate(_CONFIG.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    env.update(extra or {})
    return env


def identity(name: str, address: str, date: str) -> dict[str, str]:
    """Author and committer of what git commits, as environment variables."""
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
    keep: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run git in ``where``.

    Raises EnvironmentFailure where git is missing or exits with a code not in ``ok``;
    a caller that expects another code says so, and reads the code, never the message.
    ``keep`` are handles that the process inherits: a flock(2) on one of them then lasts
    until git has ended too, also where this process is killed before.
    """
    try:
        done = subprocess.run(
            ["git", *args],
            cwd=where,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=environment(where, env),
            check=False,
            pass_fds=keep,
        )
    except OSError as error:
        missing = "git is not installed" if where.is_dir() else f"no folder {where}"
        raise EnvironmentFailure(f"{missing}: {error}") from error
    if done.returncode not in ok:
        said = done.stderr.decode(errors="replace").strip()
        raise EnvironmentFailure(
            f"git {' '.join(args)} in {where}: exit {done.returncode}: {said}"
        )
    return done


def text(where: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    """What git prints, without the last line end."""
    return run(where, *args, env=env).stdout.decode().rstrip("\n")


def top_of_clone(path: Path) -> Path | None:
    """``path`` itself if it is the top of a git work tree, else None.

    A repository further up does not count: it is not the repository of this tree.
    """
    return path if (path / ".git").exists() else None
