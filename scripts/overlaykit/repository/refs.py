"""What a clone knows: commits, tags, and whether its history is whole."""

from __future__ import annotations

from pathlib import Path

from overlaykit.repository import clones


def has_commit(clone: Path, commit: str) -> bool:
    """Whether a clone has the commit itself."""
    name = f"{commit}^{{commit}}"
    done = clones.run(clone, "rev-parse", "--verify", "-q", name, ok=(0, 1, 128))
    return done.returncode == 0


def is_shallow(clone: Path) -> bool:
    """Whether a clone lacks a part of its history."""
    done = clones.run(clone, "rev-parse", "--is-shallow-repository", ok=(0, 128))
    return done.stdout.strip() == b"true"


def tag_in(clone: Path, tag: str) -> str | None:
    """The commit of a clone's tag; None if it has no such tag."""
    ref = f"refs/tags/{tag}^{{commit}}"
    done = clones.run(clone, "rev-parse", "--verify", "-q", ref, ok=(0, 1, 128))
    return done.stdout.decode().strip() if done.returncode == 0 else None
