"""Which target a path holds, told by content and never by its name.

A package may be carried on several releases of it, each a target of its own. Which of
them a tree is, the blob ids of the touched files say: as released, or as any prefix of
that base's series leaves them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from overlaykit.core.errors import CannotApply, EnvironmentFailure, Finding, InputError
from overlaykit.core.versions import installed_version
from overlaykit.planning.plan import locate
from overlaykit.series.carried import Carried
from overlaykit.trees.tree import REPOSITORY, DirectoryTree, Layout

_WHAT_TO_NAME = (
    "give a clone, an unpacked source tree, a site-packages or the installed "
    "package's directory"
)


@dataclass(frozen=True)
class FoundTarget:
    """A target found at a path, as a tree under repository names.

    ``mismatch`` says of a tree that is none of its package's several bases which they
    are; ``carried`` is then the one that it is most like.
    """

    carried: Carried
    tree: DirectoryTree
    mismatch: tuple[Finding, ...] = ()


def find_targets(
    paths: Iterable[Path], overlay: Mapping[str, Carried]
) -> list[FoundTarget]:
    """The targets at the paths; a site-packages may hold several.

    Raises InputError for a path that holds none, or one target found twice, also as a
    clone and the package within it; CannotApply for a package that is a link there;
    EnvironmentFailure for a path that may not be read.
    """
    found: list[FoundTarget] = []
    seen: dict[Path, Path] = {}
    for path in paths:
        try:
            here = _find(path, overlay)
        except OSError as error:
            finding = Finding(
                str(error),
                path=str(path),
                next_step="permit reading it, or name another",
            )
            raise EnvironmentFailure(f"cannot read {path}", (finding,)) from error
        for one in here:
            marker = _marker(one.carried)
            place = one.tree.root / (one.tree.layout.inside(marker) or marker)
            if place in seen:
                raise InputError(
                    f"{path} is named more than once",
                    (
                        Finding(
                            f"is the same {one.carried.name} as {seen[place]}",
                            path=str(path),
                            next_step="name each tree once",
                        ),
                    ),
                )
            seen[place] = path
        found += here
    return found


def _find(path: Path, overlay: Mapping[str, Carried]) -> list[FoundTarget]:
    if not path.is_dir():
        what = "is not a directory" if os.path.lexists(path) else "does not exist"
        raise InputError(
            f"{path} {what}",
            (Finding(what, path=str(path), next_step=_WHAT_TO_NAME),),
        )
    root = Path(os.path.realpath(path))
    packages: dict[str, list[Carried]] = {}
    for carried in overlay.values():
        packages.setdefault(carried.target.package, []).append(carried)
    found = []
    for bases in packages.values():
        trees = [(base, _tree(root, base)) for base in bases]
        there = [FoundTarget(base, tree) for base, tree in trees if tree is not None]
        if there:
            found.append(_base(there))
    if not found:
        found = [one for bases in packages.values() for one in _elsewhere(root, bases)]
    if not found:
        raise InputError(
            f"{path} holds no target of this overlay",
            tuple(
                Finding(
                    f"no {package} here",
                    expected=f"{_marker(bases[0])} below a clone, or "
                    f"{_inside(bases[0])} below site-packages",
                    next_step=_WHAT_TO_NAME,
                )
                for package, bases in packages.items()
            ),
        )
    return found


def _elsewhere(root: Path, bases: Iterable[Carried]) -> Iterator[FoundTarget]:
    """A package whose every touched file lies somewhere else, or is gone: the planner
    says of each where it went."""
    for base in bases:
        if (tree := _tree(root, base, moved=True)) is not None:
            yield FoundTarget(base, tree, (_another_layout(base, tree),))
            return


def _another_layout(base: Carried, tree: DirectoryTree) -> Finding:
    """What a package is that has none of the touched files where a base has them."""
    target = base.target
    package = tree.root / (tree.layout.inside(f"{target.package_root}/") or "")
    names = {target.package, target.dist.name}
    version = installed_version(package, names) or "of a version that it does not say"
    return Finding(
        f"is {target.package} {version}, laid out as no base of this overlay is",
        path=tree.name,
        expected=f"{', '.join(base.series.paths)}, as {target.release} has it",
        found="; ".join(_moved_files(base, tree)),
        next_step=f"leave it as it is: no patches here are for it. They are for "
        f"{target.release}; to make them for this release see scripts/rebase.py",
    )


def _moved_files(base: Carried, tree: DirectoryTree) -> Iterator[str]:
    """Of each touched file, where files of its name are now."""
    for path in base.series.paths:
        name = PurePosixPath(path).name
        here = sorted(p for p in tree.paths() if PurePosixPath(p).name == name)
        yield f"{path} is not there; files of its name: {', '.join(here) or 'none'}"


def _base(candidates: list[FoundTarget]) -> FoundTarget:
    """The base whose every touched file has a blob id of its chain; where there is
    none, the one with the most such files, and a finding that names them all.

    Files with CRLF line ends count as what they are otherwise, and where all that are
    there are a base's, it is that one: git may have checked them out so, or not all.
    """
    if len(candidates) == 1:
        return candidates[0]
    rows = []
    for one in candidates:
        position = locate(one.carried, one.tree)
        there = [p for p in one.carried.chains if position.contents[p] is not None]
        likely = [p for p in there if position.in_chain(one.carried, p)]
        rows.append((not position.drifted, len(likely), likely == there, one))
    # The first of equals: the manifest's order.
    fits, _, whole, nearest = max(rows, key=lambda row: row[:2])
    if fits or whole:
        return nearest
    known = [
        f"{one.carried.target.release} ({fitting} of {len(one.carried.chains)})"
        for _, fitting, _, one in rows
    ]
    finding = Finding(
        f"{nearest.tree.name} is none of the releases that this overlay is made for",
        expected="every touched file as one of them has it, with the series or without",
        found=f"of their files are here: {', '.join(known)}",
        next_step=f"the findings compare with {nearest.carried.target.release}; "
        "for another release see scripts/rebase.py",
    )
    return FoundTarget(nearest.carried, nearest.tree, (finding,))


def _tree(root: Path, carried: Carried, moved: bool = False) -> DirectoryTree | None:
    """The target's tree at or around ``root``, under the one name that it has.

    A package that lies where its repository holds it stands for that whole checkout,
    so that a clone and the package in it share one lock and one journal.
    """
    target = carried.target
    below = PurePosixPath(target.package_root)
    for package in (root / below, root / target.package, root):
        if package.name != target.package:
            continue
        init = package / "__init__.py"
        if not (init.is_file() if moved else _holds(carried, package)):
            continue
        _refuse_links(root, package)
        top = package.parents[len(below.parts) - 1]
        if package == top / below and not any(top.glob("*.dist-info")):
            return DirectoryTree(top, REPOSITORY)
        return DirectoryTree(package, target.package_layout())
    return None


def _refuse_links(root: Path, package: Path) -> None:
    """What was named may be a link. What lies in it may not lead elsewhere: a store
    that others share would be changed, under a lock and a journal of its own."""
    for place in (package, *package.parents):
        if place == root:
            return
        if place.is_symlink():
            finding = Finding(
                "is a symbolic link",
                path=str(place),
                expected="a directory inside the named one",
                found=f"{place} -> {place.readlink()}",
                next_step=f"name the directory itself: {os.path.realpath(place)}",
            )
            raise CannotApply(f"{root}: refusing to follow a symbolic link", (finding,))


def _holds(carried: Carried, package: Path) -> bool:
    """Whether any file that the series touches is there, so that drift still counts."""
    layout = carried.target.package_layout()
    inside = map(layout.inside, carried.series.paths)
    return any(os.path.lexists(package / path) for path in inside if path is not None)


def _marker(carried: Carried) -> str:
    return carried.series.paths[0]


def _inside(carried: Carried) -> str:
    layout: Layout = carried.target.site_layout()
    return layout.inside(_marker(carried)) or _marker(carried)
