"""Finds the place of each hunk on another base, before any hunk is merged.

Its file may be renamed, its function may be in another file under another name, and
upstream may have its change already. The contract knows that for each site
(:class:`SiteOnBase`). Other hunks are found by file path and qualified name. Nothing
here decides that a hunk fits: the merge and its checks do.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from overlaykit.core.syntax import parsed
from overlaykit.planning.landing import successors
from overlaykit.planning.placement import MergeStep
from overlaykit.series.carried import Carried
from overlaykit.series.patches import Hunk
from overlaykit.series.scopes import MODULE, map_scopes
from overlaykit.trees.tree import Tree


@dataclass(frozen=True)
class SiteOnBase:
    """A site on the new base: its files and scopes there, and those that it had
    (``was``) on the base of the series.

    If upstream adopted the change since, ``adopted`` says how, and ``adopters`` are the
    patches that it replaces. Others name the site because they build on the change.
    """

    places: tuple[tuple[str, str], ...]
    was: tuple[tuple[str, str], ...]
    adopted: str | None = None
    adopters: frozenset[str] = frozenset()


Regenerate = Callable[[MergeStep, str, str, bytes], bytes | None]
"""Regenerates a hunk's change in a file, a scope and the file's current contents;
returns None if it cannot."""


@dataclass(frozen=True)
class Sites:
    """The contract's knowledge about a release; empty without a contract."""

    on_base: Mapping[str, SiteOnBase]
    regenerate: Regenerate | None = None


@dataclass(frozen=True)
class Key:
    """A hunk of the series."""

    patch: str
    path: str
    number: int


@dataclass(frozen=True)
class Route:
    """The place of a hunk: files (None if unknown) and scope; or why it is dropped.

    Only a hunk of module lines goes into more than one file.
    """

    paths: tuple[str | None, ...]
    scope: str
    dropped: str | None = None


@dataclass(frozen=True)
class _Hunk:
    key: Key
    hunk: Hunk
    scope: str
    sites: tuple[str, ...]


def find_routes(
    carried: Carried, tree: Tree, sites: Sites, dropped: Mapping[Key, str]
) -> dict[Key, Route]:
    """The route of every hunk; ``dropped`` are hunks that upstream is known to have."""
    hunks = list(_hunks(carried))
    files = _Files(carried, tree)
    routes = {
        one.key: _drop(one, dropped[one.key])
        if one.key in dropped
        else _route(one, files, sites)
        for one in hunks
        if one.sites
    }
    for one in hunks:
        if one.sites:
            continue
        mates = [m for m in hunks if m.key.patch == one.key.patch and m.sites]
        if one.key in dropped:
            routes[one.key] = _drop(one, dropped[one.key])
        elif one.scope == MODULE and (names := imported_names(one.hunk)):
            routes[one.key] = _import_route(one, names, hunks, routes, files)
        elif mates and all(routes[m.key].dropped for m in mates):
            what = "this patch has no site left to carry"
            routes[one.key] = _drop(one, what)
        else:
            routes[one.key] = _by_name(one, files)
    return routes


def _hunks(carried: Carried) -> Iterator[_Hunk]:
    for patch, locked in zip(carried.series.patches, carried.lock.patches, strict=True):
        for diff, file in zip(patch.files, locked.files, strict=True):
            for hunk, known in zip(diff.hunks, file.hunks, strict=True):
                key = Key(patch.name, diff.path, hunk.number)
                yield _Hunk(key, hunk, known.scope, known.sites)


def _drop(one: _Hunk, why: str) -> Route:
    return Route((), one.scope, why)


class _Files:
    """Finds the successor of a pinned file, and the files that contain a definition."""

    def __init__(self, carried: Carried, tree: Tree) -> None:
        self._carried, self._tree = carried, tree
        self.became = cache(self._became)
        self.holding = cache(self._holding)

    def _became(self, path: str) -> str | None:
        if self._tree.read(path) is not None:
            return path
        locked = self._carried.locked(path)
        names = {hunk.scope for _, file in locked for hunk in file.hunks}
        found = successors(self._tree, path, names)
        return next(iter(found)) if len(found) == 1 else None

    def has(self, path: str | None, scope: str) -> bool:
        data = self._tree.read(path) if path is not None else None
        scopes = map_scopes(data) if data is not None else None
        return scopes is not None and scope in scopes

    def _holding(self, scope: str) -> list[str]:
        word = f"def {scope.rpartition('.')[2]}(".encode()
        below = f"{self._carried.target.package_root}/"
        return [
            path
            for path in self._tree.paths()
            if path.startswith(below) and path.endswith(".py")
            if word in (self._tree.read(path) or b"") and self.has(path, scope)
        ]


def _route(one: _Hunk, files: _Files, sites: Sites) -> Route:
    seen = [s for name in one.sites if (s := sites.on_base.get(name)) is not None]
    reasons = [s.adopted for s in seen if s.adopted and one.key.patch in s.adopters]
    if len(reasons) == len(one.sites):
        return _drop(one, "; ".join(dict.fromkeys(reasons)))
    here = (files.became(one.key.path), one.scope)
    places = {place for s in seen for place in s.places}
    # A hunk that was not at its site, as one of a guard or a gather, goes by its name.
    at_site = any((one.key.path, one.scope) in s.was for s in seen)
    if not at_site or here in places or len(places) != 1:
        return _by_name(one, files)
    [(path, scope)] = places
    return Route((path,), scope)


def _by_name(one: _Hunk, files: _Files) -> Route:
    """The hunk's file, or the only other file with the function that it lost."""
    path = files.became(one.key.path)
    if one.scope != MODULE and not files.has(path, one.scope):
        holding = files.holding(one.scope)
        if len(holding) == 1:
            return Route((holding[0],), one.scope)
    return Route((path,), one.scope)


def _import_route(
    one: _Hunk,
    names: set[str],
    hunks: list[_Hunk],
    routes: Mapping[Key, Route],
    files: _Files,
) -> Route:
    """An import goes into every file with a hunk that uses it."""
    users = [
        user
        for user in hunks
        if user.key.path == one.key.path
        and user.scope != MODULE
        and _uses(user.hunk, names)
    ]
    if not users:
        return _by_name(one, files)
    # A hunk without a site has no route yet: find it by name.
    kept = [routes.get(user.key) or _by_name(user, files) for user in users]
    paths = dict.fromkeys(p for r in kept if not r.dropped for p in r.paths)
    if not paths:
        used = ", ".join(sorted(names))
        return _drop(one, f"no remaining hunk uses {used}")
    return Route(tuple(paths), MODULE)


def imported_names(hunk: Hunk) -> set[str]:
    """The names that a hunk imports; empty if it adds anything else than imports."""
    added = b"".join(line for tag, line in hunk.lines if tag == "+")
    try:
        module = parsed(textwrap.dedent(added.decode()))
    except (SyntaxError, ValueError):
        return set()
    if not all(isinstance(s, ast.Import | ast.ImportFrom) for s in module.body):
        return set()
    return {
        alias.asname or alias.name
        for statement in module.body
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for alias in statement.names
    }


def _uses(hunk: Hunk, names: set[str]) -> bool:
    added = b"".join(line for tag, line in hunk.lines if tag == "+").decode(
        errors="replace"
    )
    return any(name in added for name in names)
