"""Clones whose own configuration, attributes and hooks name commands.

Each command creates a file in a folder, so that a test can see which were run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from overlaykit.core import git

STRANGER = 12345
HOOKS = (
    "applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-applypatch",
    "post-checkout", "post-commit", "post-index-change", "post-merge", "post-rewrite",
    "pre-applypatch", "pre-auto-gc", "pre-commit", "pre-merge-commit", "pre-push",
    "pre-rebase", "prepare-commit-msg", "reference-transaction",
)  # fmt: skip


class Traps:
    """Commands that record that they were run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        # Every user may create files here.
        folder.chmod(0o777)

    def command(self, name: str, then: str = "cat") -> str:
        return f"touch {self._folder}/{name}; {then}"

    def sprung(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir())

    def clear(self) -> None:
        for path in self._folder.iterdir():
            path.unlink()


def arm(clone: Path, traps: Traps) -> None:
    """Name a command wherever a clone may name one."""
    for key, value in _settings(clone, traps):
        git.run(clone, "config", key, value)
    for folder in (clone / ".git" / "hooks", clone / ".git" / "traps"):
        folder.mkdir(exist_ok=True)
        for name in HOOKS:
            hook = folder / name
            hook.write_text(f"#!/bin/sh\n{traps.command(f'hook-{name}', 'exit 0')}\n")
            hook.chmod(0o755)
    more = clone / ".git" / "more"
    more.write_text(f'[core]\n\tfsmonitor = "{traps.command("included")}"\n')
    git.run(clone, "config", "include.path", str(more))
    (clone / ".git" / "info").mkdir(exist_ok=True)
    attributes = "* filter=evil diff=evil merge=evil\nNOTES filter=server\n"
    (clone / ".git" / "info" / "attributes").write_text(attributes)
    (clone / ".gitattributes").write_text(attributes)


def _settings(clone: Path, traps: Traps) -> Iterator[tuple[str, str]]:
    for key in (
        "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand",
        "core.askPass", "core.gitProxy", "core.alternateRefsCommand",
        "credential.helper", "diff.external", "diff.evil.textconv",
        "diff.evil.command", "filter.evil.clean", "filter.evil.smudge",
        "filter.server.process", "gpg.program", "gpg.ssh.program",
        "hook.evil.command", "merge.evil.driver", "pager.log", "pager.diff",
        "pager.rev-parse", "pager.for-each-ref", "sequence.editor",
        "remote.origin.uploadpack", "remote.origin.receivepack",
        "uploadpack.packObjectsHook", "interactive.diffFilter",
    ):  # fmt: skip
        yield key, traps.command(key)
    for command in ("cat-file", "diff", "log", "rev-parse", "status"):
        yield f"alias.{command}", f"!{traps.command(f'alias-{command}')}"
    yield "hook.evil.event", "reference-transaction"
    yield "core.hooksPath", str(clone / ".git" / "traps")
    yield "log.showSignature", "true"
    yield "submodule.recurse", "true"
    yield "gc.auto", "1"
    yield "remote.origin.url", str(clone.parent / "upstream")
    yield "remote.origin.promisor", "true"
    yield "remote.origin.partialclonefilter", "blob:none"
    yield "core.repositoryformatversion", "1"
    yield "extensions.partialClone", "origin"


def lose(clone: Path, path: str) -> str:
    """Remove the object of a file in HEAD and return its id. A copy with the object is
    set as upstream, so that fetching would succeed."""
    shutil.copytree(clone / ".git", clone.parent / "upstream")
    oid = git.text(clone, "rev-parse", f"HEAD:{path}")
    (clone / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    return oid


def give_away(clone: Path) -> None:
    """Give the whole clone to another user; needs root."""
    for path in (clone, *clone.rglob("*")):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
