"""Quantizers that return given values, and functions that call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch

from xscale.numeric.cases import GROUP

FP8 = torch.float8_e4m3fn
FORMATS = {"dtype_quant": FP8, "group_size": GROUP}
"""The arguments of a call site that the series applies to."""

# Sizes that are, or are not, in upstream's table for Triton's GEMM when exchanged.
SIZES = ((704, 512), (7168, 512), (256, 7168), (512, 7168), (7168, 256))

# All layouts are the same if M or G is 1; decoding has few rows, prefill thousands.
SHAPES = (*product((0, 1, 2, 3, 5), (1, 2, 3)), (130, 48), (4097, 3))

LAYOUTS = ("lying", "honest")
"""The layouts of AITER's transposed scales that a tree must accept."""

PADDED = ("padded rows", "padded columns")
"""Layouts that no GEMM can read without a copy; they must be refused."""


@dataclass
class Quantizer:
    """A stand-in for one of AITER's functions, which records its calls.

    ``row_major`` is (M, G) float32, the truth; ``transposed`` has the values returned
    for ``transpose_scale=True``. ``nested`` selects the form of the RMSNorm's outputs.
    Each call returns new views of the same storage and launches nothing.
    """

    row_major: Any
    transposed: Any = None
    layout: str = "lying"
    nested: bool = True
    takes_flag: bool = True
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        m, groups = self.row_major.shape
        wanted = self.row_major if self.transposed is None else self.transposed
        self.stored = _laid_out(wanted, self.layout)
        self.x = torch.empty(m, groups * GROUP, device="meta")
        row = torch.zeros(1, groups * GROUP, device=self.row_major.device).to(FP8)
        # One row for all, because modules keep quantizers, and there are thousands.
        self.q = row.expand(m, -1)
        self.others = (object(), None, object())
        self.outputs: Any = None

    @property
    def times_transposed(self) -> int:
        return sum("transpose_scale" in kwargs for _, kwargs in self.asked)

    def function(self, name: str = "quant") -> Callable[..., Any]:
        """The quantizer as SGLang imports it: a function with its own name and
        signature."""

        def answer(transpose_scale: bool) -> Any:
            stored = self.stored if transpose_scale else self.row_major
            pair = (self.q, stored.view_as(stored))
            if transpose_scale and self.layout == "lying":
                pair = (self.q, stored.view(self.row_major.shape))
            self.outputs = (pair, *self.others) if self.nested else pair
            return self.outputs

        def new(*args: Any, transpose_scale: bool = False, **kwargs: Any) -> Any:
            extra = {"transpose_scale": True} if transpose_scale else {}
            self.asked.append((args, kwargs | extra))
            return answer(transpose_scale)

        def old(*args: Any, **kwargs: Any) -> Any:
            self.asked.append((args, kwargs))
            if "transpose_scale" in kwargs:
                raise TypeError(f"{name}() has no parameter transpose_scale")
            return answer(False)

        function = new if self.takes_flag else old
        function.__name__ = function.__qualname__ = name
        return function


def _laid_out(values: Any, layout: str) -> Any:
    """Store (M, G) values in a layout; lying ones as (G, M)."""
    m, groups = values.shape
    if layout == "lying":
        return values.t().contiguous()
    rows, columns = {
        "honest": (m, groups),
        "padded columns": (m + 1, groups),
        "padded rows": (m, groups + 1),
    }[layout]
    if layout == "padded rows":
        room = values.new_zeros(rows, columns)[:, :groups]
    else:
        room = values.new_zeros(columns, rows).t()[:m]
    return room.copy_(values)


_CALLERS = """
def {name}(which, function, *args, **kwargs):
    if which:
        return function(*args, **kwargs)
    return function(*args, **kwargs)
"""


def caller(number: int) -> Callable[..., Any]:
    """A function with two calls, selected by its first argument: two new call sites."""
    name = f"layer_{number}"
    names: dict[str, Any] = {}
    text = "\n" * number + _CALLERS.format(name=name)
    exec(compile(text, f"<call site {number}>", "exec"), names)
    made: Callable[..., Any] = names[name]
    return made


def scales(m: int, groups: int, device: str) -> Any:
    """(M, G) float32: positive, finite and all different, so that every order
    differs."""
    count = max(m * groups, 1)
    values = torch.arange(1, count + 1, dtype=torch.float32) / count + 0.25
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    return values[order][: m * groups].view(m, groups).to(device)


def bits(tensor: Any) -> Any:
    """The same storage as integers."""
    return tensor.view(torch.int32)


def same(left: Any, right: Any) -> bool:
    """Whether shape and every bit agree, with any strides."""
    return left.shape == right.shape and bool(torch.equal(bits(left), bits(right)))
