"""Finds imports that a rebased series adds and the new base cannot serve.

A hunk that imports a module merges anywhere. If upstream has moved or not yet written
the module, the result parses, and fails when the line runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from overlaykit.core.errors import Finding
from overlaykit.core.syntax import parsed
from overlaykit.series.manifest import Target
from overlaykit.series.quilt import Series
from overlaykit.trees.tree import Tree


def missing_imports(
    target: Target, before: Tree, after: Tree, series: Series
) -> tuple[Finding, ...]:
    """The imports of the target's own package that are in ``after`` alone, and that
    neither a module nor a name in it serves there."""
    return tuple(
        Finding(
            f"{name} is imported, and the new base does not have it",
            path=path,
            line=line,
            patch=_patch_with(series, path, name),
            expected=f"a definition of {name} in the package",
            found="neither a module nor a name in one",
            next_step="begin the rebase again and leave the patch out with "
            "--skip-patch, or change the hunk on the old base",
        )
        for path in series.paths
        for name, line in _added(before, after, path)
        if not _is_there(target, after, name)
    )


def _added(before: Tree, after: Tree, path: str) -> Iterator[tuple[str, int]]:
    known = dict(_imported(before.read(path) or b""))
    for name, line in dict(_imported(after.read(path) or b"")).items():
        if name not in known:
            yield name, line


def _imported(data: bytes) -> Iterator[tuple[str, int]]:
    """Each imported module or name, dotted, with its line, but no relative import."""
    try:
        module = parsed(data)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def _is_there(target: Target, tree: Tree, name: str) -> bool:
    top, *parts = name.split(".")
    if top != target.package or not parts:
        return True
    place = "/".join([target.package_root, *parts])
    if any(tree.read(f"{place}{end}") is not None for end in (".py", "/__init__.py")):
        return True
    parent = place.rpartition("/")[0]
    sources = [tree.read(f"{parent}{end}") for end in (".py", "/__init__.py")]
    word = re.compile(rb"\b%s\b|import \*|__getattr__" % re.escape(parts[-1]).encode())
    return any(word.search(data) for data in sources if data is not None)


def _patch_with(series: Series, path: str, name: str) -> str | None:
    last = name.rpartition(".")[2].encode()
    return next(
        (
            patch.name
            for patch in series.patches
            for diff in patch.files
            for hunk in diff.hunks
            if diff.path == path
            and any(tag == "+" and last in line for tag, line in hunk.lines)
        ),
        None,
    )
