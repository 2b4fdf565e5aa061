"""Whether the name of a scope says which definition is meant.

A name is as telling as in the pinned file if there is no definition of it besides,
nothing else is bound to it, and no other definition may be the pinned one under a new
name. The same holds for the names of what the scope lies in.
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


def other_meaning(scope: str, pinned: bytes, data: bytes) -> str | None:
    """Why a scope's name may mean something else in ``data`` than it did."""
    if scope == MODULE:
        return None
    parts = scope.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if _namesakes(data, name) != _namesakes(pinned, name):
            return f"{name} has other definitions of its name than in the pinned file"
        if more := _new_bindings(_plain(name), pinned, data):
            return f"{name} is bound to something else, too: {next(iter(more))[:80]}"
    return None


def _plain(scope: str) -> str:
    return re.sub(r"#\d+", "", scope)


def _namesakes(data: bytes, scope: str) -> list[bytes]:
    """The part that a definition has among those of its name, and the sources of the
    others that have the same part. A property's setter is none of its getter."""
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
    part = _part(found.get(scope, []), plain)
    return [part] + [
        b"".join(lines)
        for name, lines in found.items()
        if name != scope and _part(lines, plain) == part
    ]


def _part(lines: list[bytes], plain: str) -> bytes:
    """How a decorator sets a definition apart from others of its name."""
    name = plain.rpartition(".")[2].encode()
    accessor = rb"\s*@(?:%s\.(?:setter|getter|deleter)|(?:\w+\.)?overload)\b" % name
    for line in lines:
        if match := re.match(accessor, line):
            return match[0].strip()
        if not line.lstrip().startswith(b"@"):
            break
    return b""


# What else is bound to a name.


def _new_bindings(scope: str, pinned: bytes, data: bytes) -> Counter[str]:
    """The statements that bind a definition's name to something, and did not."""
    word = scope.rpartition(".")[2].encode()
    if not _mentions(data, word) - _mentions(pinned, word):
        return Counter()
    now, then = (_all_bindings(side).get(scope, Counter()) for side in (data, pinned))
    return now - then


def _mentions(data: bytes, word: bytes) -> Counter[tuple[bytes, bytes]]:
    """Lines with a word, and the ones before them: a new statement adds to them."""
    lines = [b"", *split_lines(data)]
    return Counter(
        (before, line)
        for before, line in pairwise(lines)
        if word in line or word in before
    )


@lru_cache(maxsize=8)
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
    """Qualified names, and what binds them, in a namespace and in those within."""
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
    """What binds a name: the statement, but of a block no more than the name itself,
    and of an import no other name."""
    if isinstance(node, ast.alias) and isinstance(statement, ast.ImportFrom):
        only = ast.ImportFrom(statement.module, [node], statement.level)
        return ast.unparse(only)
    return ast.unparse(node if hasattr(statement, "body") else statement)


def _names(node: ast.AST, prefix: str) -> Iterator[str]:
    """The names that a node itself binds. An attribute counts by what it is written
    as, and as a class's own where it is one of self or cls."""
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
        # Of the class that the method is in.
        yield f"{prefix.rstrip('.').rpartition('.')[0]}.{name}"
    else:
        yield f"{owner}.{name}"


# What may be the pinned definition under a new name.

_ALIKE = 3
"""Lines in common below which two definitions are not alike, be they ever so short."""


def renamed_twin(
    scope: str, block: tuple[bytes, ...], pinned: bytes, data: bytes
) -> str | None:
    """A definition that the pinned file has not and that may be the scope's by now.

    Half of its lines and of the scope's are the same, and those of ``block``, the
    lines of a hunk, are not as they were; or it has the scope's place between its
    neighbours, and the scope has not. Of two that are both as they were the name
    decides.
    """
    old, new = map_scopes(pinned), map_scopes(data)
    if old is None or new is None or scope not in old or scope not in new:
        return None
    own = _texts(pinned, old).get(scope, [])
    run = [text for line in block if (text := line.strip()) in own]
    for name, lines in _texts(data, new).items():
        if name in old or MODULE in (name, scope):
            continue
        if 2 * shared(own, lines)[-1] < max(len(own), len(lines), 2 * _ALIKE):
            continue
        if run and not occurrences(lines, tuple(run)):
            return f"{name} may be it under a new name, with other lines in this place"
        if _in_place(name, scope, old, new) and not _in_place(scope, scope, old, new):
            return f"{name} stands where {scope} stood in the pinned file"
    return None


_HEADINGS = (b"def ", b"async def ", b"class ")


def _texts(data: bytes, scopes: ScopeMap) -> dict[str, list[bytes]]:
    """What the lines of each scope say, but for the one that has its name."""
    found: dict[str, list[bytes]] = {}
    for number, line in enumerate(split_lines(data), 1):
        scope = scopes.at(number)
        text = line.strip()
        if re.search(rb"\w", text) and not text.startswith(_HEADINGS):
            found.setdefault(scope, []).append(text)
    return found


def _in_place(name: str, scope: str, old: ScopeMap, new: ScopeMap) -> bool:
    """Whether a definition stands between those that the scope stood between."""
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
