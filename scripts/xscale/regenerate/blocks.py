"""Edits of statements in one block: the consumer's copy and the gather's loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xscale.regenerate.names import TO_GEMM

if TYPE_CHECKING:
    import libcst as cst

_GATHERED = "The gather moves raw bytes; a pre-transposed scale is strided."
_Edit = Callable[[Sequence["cst.BaseStatement"]], "list[cst.BaseStatement] | None"]


def pass_to_gemm(source: bytes, scope: str) -> bytes | None:
    """Replace the consumer's copy by ``x_scale_for_gemm``. The copy is an assignment of
    the scale, followed by a transposition unless the scale is for Triton's GEMM."""
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
                f"{name} = {TO_GEMM}({given}, bpreshuffle={triton})\n"
            ).body
            assert isinstance(written, cst.SimpleStatementLine)
            written = written.with_changes(leading_lines=before.leading_lines)
            return [*out[: at - 1], written, *out[at + 1 :]]
        return None

    return _edit_blocks(source, scope, edit)


def make_contiguous(source: bytes, scope: str) -> bytes | None:
    """Make each tensor of a tuple contiguous, in the loop that gathers them."""
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


def _edit_blocks(source: bytes, scope: str, edit: _Edit) -> bytes | None:
    """Apply an edit to a scope; None unless it fits exactly one block."""
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
