"""Upstream commits: one commit, without its history and only with the package's files.

Such a commit is kept in the cache as a bare repository of its own, as a release is
kept as its wheel. It comes from the repository in overlay.toml, by a fetch of depth 1
without file contents and a second one of the package's, or from a clone, whose objects
are read as data. In both cases git computes every id again while it writes them, so
the files are those of the commit, whoever served them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core import git, gitversion
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.objects import FOLDER
from overlaykit.core.wording import quoted
from overlaykit.repository import clones, remotes
from overlaykit.repository.refs import has_commit, is_shallow, tag_in
from overlaykit.series.manifest import Target
from overlaykit.sources.packages import cache_folder
from overlaykit.trees import members
from overlaykit.trees.commit import CommitTree
from overlaykit.trees.tree import GitTree


@dataclass(frozen=True)
class Fetched:
    """What a fetch brought: git objects, their size on disk, and their source."""

    objects: int
    size: int
    source: str

    def __str__(self) -> str:
        size = f"{self.size / (1 << 20):.1f} MiB"
        return f"{self.objects:,} objects, {size}, from {self.source}"


def store_of(root: Path, target: Target, commit: str) -> Path:
    """The cached repository of a commit."""
    return cache_folder(root) / f"{target.package}-{commit}.git"


def stored(root: Path, target: Target, commit: str) -> CommitTree | None:
    """The commit's package from the cache; None if it is not there."""
    store = store_of(root, target, commit)
    if not store.is_dir():
        return None
    name = f"{target.package} at {commit[:12]}"
    return CommitTree(store, commit, target.package_root, name)


def obtain(
    root: Path, target: Target, commit: str, sources: Sequence[Path] = ()
) -> tuple[CommitTree, Fetched | None]:
    """The commit's package, from the cache, from one of the clones ``sources``, or from
    the repository; and what was fetched.

    Raises InputError if the repository does not serve the commit or the commit does not
    have the package, and EnvironmentFailure if the repository cannot be reached or a
    clone lacks objects of the commit.
    """
    if (tree := stored(root, target, commit)) is not None:
        return tree, None
    gitversion.check()
    clone = next((path for path in sources if has_commit(path, commit)), None)
    with _new_store(root, target, commit) as store:
        if clone is not None:
            _copy(clone, commit, target.package_root, store)
        else:
            _fetch(target, commit, store, sources)
        tree = CommitTree(store, commit, target.package_root, str(store))
        _check_sizes(_sizes(store, (oid for _, oid in tree.blobs.values())), tree)
        fetched = _described(store, str(clone or target.repository))
    made = stored(root, target, commit)
    assert made is not None
    return made, fetched


def tag_commit(target: Target, tag: str, sources: Sequence[Path] = ()) -> str:
    """The commit of a tag, in the first clone that has it, else in the repository.

    Raises InputError if there is no such tag.
    """
    for clone in sources:
        if (found := tag_in(clone, tag)) is not None:
            return found
    if (found := remotes.tag_commit(target.repository, tag)) is not None:
        return found
    step = f"list the tags: git ls-remote --tags {quoted(target.repository)}"
    finding = Finding("has no such tag", target.repository, found=tag, next_step=step)
    raise InputError(f"{target.repository} has no tag {tag}", (finding,))


def refuse_moved(target: Target, commit: str, found: str | None, where: str) -> None:
    """Raises InputError if the target's tag is another commit at ``where``."""
    if found in (None, commit):
        return
    finding = Finding(
        "the tag is another commit now",
        path=where,
        expected=f"commit {commit}, as pinned",
        found=f"commit {found}",
        next_step="find out why it moved; then replace the tag in overlay.toml by "
        f'commit = "{commit}" to keep this base, or by commit = "{found}" to change it',
    )
    raise InputError(f"the tag {target.tag} of {target.package} moved", (finding,))


@contextmanager
def _new_store(root: Path, target: Target, commit: str) -> Iterator[Path]:
    """A folder that appears in the cache as a whole, or not at all."""
    place = store_of(root, target, commit)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.package}-", dir=place.parent))
        try:
            yield part
            part.chmod(0o755)
            try:
                part.rename(place)
            except OSError:
                # Another run may have made the same store meanwhile.
                if not place.is_dir():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        step = "free some space or permit writing, then run it again"
        where = str(error.filename or place)
        finding = Finding(f"cannot be written: {error}", path=where, next_step=step)
        what = f"{target.package} at {commit[:12]} could not be saved"
        raise EnvironmentFailure(what, (finding,)) from error


def _fetch(target: Target, commit: str, store: Path, sources: Sequence[Path]) -> None:
    url, what = target.repository, f"{target.package} at {commit[:12]}"
    remotes.announce(f"{what} from {url}")
    remotes.prepare(store, url)
    try:
        if target.tag is not None and target.dist is None:
            refuse_moved(target, commit, remotes.tag_commit(url, target.tag), url)
        remotes.fetch(store, url, [commit], "--depth=1")
        tree = CommitTree(store, commit, target.package_root, what)
        if missing := list(_missing(store, (oid for _, oid in tree.blobs.values()))):
            remotes.fetch(store, url, missing)
    except remotes.NotServed as error:
        raise _not_served(target, commit, error, sources) from error
    except remotes.Unreachable as error:
        more = tuple(map(_lacks_commit, sources))
        raise remotes.Unreachable(
            f"{what} cannot be fetched: {error.message}", (*error.findings, *more)
        ) from error
    remotes.forget(store)
    _need_all(tree, store, url)


def _not_served(
    target: Target, commit: str, error: remotes.NotServed, sources: Sequence[Path]
) -> InputError:
    url = target.repository
    finding = Finding(
        "the repository answers, but does not serve this commit",
        path=url,
        expected=f"commit {commit}",
        found=error.findings[0].found,
        next_step="if the branch was rewritten (a force-push), the commit may be gone "
        "there: name a clone that has it with --clone PATH, or pin another commit",
    )
    what = f"{url} does not serve the commit {commit}"
    return InputError(what, (finding, *map(_lacks_commit, sources)))


def _lacks_commit(clone: Path) -> Finding:
    step, here = "name another clone", quoted(str(clone))
    if is_shallow(clone):
        step = f"the clone is shallow: git -C {here} fetch --unshallow"
    return Finding("does not have the commit", path=str(clone), next_step=step)


def _copy(clone: Path, commit: str, package_root: str, store: Path) -> None:
    """Copy the commit, its trees and the package's files from a clone.

    Whatever the clone says, index-pack computes the ids from the contents.
    """
    git.run(store, "init", "-q", "--bare", "--template=")
    with GitTree(clone, commit) as tree:
        folders, files = [commit, tree.id], {}
        for path, (mode, oid) in tree.walk():
            if mode == FOLDER:
                folders.append(oid)
            elif mode.startswith("100") and path.startswith(f"{package_root}/"):
                files[oid] = path
    if lost := list(_missing(clone, files)):
        raise _incomplete(clone, commit, files, lost)
    ids = "".join(f"{oid}\n" for oid in (*folders, *files)).encode()
    pack = clones.run(clone, "pack-objects", "-q", "--stdout", stdin=ids).stdout
    git.run(store, "index-pack", "--stdin", stdin=pack)
    try:
        tree_there = CommitTree(store, commit, package_root, str(clone))
        _need_all(tree_there, store, str(clone))
    except (EnvironmentFailure, InputError) as error:
        step = f"git -C {quoted(str(clone))} fsck, then clone again"
        finding = Finding(
            "its objects are not what their ids say", path=str(clone), next_step=step
        )
        what = f"{clone} is damaged: it does not have the commit {commit}"
        raise EnvironmentFailure(what, (finding, *error.findings)) from error


def _incomplete(
    clone: Path, commit: str, files: Mapping[str, str], lost: Sequence[str]
) -> EnvironmentFailure:
    path = files[lost[0]]
    error = clones.missing_object(clone, path, lost[0])
    count = f", and {len(lost) - 1} more files" if lost[1:] else ""
    finding = Finding(
        "has only a part of the commit",
        path=str(clone),
        expected=f"the package's files at {commit}",
        next_step=f"or run scripts/fetch.py --commit {commit}, which gets them from "
        "the repository, and run this again",
    )
    return EnvironmentFailure(f"{error.message}{count}", (*error.findings, finding))


def _need_all(tree: CommitTree, store: Path, source: str) -> None:
    """Raises InputError if the commit does not have the package, and EnvironmentFailure
    if its contents are incomplete."""
    if not tree.blobs:
        finding = Finding(
            "has no such folder", path=tree.name, expected="a file in package_root",
            next_step="check repository, commit and package_root in overlay.toml",
        )  # fmt: skip
        raise InputError(f"{tree.commit} does not have the package", (finding,))
    for oid in _missing(store, (oid for _, oid in tree.blobs.values())):
        finding = Finding("an object is missing", path=source, expected=oid)
        what = f"{source} did not give all files of {tree.commit}"
        raise EnvironmentFailure(what, (finding,))


def _missing(repository: Path, ids: Iterator[str] | Mapping[str, str]) -> Iterator[str]:
    return (oid for oid, size in _sizes(repository, ids) if size is None)


def _sizes(
    repository: Path, ids: Iterator[str] | Mapping[str, str]
) -> Iterator[tuple[str, int | None]]:
    """The size of each object; None if the repository does not have it."""
    asked = "".join(f"{oid}\n" for oid in dict.fromkeys(ids)).encode()
    rows = clones.run(repository, "cat-file", "--batch-check", stdin=asked).stdout
    for row in rows.decode().splitlines():
        oid, kind, *size = row.split(" ")
        yield oid, int(size[0]) if kind == "blob" and size else None


def _check_sizes(sizes: Iterator[tuple[str, int | None]], tree: CommitTree) -> None:
    """The limits of a package, for the same reason."""
    total = 0
    for oid, size in sizes:
        total += size or 0
        if (size or 0) > members.LARGEST_FILE or total > members.LARGEST_WHEEL:
            finding = Finding(
                f"object {oid} makes the commit larger than a package may be",
                path=tree.commit,
                expected=f"at most {members.LARGEST_FILE} bytes a file, "
                f"{members.LARGEST_WHEEL} in all",
                next_step="do not use it until you know why",
            )
            raise InputError(f"{tree.commit} is too large", (finding,))


def _described(store: Path, source: str) -> Fetched:
    rows = git.text(store, "count-objects", "-v").splitlines()
    counts = {key: int(value) for key, _, value in (r.partition(": ") for r in rows)}
    size = (counts["size"] + counts["size-pack"]) * 1024
    return Fetched(counts["count"] + counts["in-pack"], size, source)
