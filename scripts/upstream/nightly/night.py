"""One night: from upstream's main to a proven series, or to what stopped it.

All of it happens in a git work tree of its own. The overlay that runs it is only read,
so a night that is stopped, or that finds a conflict, changes nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import msgspec

from overlaykit.applying.lineage import lineage
from overlaykit.cli import Report
from overlaykit.core import git
from overlaykit.core.errors import Exit, Finding, InputError
from overlaykit.core.gitnames import is_commit
from overlaykit.rebase.bases import resolve
from overlaykit.repository.clones import text
from overlaykit.series.carried import Carried, load_overlay, target_named
from overlaykit.sources.commits import tag_commit
from overlaykit.trees.tree import GitTree
from overlaykit.verbs import run_verb

_CACHE = Path("build") / "cache"
_AITER = "aiter"
_RECIPE = "docker/rocm.Dockerfile"
_NAMES_AITER = re.compile(rb'^ENV AITER_COMMIT_DEFAULT="([0-9A-Za-z._/-]+)"', re.M)

Say = Callable[[str], None]


class Outcome(Enum):
    """How a night ended."""

    SAME = "the base is that commit already"
    CARRIED = "carried and proven"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Wanted:
    """``onto`` is a commit of the clone ``upstream``. Without ``start``, the base that
    earlier nights made, else the nearest one, is rebased. Without the clone ``aiter``,
    AITER comes from its repository."""

    root: Path
    upstream: Path
    onto: str
    target: str
    out: Path
    start: str | None = None
    aiter: Path | None = None


@dataclass(frozen=True)
class Check:
    """A verb that was run, and what it said."""

    verb: str
    holds: bool
    said: str


@dataclass(frozen=True)
class Night:
    """What one night found. ``name`` is the new base, ``start`` the one it is made
    from; ``matrix`` is drift's page; ``changed`` are the overlay's new files."""

    outcome: Outcome
    commit: str
    about: str
    name: str
    start: str
    checks: tuple[Check, ...] = ()
    findings: tuple[Finding, ...] = ()
    matrix: str = ""
    changed: tuple[str, ...] = ()


class _Proof(msgspec.Struct, frozen=True):
    outcome: str
    right: int | None = None
    cases: int | None = None
    changed: tuple[str, ...] = ()


class _Proofs(Report, frozen=True, kw_only=True):
    """The fields of a verb's results that a night reports."""

    results: tuple[_Proof, ...] = ()  # type: ignore[assignment]


class _Stop(Exception):
    """A verb found something: the rest of the night is left out."""


@contextmanager
def night(wanted: Wanted, say: Say) -> Iterator[tuple[Night, Path]]:
    """What the night found, and the work tree with the changed overlay.

    Raises InputError if the overlay has no such target or the clone no such commit.
    """
    overlay = load_overlay(wanted.root)
    package = target_named(overlay, wanted.target).target.package
    commit = resolve(wanted.upstream, wanted.onto)
    name = f"{package}-main"
    start = wanted.start or (
        name if name in overlay else _nearest(wanted, overlay, package, commit)
    )
    about = text(wanted.upstream, "log", "-1", "--format=%h, %as, %s", commit)
    found = Night(Outcome.SAME, commit, about, name, start)
    if target_named(overlay, start).lock.commit == commit:
        yield found, wanted.root
        return
    with _work_tree(wanted) as tree:
        yield _Steps(wanted, tree, say).run(found), tree


def _nearest(
    wanted: Wanted, overlay: Mapping[str, Carried], package: str, commit: str
) -> str:
    bases = [one for one in overlay.values() if one.target.package == package]
    there = lineage(wanted.upstream, bases, commit)
    if there is None or there.base is None:
        what = f"no base of {package} is in the history of {commit}"
        finding = Finding(
            what,
            path=str(wanted.upstream),
            next_step="fetch the whole history (git fetch --unshallow --tags), or name "
            "a base with --from",
        )
        raise InputError(what, (finding,))
    return there.base


@contextmanager
def _work_tree(wanted: Wanted) -> Iterator[Path]:
    """A work tree of the overlay's HEAD, with the packages that were fetched before."""
    tree = wanted.out.resolve() / "overlay"
    if tree.exists():
        # What a night that was killed left; anything else is somebody's.
        if not (tree / ".git").is_file():
            what = f"{tree} is not a work tree of a night"
            step = "name another --out, or move it away"
            raise InputError(what, (Finding(what, path=str(tree), next_step=step),))
        _remove(wanted.root, tree)
    tree.parent.mkdir(parents=True, exist_ok=True)
    git.run(wanted.root, "worktree", "add", "--quiet", "--detach", str(tree), "HEAD")
    try:
        cache = wanted.root.resolve() / _CACHE
        cache.mkdir(parents=True, exist_ok=True)
        (tree / _CACHE.parent).mkdir(exist_ok=True)
        (tree / _CACHE).symlink_to(cache)
        yield tree
    finally:
        _remove(wanted.root, tree)


def _remove(root: Path, tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    git.run(root, "worktree", "prune")


class _Steps:
    def __init__(self, wanted: Wanted, tree: Path, say: Say) -> None:
        self._wanted, self._tree, self._say = wanted, tree, say
        self._checks: list[Check] = []
        self._findings: list[Finding] = []
        self._changed: list[str] = []

    def run(self, found: Night) -> Night:
        """Drift, rebase, adopt, and prove the pair with AITER."""
        upstream = self._wanted.upstream.resolve()
        matrix = self._matrix(found, upstream)
        outcome = Outcome.CARRIED
        try:
            self._carry(found.name, found.start, upstream, found.commit)
            self._prove(found.name, upstream, found.commit)
        except _Stop:
            outcome = Outcome.STOPPED
        return replace(
            found,
            outcome=outcome,
            checks=tuple(self._checks),
            findings=tuple(self._findings),
            matrix=matrix,
            changed=tuple(dict.fromkeys(self._changed)),
        )

    def _matrix(self, found: Night, upstream: Path) -> str:
        page = self._wanted.out.resolve() / "drift.md"
        self._verb(
            "drift", "--target", found.start, "--clone", str(upstream),
            "--ref", found.commit, "--markdown", str(page),
        )  # fmt: skip
        return page.read_text(encoding="utf-8")

    def _carry(self, name: str, start: str, clone: Path | None, commit: str) -> None:
        """Make the base ``name`` from ``start``, or again if it is there."""
        there = load_overlay(self._tree)
        self._verb("rebase", "--target", start, "--clone", str(clone), "--onto", commit)
        called = "--replace" if name in there else "--as"
        adopted = self._verb("rebase", "--adopt", called, name)
        self._changed += (path for one in adopted.results for path in one.changed)

    def _prove(self, name: str, upstream: Path, commit: str) -> None:
        """Lay both packages out, apply, verify, and run the kernels."""
        trees = [self._laid_out(name, upstream, commit), self._aiter(commit)]
        self._verb("apply", *trees)
        self._verb("verify", *trees)
        self._verb("verify", "--numeric", *trees)

    def _laid_out(self, target: str, clone: Path | None, commit: str) -> str:
        self._verb("fetch", "--target", target, "--commit", commit, *_from(clone))
        return str(self._tree / "build" / f"{target}-{commit[:12]}")

    def _aiter(self, commit: str) -> str:
        """The AITER that upstream's image recipe names there, with its patch made
        again if it needs one. If the recipe does not name one, the pinned AITER."""
        its = self._named(commit)
        about = f"{_RECIPE} names {its[:12]}" if its else f"{_RECIPE} does not name one"
        self._checks.append(Check("which AITER", True, about))
        if not its:
            self._verb("fetch")
            return str(self._tree / "build" / _AITER)
        clone = self._wanted.aiter
        tree = self._laid_out(_AITER, clone, its)
        report = run_verb(self._tree, "apply", "--status", tree, kind=_Proofs)
        if report.exit_code is Exit.CANNOT_APPLY:
            main = f"{_AITER}-main"
            start = main if main in load_overlay(self._tree) else _AITER
            self._carry(main, start, clone, its)
        return tree

    def _named(self, commit: str) -> str:
        """The id of the AITER commit; empty if the recipe does not name exactly one."""
        with GitTree(self._wanted.upstream, commit) as tree:
            named = set(_NAMES_AITER.findall(tree.read(_RECIPE) or b""))
        if len(named) != 1:
            return ""
        ref = os.fsdecode(named.pop())
        if is_commit(ref):
            return ref
        target = load_overlay(self._tree)[_AITER].target
        clone = self._wanted.aiter
        return tag_commit(target, ref, [] if clone is None else [clone])

    def _verb(self, name: str, *arguments: str) -> _Proofs:
        """Run a verb of the copy. Stops the night if it finds something."""
        short = [one.replace(f"{self._tree}/", "") for one in arguments]
        self._say(" ".join([f"scripts/{name}.py", *short]))
        report = run_verb(self._tree, name, *arguments, kind=_Proofs)
        holds = report.exit_code is Exit.DONE
        said = report.message or ", ".join(
            dict.fromkeys(
                one.outcome if one.cases is None else f"{one.right} of {one.cases}"
                for one in report.results
            )
        )
        self._checks.append(Check(" ".join([name, *_shown(arguments)]), holds, said))
        if not holds:
            self._findings += report.findings
            raise _Stop
        return report


def _from(clone: Path | None) -> tuple[str, ...]:
    return () if clone is None else ("--clone", str(clone.resolve()))


def _shown(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments that say which of a verb's calls this was."""
    for number, one in enumerate(arguments):
        if one in ("--numeric", "--adopt"):
            yield one
        elif one == "--target":
            yield f"{one} {arguments[number + 1]}"
