"""Import names of the overlay's module, in isort's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xscale.regenerate.names import MODULE, WIDTH

if TYPE_CHECKING:
    import libcst as cst


def import_names(
    source: bytes, names: Sequence[str], beside: str | None
) -> bytes | None:
    """Import names of the overlay's module next to the import of ``beside``, or at
    module level if it is None.

    The order is isort's with upstream's profile: after a blank line behind the imports
    of other packages, before the first import from sglang that sorts after it. None
    unless exactly one block imports ``beside``.
    """
    import libcst as cst
    import libcst.matchers as m

    module = cst.parse_module(source)
    found: list[cst.BaseSuite | cst.Module] = [module]
    imports = m.SimpleStatementLine(body=[m.ImportFrom()])
    if beside is not None:
        alias = m.ImportAlias(name=m.Name(beside))
        named = m.ImportFrom(names=[m.ZeroOrMore(), alias, m.ZeroOrMore()])
        imports = m.SimpleStatementLine(body=[named])
        found = [
            block
            for block in (module, *m.findall(module, m.IndentedBlock()))
            if isinstance(block, cst.Module | cst.IndentedBlock)
            and any(m.matches(line, imports) for line in block.body)
        ]
    if len(found) != 1:
        return None
    [block] = found
    assert isinstance(block, cst.Module | cst.IndentedBlock)
    body: list[cst.BaseStatement] = [*block.body]
    first = next(
        (
            n
            for n, line in enumerate(body)
            if m.matches(line, imports)
            and (beside or (_imported_from(line) or "").startswith("sglang"))
        ),
        None,
    )
    if first is None:
        return None
    at = first + 1
    blank = [cst.EmptyLine(indent=False)]
    while at < len(body) and (name := _imported_from(body[at])) is not None:
        if name.startswith("sglang.") and name > MODULE:
            break
        at += 1
    depth = 0 if beside is None else _depth(source, beside)
    text = f"from {MODULE} import {', '.join(names)}"
    if depth + len(text) > WIDTH:
        listed = "".join(f"    {name},\n" for name in names)
        text = f"from {MODULE} import (\n{listed})"
    [line] = cst.parse_module(f"{text}\n").body
    assert isinstance(line, cst.SimpleStatementLine)
    before = _imported_from(body[at - 1])
    if before is None or not before.startswith("sglang"):
        line = line.with_changes(leading_lines=blank)
        if at < len(body) and (_imported_from(body[at]) or "").startswith("sglang"):
            after = body[at]
            assert isinstance(after, cst.SimpleStatementLine)
            kept = [row for row in after.leading_lines if row.comment is not None]
            body[at] = after.with_changes(leading_lines=kept)
    body.insert(at, line)
    made = module.deep_replace(block, block.with_changes(body=body))
    if isinstance(block, cst.Module):
        made = module.with_changes(body=body)
    assert isinstance(made, cst.Module)
    return made.bytes


def _imported_from(line: cst.CSTNode) -> str | None:
    """The module that a line imports from; None for relative imports."""
    import libcst as cst

    if not isinstance(line, cst.SimpleStatementLine):
        return None
    [statement, *more] = line.body
    if more or not isinstance(statement, cst.ImportFrom) or statement.module is None:
        return None
    return cst.Module([]).code_for_node(statement.module)


def _depth(source: bytes, beside: str) -> int:
    rows = source.decode(errors="replace").split("\n")
    row = next(row for row in rows if beside in row)
    return len(row) - len(row.lstrip())
