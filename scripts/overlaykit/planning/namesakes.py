"""Checks that the name of a scope still identifies one definition.

A name means the same as in the pinned file if it has no other definition, nothing else
is bound to it, and no other definition may be the pinned one under a new name. The same
must hold for the names of the enclosing scopes.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from overlaykit.planning.context import shared
from overlaykit.series.patches import occurrences, split_lines
from overlaykit.series.scopes import MODULE, Definition, ScopeMap, map_scopes, parsed


def changed_meaning(scope: str, pinned: bytes, data: bytes) -> str | None:
    """Why a scope's name may have a new meaning in ``data``; None if it does not."""
    if scope == MODULE:
        return None
    parts = scope.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if _namesakes(data, name) != _namesakes(pinned, name):
            return f"{name} has other definitions than in the pinned file"
        if more := _new_bindings(_plain(name), pinned, data):
            return f"{name} is also bound to something else: {next(iter(more))[:80]}"
    return None


def _plain(scope: str) -> str:
    return re.sub(r"#\d+", "", scope)


@lru_cache(maxsize=256)
def _namesakes(data: bytes, scope: str) -> list[bytes]:
    """A definition's decorator role, and the sources of the others with that role.

    A property's setter has another role than its getter, so it is not a namesake.
    """
    scopes = map_scopes(data)
    if scopes is None:
        return []
    plain = _plain(scope)
    depth = scope.count(".") + 1
    found: dict[str, list[bytes]] = {}
    for number, line in enumerate(split_lines(data), 1):
        name = ".".join(scopes.at(number).split(".")[:depth])
        if _plain(name) == plain:
            found.setdefault(name, []).append(line)
    role = _role(found.get(scope, []), plain)
    return [role] + [
        b"".join(lines)
        for name, lines in found.items()
        if name != scope and _role(lines, plain) == role
    ]


def _role(lines: list[bytes], plain: str) -> bytes:
    """The decorator that distinguishes a definition from others with its name."""
    name = plain.rpartition(".")[2].encode()
    accessor = rb"\s*@(?:%s\.(?:setter|getter|deleter)|(?:\w+\.)?overload)\b" % name
    for line in lines:
        if match := re.match(accessor, line):
            return match[0].strip()
        if not line.lstrip().startswith(b"@"):
            break
    return b""


# Other bindings of a name.


def _new_bindings(scope: str, pinned: bytes, data: bytes) -> Counter[str]:
    """The statements that newly bind a definition's name."""
    word = scope.rpartition(".")[2].encode()
    if not _mentions(data, word) - _mentions(pinned, word):
        return Counter()
    now, then = (_all_bindings(side).get(scope, Counter()) for side in (data, pinned))
    return now - then


def _mentions(data: bytes, word: bytes) -> Counter[tuple[bytes, bytes]]:
    """Lines with a word, each with the line before it. A new statement adds to them."""
    lines = [b"", *split_lines(data)]
    return Counter(
        (before, line)
        for before, line in pairwise(lines)
        if word in line or word in before
    )


@lru_cache(maxsize=64)
def _all_bindings(data: bytes) -> dict[str, Counter[str]]:
    module, scopes = parsed(data), map_scopes(data)
    found: dict[str, Counter[str]] = {}
    if module is None or scopes is None:
        return found
    defined = {_plain(name) for name in scopes.names}
    for name, binding in _bound(module, "", module):
        if name in defined:
            found.setdefault(name, Counter())[binding] += 1
    return found


def _bound(node: ast.AST, prefix: str, statement: ast.AST) -> Iterator[tuple[str, str]]:
    """Qualified names and their bindings, in a namespace and the nested ones."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield from _bound(child, f"{prefix}{child.name}.", child)
            for inner in ast.walk(child):
                if isinstance(inner, ast.Global):
                    yield from ((name, f"global {name}") for name in inner.names)
            continue
        if isinstance(child, ast.stmt):
            statement = child
        for name in _names(child, prefix):
            yield name, _text(child, statement)
        if not isinstance(child, ast.Lambda):
            yield from _bound(child, prefix, statement)


def _text(node: ast.AST, statement: ast.AST) -> str:
    """The source of a binding: the statement. For a block, only the name itself; for an
    import, only this name."""
    if isinstance(node, ast.alias) and isinstance(statement, ast.ImportFrom):
        only = ast.ImportFrom(statement.module, [node], statement.level)
        return ast.unparse(only)
    return ast.unparse(node if hasattr(statement, "body") else statement)


def _names(node: ast.AST, prefix: str) -> Iterator[str]:
    """The names that a node itself binds.

    An attribute counts under the name in the source; one of ``self`` or ``cls`` counts
    as the class's.
    """
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield prefix + node.id
    elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        yield from _attributes(ast.unparse(node.value), node.attr, prefix)
    elif isinstance(node, ast.alias):
        yield prefix + (node.asname or node.name).partition(".")[0]
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        if node.name:
            yield prefix + node.name
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        match [node.func.id, *node.args]:
            case ["setattr", ast.expr() as owner, ast.Constant(value=str(name)), *_]:
                yield from _attributes(ast.unparse(owner), name, prefix)


def _attributes(owner: str, name: str, prefix: str) -> Iterator[str]:
    if owner in ("self", "cls"):
        # It belongs to the class of the method.
        yield f"{prefix.rstrip('.').rpartition('.')[0]}.{name}"
    else:
        yield f"{owner}.{name}"


# Definitions that may be the pinned one under a new name.

_ALIKE = 3
"""Two definitions with fewer common lines are not similar, however short they are."""


def renamed_twin(
    scope: str, block: tuple[bytes, ...], pinned: bytes, data: bytes
) -> str | None:
    """A new definition that may be the scope under a new name.

    At least half of the lines of both are the same. In addition, the lines of
    ``block``, those of a hunk, differ; or the new definition is at the scope's old
    place between its neighbours, and the scope is not. If neither holds, the name
    decides.
    """
    old, new = map_scopes(pinned), map_scopes(data)
    if old is None or new is None or scope not in old or scope not in new:
        return None
    own = _texts(pinned).get(scope, [])
    run = [text for line in block if (text := line.strip()) in own]
    for name, lines in _texts(data).items():
        if name in old or MODULE in (name, scope):
            continue
        if 2 * shared(own, lines)[-1] < max(len(own), len(lines), 2 * _ALIKE):
            continue
        if run and not occurrences(lines, tuple(run)):
            return f"{name} may be its new name, and has other lines in this place"
        if _in_place(name, scope, old, new) and not _in_place(scope, scope, old, new):
            return f"{name} is where {scope} was in the pinned file"
    return None


_HEADINGS = (b"def ", b"async def ", b"class ")


@lru_cache(maxsize=64)
def _texts(data: bytes) -> dict[str, list[bytes]]:
    """The lines of each scope, stripped and without its heading. The file parses."""
    scopes = map_scopes(data)
    assert scopes is not None
    found: dict[str, list[bytes]] = {}
    for number, line in enumerate(split_lines(data), 1):
        scope = scopes.at(number)
        text = line.strip()
        if re.search(rb"\w", text) and not text.startswith(_HEADINGS):
            found.setdefault(scope, []).append(text)
    return found


def _in_place(name: str, scope: str, old: ScopeMap, new: ScopeMap) -> bool:
    """Whether a definition is between the neighbours that the scope had."""
    paths = zip(name.split("."), scope.split("."), strict=False)
    depth = next((n for n, (its, own) in enumerate(paths) if its != own), 0)
    mine = ".".join(scope.split(".")[: depth + 1])
    its = ".".join(name.split(".")[: depth + 1])
    then, now = (_siblings(side, mine) for side in (old, new))
    at = then.index(mine)
    above = next((other for other in then[:at][::-1] if other in now), None)
    below = next((other for other in then[at + 1 :] if other in now), None)
    place = now.index(its)
    return (above is None or now.index(above) < place) and (
        below is None or place < now.index(below)
    )


def _siblings(scopes: ScopeMap, scope: str) -> list[str]:
    parent, depth = scope.rpartition(".")[0], scope.count(".")
    return [
        name
        for name in dict.fromkeys(scopes.names)
        if name != MODULE and name.count(".") == depth
        if name.rpartition(".")[0] == parent
    ]
