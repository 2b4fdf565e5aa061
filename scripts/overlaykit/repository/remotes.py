"""Running git against a remote repository, to get one commit.

Only :func:`fetch` and :func:`tag_commit` contact a remote. The user's git configuration
says how (proxies, certificates, credentials, ``url.*.insteadOf``), as pip's
configuration does for packages. The address comes from overlay.toml, where its
form is checked. Everything that is fetched goes into a repository of this project, and
git computes its ids again there; no hook, filter or submodule is run or read.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from overlaykit.core import git, gitversion
from overlaykit.core.errors import EnvironmentFailure, Finding, not_started
from overlaykit.core.wording import quoted

# What the user may set to reach a remote; all other variables would move git elsewhere.
_KEPT = (
    "GIT_ALLOW_PROTOCOL", "GIT_ASKPASS", "GIT_CONFIG_", "GIT_HTTP_", "GIT_PROTOCOL",
    "GIT_PROXY_", "GIT_SSH", "GIT_SSL_",
)  # fmt: skip
# Added after the user's own settings, so that these win.
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # A remote that stops answering is an error, not a wait without end.
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}
REMOTE = "overlay-base"


class Unreachable(EnvironmentFailure):
    """The repository does not answer."""


class NotServed(EnvironmentFailure):
    """The repository answers, and does not give what was asked for.

    ``findings`` hold the last line of git's output.
    """


def prepare(store: Path, url: str) -> None:
    """Make an empty bare repository that fetches from ``url`` without file contents
    unless they are asked for."""
    git.run(store, "init", "-q", "--bare", "--template=")
    for key, value in {
        f"remote.{REMOTE}.url": url,
        f"remote.{REMOTE}.promisor": "true",
        f"remote.{REMOTE}.partialCloneFilter": "blob:none",
    }.items():
        git.run(store, "config", key, value)


def forget(store: Path) -> None:
    """Remove the remote from a repository made by :func:`prepare`: from now on git
    fetches nothing there, whatever is missing."""
    git.run(store, "config", "--remove-section", f"remote.{REMOTE}")


def fetch(store: Path, url: str, ids: Sequence[str], *options: str) -> None:
    """Fetch objects by id into a repository made by :func:`prepare`.

    Raises Unreachable if the repository does not answer, and NotServed if it does not
    give an object.
    """
    args = (
        "fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
        "--filter=blob:none", *options, "--stdin", REMOTE,
    )  # fmt: skip
    wanted = "".join(f"{one}\n" for one in ids).encode()
    done = _run(store, args, {"GIT_DIR": str(store)}, wanted)
    if done.returncode == 0:
        return
    output = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    # Git's exit code does not say why. A remote that lists its references answers.
    _list(url, "HEAD")
    finding = Finding("git fetch failed", path=url, found=output or "no output")
    raise NotServed(f"{url} does not serve what was asked for", (finding,))


def tag_commit(url: str, tag: str) -> str | None:
    """The commit of a remote's tag; None if it has no such tag. Raises Unreachable."""
    name = f"refs/tags/{tag}"
    rows = (
        row.split("\t") for row in _list(url, name, f"{name}^{{}}").splitlines() if row
    )
    found = {ref: oid for oid, ref in rows}
    # An annotated tag is an object of its own; the second row names its commit.
    return found.get(f"{name}^{{}}") or found.get(name)


def _list(url: str, *names: str) -> str:
    """The remote's references of these names. Raises Unreachable."""
    with tempfile.TemporaryDirectory() as empty:
        args = ("ls-remote", "--quiet", "--", url, *names)
        done = _run(Path(empty), args, {})
    if done.returncode == 0:
        return done.stdout.decode(errors="replace")
    output = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    finding = Finding(
        "the repository does not answer",
        path=url,
        expected="an answer to git ls-remote",
        found=output or f"git exited with {done.returncode}",
        next_step=f"check the network and git's configuration (git ls-remote "
        f"{quoted(url)}), or name a clone that has the commit with --clone PATH",
    )
    raise Unreachable(f"{url} cannot be reached", (finding,))


def _run(
    where: Path,
    args: Sequence[str],
    extra: Mapping[str, str],
    stdin: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Run git with the user's configuration and these settings after it."""
    gitversion.check()
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("GIT_") or key.startswith(_KEPT)
    }
    given = env.get("GIT_CONFIG_COUNT", "")
    first = int(given) if given.isdigit() else 0
    for number, (key, value) in enumerate(_SETTINGS.items(), first):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    env.update(
        GIT_CONFIG_COUNT=str(first + len(_SETTINGS)),
        GIT_CEILING_DIRECTORIES=str(where.resolve().parent),
        # A repository on this machine that lacks objects must not fetch them elsewhere.
        GIT_NO_LAZY_FETCH="1",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_TERMINAL_PROMPT="0",
        LC_ALL="C",
        **extra,
    )
    try:
        return subprocess.run(
            ["git", *args], cwd=where, input=stdin, capture_output=True, env=env,
            check=False,
        )  # fmt: skip
    except OSError as error:
        raise not_started("git", error) from error


def announce(what: str) -> None:
    """Say on standard error that something is fetched: it may take minutes."""
    print(f"fetching {what}", file=sys.stderr, flush=True)
