"""What a clone knows: commits, tags, and whether its history is whole."""

from __future__ import annotations

from pathlib import Path

from overlaykit.repository import clones


def commit_of(clone: Path, ref: str) -> str | None:
    """The id of a ref's commit; None if the clone does not have it."""
    done = clones.run(
        clone, "rev-parse", "--verify", "-q", "--end-of-options", f"{ref}^{{commit}}",
        ok=(0, 1, 128),
    )  # fmt: skip
    return done.stdout.decode().strip() if done.returncode == 0 else None


def has_commit(clone: Path, commit: str) -> bool:
    """Whether a clone has the commit itself."""
    return commit_of(clone, commit) is not None


def tag_in(clone: Path, tag: str) -> str | None:
    """The commit of a clone's tag; None if it has no such tag."""
    return commit_of(clone, f"refs/tags/{tag}")


def base_in(clone: Path, commit: str | None, tag: str | None) -> str | None:
    """The commit of a base in a clone, by its id or else by its tag; None if the clone
    has neither."""
    found = commit_of(clone, commit) if commit is not None else None
    return found or (tag_in(clone, tag) if tag is not None else None)


def is_shallow(clone: Path) -> bool:
    """Whether a clone lacks a part of its history."""
    done = clones.run(clone, "rev-parse", "--is-shallow-repository", ok=(0, 128))
    return done.stdout.strip() == b"true"
