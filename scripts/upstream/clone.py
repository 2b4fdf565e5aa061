"""Commits of a clone as versions. Only reads objects: no checkout, no writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.wording import quoted
from overlaykit.repository import clones
from overlaykit.repository.batch import Batch
from overlaykit.repository.clones import text
from overlaykit.repository.places import clone_location, is_clone
from overlaykit.repository.refs import base_in, commit_of, is_shallow
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

    ``first`` is the older end of the range. If it is on that line, it equals ``since``.
    If not (a release tagged on a branch), ``start`` describes ``since``.
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
        """The commit id of a ref. Raises InputError if there is no such commit."""
        if found := commit_of(self.path, ref):
            return found
        step = f"name one of these, or run git fetch origin {ref}"
        if is_shallow(self.path):
            step = (
                "the clone is shallow: deepen it (git fetch --unshallow) or fetch "
                f"this commit (git fetch --depth 1 origin {ref})"
            )
        finding = Finding(
            "no such commit", expected=f"one of {self._known()}", found=ref,
            next_step=step,
        )  # fmt: skip
        raise InputError(f"{self.path} has no commit {ref!r}", (finding,))

    def source(
        self, ref: str, name: str | None = None, note: str = "", beside: bool = False
    ) -> Source:
        """A ref as a version. ``note`` is a remark for people.

        Raises InputError if the commit does not contain the target's package.
        """
        commit = self.commit(ref)
        [source] = self.sources([commit], {commit: ref})
        version = source.version
        about = f"{version.about}; {note}" if note else version.about
        version = replace(version, name=name or ref, about=about, beside=beside)
        return replace(source, version=version)

    def sources(
        self,
        commits: Sequence[str],
        names: Mapping[str, str] | None = None,
        between: bool = False,
    ) -> list[Source]:
        """Commits, by their full ids, as versions: ten letters of the id are the name.
        Raises InputError as :meth:`source` does."""
        about = self._about(commits)
        old = self._before_pin(commits)
        found = []
        with Batch(self.path) as objects:
            for commit in dict.fromkeys(commits):
                tree = GitTree(self.path, commit, objects)
                self._check_package(tree, (names or {}).get(commit, commit))
                version = Version(
                    commit[:10], tree.id, about[commit], commit in old, between=between
                )
                found.append(Source(version, self.path, commit))
        return found

    def _check_package(self, tree: GitTree, ref: str) -> None:
        package = f"{self.carried.target.package_root}/__init__.py"
        if tree.read(package) is None:
            what = f"{ref} of {self.path} is not {self.carried.target.package}"
            finding = Finding(
                what,
                expected=f"{package} in its tree",
                found="no such file",
                next_step="name a clone of "
                f"{self.carried.target.repository}, or another --target",
            )
            raise InputError(what, (finding,))

    def _about(self, commits: Sequence[str]) -> dict[str, str]:
        """Id, date and subject of each commit, for people."""
        listed = clones.run(
            self.path, "log", "--no-walk=unsorted", "--no-show-signature", "-z",
            "--format=%H %h %as %s", "--stdin", stdin=_lines(commits),
        ).stdout.decode(errors="replace")  # fmt: skip
        rows = (row.partition(" ") for row in listed.split("\0") if row)
        return {commit: about.rstrip("\n") for commit, _, about in rows}

    def line(self, first: str, last: str) -> Line:
        """The line from ``first`` to ``last``, or from where they diverge."""
        ends = self.commit(first), self.commit(last)
        listed = text(
            self.path, "rev-list", "--first-parent", "--reverse",
            f"{ends[0]}..{ends[1]}",
        ).split()  # fmt: skip
        if not listed:
            what = f"every commit of {last} is also in {first}"
            step = "give the older one first: OLDER..NEWER"
            raise InputError(what, (Finding(what, next_step=step),))
        before = clones.run(
            self.path, "rev-parse", "--verify", "-q", f"{listed[0]}^", ok=(0, 1, 128)
        )
        if before.returncode:
            what = f"the history of {last} does not reach {first}"
            step = "name two commits of the same history"
            if is_shallow(self.path):
                step = "the clone is shallow: deepen it (git fetch --unshallow)"
            finding = Finding(
                what, expected=f"{first} among the ancestors of {last}",
                found=f"the history ends at {listed[0]}", next_step=step,
            )  # fmt: skip
            raise InputError(what, (finding,))
        since = before.stdout.decode().strip()
        start = self._describe(since, first, last) if since != ends[0] else ""
        return Line(ends[0], since, tuple(listed), start)

    def touching(self, line: Line, paths: Iterable[str]) -> tuple[str, ...]:
        """The commits of the line that change one of the paths."""
        return tuple(
            text(
                self.path, "rev-list", "--first-parent", "--reverse",
                f"{line.since}..{line.commits[-1]}", "--", *paths,
            ).split()
        )  # fmt: skip

    def _describe(self, since: str, first: str, last: str) -> str:
        """Describe ``since`` for a ``first`` that is not on the line of ``last``."""
        found = clones.run(
            self.path, "merge-base", "--all", self.commit(first), self.commit(last),
            ok=(0, 1),
        )  # fmt: skip
        if found.stdout.decode().split() == [since]:
            return f"the merge base of {first} and {last}"
        return f"the last first-parent commit of {last} that is also in {first}"

    def _before_pin(self, commits: Sequence[str]) -> set[str]:
        """The commits that the pinned base contains, without its own."""
        locked, tag = self.carried.lock.commit, self.carried.target.tag
        pin = base_in(self.path, locked, tag)
        if pin is None:
            return set()
        # What a base does not contain is listed, so the list ends with the line.
        later = (
            clones.run(
                self.path, "rev-list", "--stdin", stdin=_lines([*commits, f"^{pin}"])
            )
            .stdout.decode()
            .split()
        )
        return set(commits) - {*later, pin}

    def _known(self) -> str:
        refs = text(
            self.path, "for-each-ref", "--sort=-creatordate", f"--count={_NEAR + 1}",
            "--format=%(refname:short)", "refs/heads", "refs/remotes", "refs/tags",
        ).splitlines()  # fmt: skip
        return ", ".join(refs[:_NEAR]) + (", …" if len(refs) > _NEAR else "")


def _lines(words: Iterable[str]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()


def open_clone(path: Path, carried: Carried) -> Clone:
    """Raises InputError if ``path`` is not a clone, RefusedClone if git refuses it."""
    where = path.resolve()
    if not is_clone(where):
        what = "is not a clone" if where.is_dir() else "does not exist"
        url = quoted(carried.target.repository)
        step = f"git clone --filter=blob:none {url} {quoted(str(path))}"
        finding = Finding(what, path=str(path), next_step=step)
        raise InputError(f"{path} {what}", (finding,))
    clone_location(where)
    return Clone(where, carried)


def watched(carried: Carried, ends: Sequence[Facts]) -> tuple[str, ...]:
    """The series' files, and the files that contain its sites at either end."""
    sites = contract_of(carried).expected
    of_sites = (
        row.path
        for facts in ends
        for row in facts.rows
        if row.site in sites and row.path
    )
    return tuple(dict.fromkeys((*carried.series.paths, *of_sites)))
