"""Commits of a clone as versions. Reads objects alone: no checkout, nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.wording import quoted
from overlaykit.repository import clones
from overlaykit.repository.clones import text
from overlaykit.repository.places import clone_location, is_clone
from overlaykit.series.carried import Carried
from overlaykit.trees.tree import GitTree
from upstream.contracts import contract_of
from upstream.facts import Facts
from upstream.outcomes import Version
from upstream.sources import Source

_NEAR = 12


@dataclass(frozen=True)
class Line:
    """The first-parent ``commits`` after ``since``, oldest first.

    ``first`` is the older end of the range. Where it lies on that line it is ``since``;
    where it does not (a release tagged on a branch) ``start`` says what ``since`` is.
    """

    first: str
    since: str
    commits: tuple[str, ...]
    start: str = ""


@dataclass(frozen=True)
class Clone:
    """A clone that holds the target's package."""

    path: Path
    carried: Carried

    def commit(self, ref: str) -> str:
        """The commit that a ref names. Raises InputError where it names none."""
        found = clones.run(
            self.path, "rev-parse", "--verify", "-q", "--end-of-options",
            f"{ref}^{{commit}}", ok=(0, 1, 128),
        )  # fmt: skip
        if found.returncode == 0:
            return found.stdout.decode().strip()
        step = "name one of these, or fetch it: git fetch origin REF"
        if self.is_shallow:
            step = (
                "the clone is shallow: deepen it (git fetch --unshallow) or fetch "
                f"that one (git fetch --depth 1 origin {ref})"
            )
        finding = Finding(
            "no such commit", expected=f"one of {self._known()}", found=ref,
            next_step=step,
        )  # fmt: skip
        raise InputError(f"{self.path} has no commit {ref!r}", (finding,))

    @property
    def is_shallow(self) -> bool:
        return text(self.path, "rev-parse", "--is-shallow-repository") == "true"

    def source(
        self, ref: str, name: str | None = None, note: str = "", beside: bool = False
    ) -> Source:
        """A ref as a version, after a look at whether it holds the package; ``note`` is
        what else there is to say of it."""
        commit = self.commit(ref)
        package = f"{self.carried.target.package_root}/__init__.py"
        with GitTree(self.path, commit) as held:
            tree, there = held.id, held.read(package)
        if there is None:
            what = f"{ref} of {self.path} is not {self.carried.target.package}"
            finding = Finding(
                what,
                expected=f"{package} in it",
                found="no such file",
                next_step="name a clone of "
                f"{self.carried.target.repository}, or another --target",
            )
            raise InputError(what, (finding,))
        about = text(self.path, "log", "-1", "--no-show-signature",
                     "--format=%h %as %s", commit)  # fmt: skip
        about += f"; {note}" if note else ""
        old = self._before_pin(commit)
        version = Version(name or ref, tree, about, old, beside)
        return Source(version, self.path, commit)

    def line(self, first: str, last: str) -> Line:
        """The line from ``first`` to ``last``, or from where the two part."""
        ends = self.commit(first), self.commit(last)
        listed = text(
            self.path, "rev-list", "--first-parent", "--reverse",
            f"{ends[0]}..{ends[1]}",
        ).split()  # fmt: skip
        if not listed:
            what = f"{last} has no commit that {first} has not"
            step = "give the older one first: OLDER..NEWER"
            raise InputError(what, (Finding(what, next_step=step),))
        before = clones.run(
            self.path, "rev-parse", "--verify", "-q", f"{listed[0]}^", ok=(0, 1, 128)
        )
        if before.returncode:
            what = f"the history of {last} does not reach {first}"
            step = "name two commits of one history"
            if self.is_shallow:
                step = "the clone is shallow: deepen it (git fetch --unshallow)"
            finding = Finding(
                what, expected=f"{first} below {last}",
                found=f"it ends at {listed[0]}", next_step=step,
            )  # fmt: skip
            raise InputError(what, (finding,))
        since = before.stdout.decode().strip()
        start = self._called(since, first, last) if since != ends[0] else ""
        return Line(ends[0], since, tuple(listed), start)

    def touching(self, first: str, last: str, paths: Iterable[str]) -> tuple[str, ...]:
        """Those of the line that change one of the paths."""
        before = self.line(first, last).since
        return tuple(
            text(
                self.path, "rev-list", "--first-parent", "--reverse",
                f"{before}..{self.commit(last)}", "--", *paths,
            ).split()
        )  # fmt: skip

    def _called(self, since: str, first: str, last: str) -> str:
        """What the commit is at which a line begins that does not pass ``first``."""
        found = clones.run(
            self.path, "merge-base", "--all", self.commit(first), self.commit(last),
            ok=(0, 1),
        )  # fmt: skip
        if found.stdout.decode().split() == [since]:
            return f"the merge base of {first} and {last}"
        return f"the last first-parent commit of {last} that {first} has, too"

    def _before_pin(self, commit: str) -> bool:
        tag = self.carried.target.tag
        if tag is None:
            return False
        done = clones.run(
            self.path, "merge-base", "--is-ancestor", commit, f"refs/tags/{tag}",
            ok=(0, 1, 128),
        )  # fmt: skip
        if done.returncode:
            return False
        return text(self.path, "rev-parse", f"refs/tags/{tag}^{{commit}}") != commit

    def _known(self) -> str:
        refs = text(
            self.path, "for-each-ref", "--sort=-creatordate", f"--count={_NEAR + 1}",
            "--format=%(refname:short)", "refs/heads", "refs/remotes", "refs/tags",
        ).splitlines()  # fmt: skip
        return ", ".join(refs[:_NEAR]) + (", …" if len(refs) > _NEAR else "")


def open_clone(path: Path, carried: Carried) -> Clone:
    """Raises InputError where there is no clone, RefusedClone where git refuses it."""
    where = path.resolve()
    if not is_clone(where):
        what = "is no clone" if where.is_dir() else "does not exist"
        url = quoted(carried.target.repository)
        step = f"git clone --filter=blob:none {url} {quoted(str(path))}"
        finding = Finding(what, path=str(path), next_step=step)
        raise InputError(f"{path} {what}", (finding,))
    clone_location(where)
    return Clone(where, carried)


def watched(carried: Carried, ends: Sequence[Facts]) -> tuple[str, ...]:
    """The series' files, and those in which its sites stand at either end."""
    sites = contract_of(carried).expected
    at_ends = (
        row.path
        for facts in ends
        for row in facts.rows
        if row.site in sites and row.path
    )
    return tuple(dict.fromkeys((*carried.series.paths, *at_ends)))
