"""Hunks made anew from what they are for, where their text cannot be merged.

Every hunk of the series is one of four edits, each known by its code and not by its
lines: a producer's call goes through the adapter, the consumer hands a scale on
through its counterpart, the gather makes it contiguous, and what they use is imported.
An edit is made only where exactly one place of the scope can be meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlaykit.core.errors import EnvironmentFailure, Finding
from xscale.census import SiteRow
from xscale.sites import CATALOGUE, PRODUCERS, Role, role_of

if TYPE_CHECKING:
    import libcst as cst
    from libcst.metadata import CodeRange

_MODULE = "sglang.srt.layers.quantization.bpreshuffle_scale"
_ADAPTER, _TO_GEMM = "quant_pretransposed_scale", "x_scale_for_gemm"
# What a communicator knows of the projection: the layer's method that calls it.
_LATENT = "self.qkv_latent_func"
_GATHERED = "The gather moves raw bytes; a pre-transposed scale is strided."
_WIDTH = 88


@dataclass(frozen=True)
class Edit:
    """A hunk by what it is for: its sites, and the names that it imports."""

    sites: tuple[str, ...]
    scope: str
    imports: tuple[str, ...]


def regenerate(
    edit: Edit, source: bytes, rows: Iterable[SiteRow], module_scope: bool
) -> bytes | None:
    """Make the edit in a file's contents; ``rows`` is the file's census.

    None where it is none of the four, its place is not the only one, or the contents
    do not parse.
    """
    import libcst as cst

    try:
        return _regenerate(edit, source, rows, module_scope)
    except cst.ParserSyntaxError:
        return None


def _regenerate(
    edit: Edit, source: bytes, rows: Iterable[SiteRow], module_scope: bool
) -> bytes | None:
    if module_scope:
        kernels = [k for k in PRODUCERS if k.encode() in source]
        beside = kernels[0] if _ADAPTER in edit.imports and kernels else None
        return import_names(source, edit.imports, beside) if edit.imports else None
    if not edit.sites:
        return make_contiguous(source, edit.scope)
    here = [r for r in rows if r.site in edit.sites and r.scope == edit.scope]
    if {row.role for row in here} == {Role.CONSUMER}:
        return hand_on(source, edit.scope)
    if {row.site for row in here} != set(edit.sites):
        return None
    if _LATENT.encode() not in source and any(
        _LATENT in _projection(row.site) for row in here
    ):
        return None
    made: bytes | None = source
    # From the last up, so that no edit moves the lines of the next.
    for line, site in sorted(((r.line, r.site) for r in here if r.line), reverse=True):
        if made is not None:
            made = call_through_adapter(made, line, _projection(site))
    return made


def _projection(site: str) -> str:
    """The projection that the site's scale goes to, as the site's scope can name it."""
    [one] = (entry for entry in CATALOGUE if entry.id == site)
    return f"self.{one.feeds}" if one.feeds else f"qkv_a_projection({_LATENT})"


def need_libcst() -> None:
    """Raises EnvironmentFailure where the one package that this needs is missing."""
    try:
        import libcst  # noqa: F401
    except ImportError as error:
        step = "pip install --group maintain"
        finding = Finding("libcst is not installed", next_step=step)
        raise EnvironmentFailure("--regenerate needs libcst", (finding,)) from error


def call_through_adapter(source: bytes, line: int, projection: str) -> bytes | None:
    """``KERNEL(x)`` at a line becomes ``quant_pretransposed_scale(KERNEL, PROJECTION,
    x)``.

    None where the call cannot be told, or says something of transposing itself.
    """
    import libcst as cst
    from libcst.metadata import MetadataWrapper, PositionProvider

    wrapper = MetadataWrapper(cst.parse_module(source))
    positions = wrapper.resolve(PositionProvider)
    calls = [
        node
        for node, place in positions.items()
        if isinstance(node, cst.Call)
        and isinstance(node.func, cst.Name)
        and node.func.value in PRODUCERS
        and role_of(node.func.value) is Role.PRODUCER
        and place.start.line == line
    ]
    if len(calls) != 1:
        return None
    [call] = calls
    if any(a.keyword and a.keyword.value == "transpose_scale" for a in call.args):
        return None
    made = _through(call, projection)
    # As black lays it out: on as few lines as before, or with a line an argument.
    if _too_long(wrapper.module.deep_replace(call, made), positions[call]):
        made = _spread(call, projection, _indent_of(source, line))
    module = wrapper.module.deep_replace(call, made)
    assert isinstance(module, cst.Module)
    return module.bytes


def _through(call: cst.Call, projection: str) -> cst.Call:
    import libcst as cst

    comma = cst.Comma(whitespace_after=_gap(call))
    first = [cst.Arg(one, comma=comma) for one in _first(call, projection)]
    return call.with_changes(func=cst.Name(_ADAPTER), args=[*first, *call.args])


def _first(call: cst.Call, projection: str) -> tuple[cst.BaseExpression, ...]:
    """What the adapter takes before the kernel's own arguments."""
    import libcst as cst

    return call.func, cst.parse_expression(projection)


def _gap(call: cst.Call) -> cst.BaseParenthesizableWhitespace:
    """What stands between the arguments: a line break, where each has a line."""
    import libcst as cst

    commas = (a.comma for a in call.args if isinstance(a.comma, cst.Comma))
    comma = next(commas, None)
    return cst.SimpleWhitespace(" ") if comma is None else comma.whitespace_after


def _spread(call: cst.Call, projection: str, indent: str) -> cst.Call:
    """The call with an argument a line, as black lays out what does not fit."""
    import libcst as cst

    def line_break(more: str) -> cst.ParenthesizedWhitespace:
        return cst.ParenthesizedWhitespace(
            first_line=cst.TrailingWhitespace(),
            indent=False,
            last_line=cst.SimpleWhitespace(indent + more),
        )

    args = [*map(cst.Arg, _first(call, projection)), *call.args]
    inner = cst.Comma(whitespace_after=line_break("    "))
    last = cst.Comma(whitespace_after=line_break(""))
    spread = [a.with_changes(comma=inner) for a in args[:-1]]
    spread.append(
        args[-1].with_changes(comma=last, whitespace_after_arg=cst.SimpleWhitespace(""))
    )
    return call.with_changes(
        func=cst.Name(_ADAPTER),
        args=spread,
        whitespace_before_args=line_break("    "),
    )


def _too_long(module: cst.CSTNode, was: CodeRange) -> bool:
    """Whether a line of the call is; it takes as many lines as before."""
    import libcst as cst

    assert isinstance(module, cst.Module)
    lines = module.code.splitlines()[was.start.line - 1 : was.end.line]
    return any(len(line) > _WIDTH for line in lines)


def _indent_of(source: bytes, line: int) -> str:
    # Not splitlines(): that ends lines where Python's grammar does not.
    text = source.decode(errors="replace").split("\n")[line - 1]
    return text[: len(text) - len(text.lstrip())]


def hand_on(source: bytes, scope: str) -> bytes | None:
    """The consumer's copy becomes ``x_scale_for_gemm``: an assignment of the scale, and
    below it, if not for Triton's GEMM, its transposition by a copy."""
    import libcst as cst
    import libcst.matchers as m

    copied = m.Call(
        func=m.Attribute(
            value=m.Call(
                func=m.Attribute(
                    value=m.Call(func=m.Attribute(attr=m.Name("transpose"))),
                    attr=m.Name("contiguous"),
                )
            ),
            attr=m.Name("view"),
        )
    )
    simple = m.SimpleStatementLine
    copy = m.If(
        test=m.UnaryOperation(operator=m.Not()),
        orelse=None,
        body=m.IndentedBlock(body=[simple(body=[m.Assign(value=copied)])]),
    )

    def edit(body: Sequence[cst.BaseStatement]) -> list[cst.BaseStatement] | None:
        out = list(body)
        for at, node in enumerate(out[1:], 1):
            before = out[at - 1]
            if not m.matches(node, copy) or not isinstance(node, cst.If):
                continue
            if not m.matches(before, simple(body=[m.Assign(value=m.Name())])):
                continue
            assert isinstance(before, cst.SimpleStatementLine)
            assign = before.body[0]
            assert isinstance(assign, cst.Assign)
            test = node.test
            assert isinstance(test, cst.UnaryOperation)
            name = cst.Module([]).code_for_node(assign.targets[0].target)
            given = cst.Module([]).code_for_node(assign.value)
            triton = cst.Module([]).code_for_node(test)
            [written] = cst.parse_module(
                f"{name} = {_TO_GEMM}({given}, bpreshuffle={triton})\n"
            ).body
            assert isinstance(written, cst.SimpleStatementLine)
            written = written.with_changes(leading_lines=before.leading_lines)
            return [*out[: at - 1], written, *out[at + 1 :]]
        return None

    return _edit_blocks(source, scope, edit)


def make_contiguous(source: bytes, scope: str) -> bytes | None:
    """The loop over a tuple's tensors makes each contiguous before it is gathered."""
    import libcst as cst
    import libcst.matchers as m

    gathers = m.Call(
        func=m.MatchIfTrue(
            lambda func: "all_gather" in cst.Module([]).code_for_node(func)
        )
    )

    def edit(body: Sequence[cst.BaseStatement]) -> list[cst.BaseStatement] | None:
        for at, node in enumerate(body):
            if not isinstance(node, cst.For) or not isinstance(node.target, cst.Name):
                continue
            if not m.findall(node, gathers):
                continue
            name = node.target.value
            [line] = (
                cst.parse_module(f"# {_GATHERED}\n{name} = {name}.contiguous()\n")
                .with_changes(header=[])
                .body
            )
            assert isinstance(line, cst.SimpleStatementLine)
            line = line.with_changes(
                leading_lines=[cst.EmptyLine(comment=cst.Comment(f"# {_GATHERED}"))]
            )
            block = node.body
            assert isinstance(block, cst.IndentedBlock)
            made = node.with_changes(body=block.with_changes(body=[line, *block.body]))
            return [*body[:at], made, *body[at + 1 :]]
        return None

    return _edit_blocks(source, scope, edit)


_Edit = Callable[[Sequence["cst.BaseStatement"]], "list[cst.BaseStatement] | None"]


def _edit_blocks(source: bytes, scope: str, edit: _Edit) -> bytes | None:
    """Apply an edit to the one block of a scope that it fits; None otherwise."""
    import libcst as cst

    class Editor(cst.CSTTransformer):
        def __init__(self) -> None:
            self.names: list[str] = []
            self.made = 0

        def _enter(self, node: cst.FunctionDef | cst.ClassDef) -> None:
            self.names.append(node.name.value)

        def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
            self._enter(node)

        def visit_ClassDef(self, node: cst.ClassDef) -> None:
            self._enter(node)

        def leave_FunctionDef(
            self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
        ) -> cst.BaseStatement:
            self.names.pop()
            return updated_node

        def leave_ClassDef(
            self, original_node: cst.ClassDef, updated_node: cst.ClassDef
        ) -> cst.BaseStatement:
            self.names.pop()
            return updated_node

        def leave_IndentedBlock(
            self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
        ) -> cst.BaseSuite:
            if ".".join(self.names) != scope:
                return updated_node
            body = edit(updated_node.body)
            if body is None:
                return updated_node
            self.made += 1
            return updated_node.with_changes(body=body)

    editor = Editor()
    made = cst.parse_module(source).visit(editor)
    return made.bytes if editor.made == 1 else None


def import_names(
    source: bytes, names: Sequence[str], beside: str | None
) -> bytes | None:
    """Import names of the overlay's module in the block that imports ``beside``, or
    among the module's own imports.

    isort's order for upstream's profile: behind the imports of other packages, a blank
    line between, before the first of sglang's that sorts after it. None where the
    block is not the only one.
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
        if name.startswith("sglang.") and name > _MODULE:
            break
        at += 1
    depth = 0 if beside is None else _depth(source, beside)
    text = f"from {_MODULE} import {', '.join(names)}"
    if depth + len(text) > _WIDTH:
        listed = "".join(f"    {name},\n" for name in names)
        text = f"from {_MODULE} import (\n{listed})"
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
    """The module that a line imports from, relative imports apart."""
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
