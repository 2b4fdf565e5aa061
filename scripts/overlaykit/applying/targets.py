"""Finding the target at a path by its content, never by its name.

A package may have several bases, each a target of its own. The blob ids of the touched
files decide which base a tree is: they are those of the release, or those after any
number of the base's patches.
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
    "name a clone, an unpacked source tree, a site-packages directory or the installed "
    "package's directory"
)


@dataclass(frozen=True)
class FoundTarget:
    """A target found at a path, as a tree with repository paths.

    ``mismatch`` is not empty if the tree matches none of its package's bases, and names
    them; ``carried`` is then the closest one.
    """

    carried: Carried
    tree: DirectoryTree
    mismatch: tuple[Finding, ...] = ()


def find_targets(
    paths: Iterable[Path], overlay: Mapping[str, Carried]
) -> list[FoundTarget]:
    """The targets at the paths; a site-packages may contain several.

    Raises InputError for a path without a target, and for a target that is found twice,
    such as a clone and the package in it; CannotApply for a package that is a symbolic
    link; EnvironmentFailure for a path that cannot be read.
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
            found.append(_closest_base(there))
    if not found:
        found = [
            one for bases in packages.values() for one in _moved_packages(root, bases)
        ]
    if not found:
        raise InputError(
            f"{path} contains no target of this overlay",
            tuple(
                Finding(
                    f"no {package} here",
                    expected=f"{_marker(bases[0])} below a clone, or "
                    f"{_site_packages_path(bases[0])} below site-packages",
                    next_step=_WHAT_TO_NAME,
                )
                for package, bases in packages.items()
            ),
        )
    return found


def _moved_packages(root: Path, bases: Iterable[Carried]) -> Iterator[FoundTarget]:
    """A package that has none of the touched files at a base's paths."""
    for base in bases:
        if (tree := _tree(root, base, moved=True)) is not None:
            yield FoundTarget(base, tree, (_another_layout(base, tree),))
            return


def _another_layout(base: Carried, tree: DirectoryTree) -> Finding:
    """The finding for a package that has no touched file at a base's paths."""
    target = base.target
    package = tree.root / (tree.layout.inside(f"{target.package_root}/") or "")
    version = installed_version(package, target.names) or "of unknown version"
    return Finding(
        f"is {target.package} {version}, whose files are not where any base of this "
        "overlay has them",
        path=tree.name,
        expected=f"{', '.join(base.series.paths)}, as in {target.release}",
        found="; ".join(_moved_files(base, tree)),
        next_step=f"use it unpatched: the patches are for {target.release}; to make "
        "them for this release see scripts/rebase.py",
    )


def _moved_files(base: Carried, tree: DirectoryTree) -> Iterator[str]:
    """For each touched file, the paths of all files with its name."""
    for path in base.series.paths:
        name = PurePosixPath(path).name
        here = sorted(p for p in tree.paths() if PurePosixPath(p).name == name)
        yield f"{path} is missing; files with its name: {', '.join(here) or 'none'}"


def _closest_base(candidates: list[FoundTarget]) -> FoundTarget:
    """The base whose touched files all have a blob id of its chain. If there is none,
    the base with the most such files, and a finding that lists all bases.

    CRLF line ends are ignored, and a base also matches if all files that exist are
    its: git may have checked out CRLF line ends, or not all files.
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
        f"{nearest.tree.name} matches no release that this overlay is made for",
        expected="all touched files of one release, with the series or without it",
        found=f"files that match: {', '.join(known)}",
        next_step=f"the findings compare with {nearest.carried.target.release}; "
        "for another release see scripts/rebase.py",
    )
    return FoundTarget(nearest.carried, nearest.tree, (finding,))


def _tree(root: Path, carried: Carried, moved: bool = False) -> DirectoryTree | None:
    """The target's tree at or around ``root``, always with the same root.

    A package at its path in the repository stands for the whole checkout, so that a
    clone and the package in it share one lock and one journal.
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
    """Refuse a symbolic link between ``root`` and the package; ``root`` itself may be
    one. The link's target may be a shared store, and would have its own lock and
    journal."""
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
    """Whether any touched file exists, so that drift can be reported."""
    layout = carried.target.package_layout()
    inside = map(layout.inside, carried.series.paths)
    return any(os.path.lexists(package / path) for path in inside if path is not None)


def _marker(carried: Carried) -> str:
    return carried.series.paths[0]


def _site_packages_path(carried: Carried) -> str:
    layout: Layout = carried.target.site_layout()
    return layout.inside(_marker(carried)) or _marker(carried)
