"""Make a producer's call go through the adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xscale.regenerate.names import ADAPTER, WIDTH
from xscale.sites import PRODUCERS, Role, role_of

if TYPE_CHECKING:
    import libcst as cst
    from libcst.metadata import CodeRange


def call_through_adapter(source: bytes, line: int, projection: str) -> bytes | None:
    """Turn ``KERNEL(x)`` at a line into ``quant_pretransposed_scale(KERNEL, PROJECTION,
    x)``.

    None if the line does not have exactly one such call, or if the call sets
    ``transpose_scale`` itself.
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
    # As black formats it: on as many lines as before, or with one argument per line.
    if _too_long(wrapper.module.deep_replace(call, made), positions[call]):
        made = _one_argument_per_line(call, projection, _indent_of(source, line))
    module = wrapper.module.deep_replace(call, made)
    assert isinstance(module, cst.Module)
    return module.bytes


def _through(call: cst.Call, projection: str) -> cst.Call:
    import libcst as cst

    comma = cst.Comma(whitespace_after=_gap(call))
    first = [cst.Arg(one, comma=comma) for one in _first(call, projection)]
    return call.with_changes(func=cst.Name(ADAPTER), args=[*first, *call.args])


def _first(call: cst.Call, projection: str) -> tuple[cst.BaseExpression, ...]:
    """The adapter's arguments before those of the kernel."""
    import libcst as cst

    return call.func, cst.parse_expression(projection)


def _gap(call: cst.Call) -> cst.BaseParenthesizableWhitespace:
    """The whitespace between the arguments: a line break if each has its own line."""
    import libcst as cst

    commas = (a.comma for a in call.args if isinstance(a.comma, cst.Comma))
    comma = next(commas, None)
    return cst.SimpleWhitespace(" ") if comma is None else comma.whitespace_after


def _one_argument_per_line(call: cst.Call, projection: str, indent: str) -> cst.Call:
    """The call with one argument per line, as black formats a call that does not
    fit."""
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
        func=cst.Name(ADAPTER),
        args=spread,
        whitespace_before_args=line_break("    "),
    )


def _too_long(module: cst.CSTNode, was: CodeRange) -> bool:
    """Whether a line of the call is too long; it has as many lines as before."""
    import libcst as cst

    assert isinstance(module, cst.Module)
    lines = module.code.splitlines()[was.start.line - 1 : was.end.line]
    return any(len(line) > WIDTH for line in lines)


def _indent_of(source: bytes, line: int) -> str:
    # Not splitlines(): it breaks lines at characters where Python's grammar does not.
    text = source.decode(errors="replace").split("\n")[line - 1]
    return text[: len(text) - len(text.lstrip())]
