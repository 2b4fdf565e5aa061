"""Pairs a scale with the consumer that reads it, by following the links between them.

Every link is read in the tree: the module creates the projection from a linear class;
that class passes its input to its quantization method; the method for native block FP8
passes the second element of a pair as ``input_scale``; and the consumer is a function
with a parameter of that name. If a link is missing there is no pair, and the scale is
not judged.
"""

from __future__ import annotations

import ast
import os.path
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from xscale.census.modules import Module, Modules, method_of
from xscale.census.path_records import Use
from xscale.sites import GEMM, NATIVE_LINEAR

SCALE_PARAMETER = "input_scale"
_DEEPEST = 4


@dataclass(frozen=True)
class Consumer:
    """A function that passes a scale to CK's GEMM."""

    path: str
    line: int
    name: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


class Pairing:
    """The consumers of one tree, and which scale each one reads."""

    def __init__(self, modules: Modules, consumers: Collection[Consumer]) -> None:
        self._modules = modules
        self._consumers = consumers
        self._of_names: dict[tuple[str, str], Consumer | None] = {}

    def at(self, path: str, line: int) -> Consumer | None:
        """The consumer at that place."""
        found = (c for c in self._consumers if (c.path, c.line) == (path, line))
        return next(found, None)

    def of(self, use: Use) -> Consumer | None:
        """The consumer that reads the scale of a use; None if it is not found."""
        path = use.at.rpartition(":")[0]
        if use.by == GEMM:
            return next((c for c in self._consumers if c.path == path), None)
        if (path, use.by) not in self._of_names:
            module = self._modules.module(path) if path else None
            found = self._of_projection(module, use.by) if module else None
            self._of_names[path, use.by] = found
        return self._of_names[path, use.by]

    def _of_projection(self, module: Module, name: str) -> Consumer | None:
        makers = module.made(name)
        if not makers or not all(self._is_linear(module, m) for m in makers):
            return None
        near = self._nearest(module.path)
        return near if near and self._native_passes_on(module.path) else None

    def _nearest(self, path: str) -> Consumer | None:
        """A tree may contain several runtimes: take the consumer with the longest
        common path."""
        takers = [c for c in self._consumers if self._takes_scales(c)]
        return max(takers, key=lambda c: _shared(c.path, path), default=None)

    def _takes_scales(self, consumer: Consumer) -> bool:
        module = self._modules.module(consumer.path)
        function = module.functions.get(consumer.name) if module else None
        declared = function.args if function else None
        names = (*declared.args, *declared.kwonlyargs) if declared else ()
        return any(a.arg == SCALE_PARAMETER for a in names)

    def _is_linear(self, module: Module, name: str, depth: int = _DEEPEST) -> bool:
        """Whether a class or a base class computes its result by its quantization
        method."""
        found = self._modules.class_of(module, name) if depth else None
        if found is None:
            return False
        where, node = found
        forward = method_of(node, "forward")
        if forward is not None:
            return any(
                isinstance(n, ast.Attribute)
                and n.attr == "apply"
                and ast.unparse(n.value) == "self.quant_method"
                for n in ast.walk(forward)
            )
        bases = (ast.unparse(base) for base in node.bases)
        return any(self._is_linear(where, base, depth - 1) for base in bases)

    def _native_passes_on(self, near: str) -> bool:
        """Whether the method for native block FP8 passes on the scale of a pair."""
        holding = [path for path, _ in self._modules.holding(f"class {NATIVE_LINEAR}")]
        nearest = max(holding, key=lambda path: _shared(path, near), default=None)
        module = self._modules.module(nearest) if nearest else None
        owner = module.classes.get(NATIVE_LINEAR) if module else None
        apply = method_of(owner, "apply") if owner else None
        if apply is None or len(apply.args.args) < 3:
            return False
        given = apply.args.args[2].arg
        return f"{given}[1]" in set(_passed_as_scale(apply))


def _shared(one: str, other: str) -> int:
    """The length of the path that two files have in common."""
    return len(os.path.commonpath([one, other]))


def _passed_as_scale(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.keyword) and node.arg == SCALE_PARAMETER:
            yield ast.unparse(node.value)
