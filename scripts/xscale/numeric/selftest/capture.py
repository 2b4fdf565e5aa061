"""Check mode during graph capture: it must not add any operation.

On a GPU a graph is really captured. On a CPU PyTorch is patched to report a capture,
and operations that wait for a value are refused, as a capture refuses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xscale.numeric.selftest.checking import raises
from xscale.numeric.selftest.quantizers import (
    FORMATS,
    LAYOUTS,
    Quantizer,
    bits,
    scales,
)
from xscale.numeric.selftest.subject import Subject, Wrong, describe, logged

_WAITS = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero",
          "aten::equal", "aten::nonzero", "aten::allclose")  # fmt: skip


class _Captured(TorchDispatchMode):  # type: ignore[misc]
    """Records the operations that would go into the graph (all except views) and
    refuses those that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        if name in _WAITS:
            raise RuntimeError(f"{name}: not permitted when stream is capturing")
        if not func.is_view:
            self.ran.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def capturing(device: str) -> Iterator[_Captured]:
    """Capture a graph, or pretend to on a CPU."""
    with ExitStack() as stack:
        if device == "cpu":
            for owner, name in (
                (torch.cuda, "is_initialized"),
                (torch.cuda, "is_available"),
                (torch.cuda, "is_current_stream_capturing"),
                (torch.cuda.graphs, "_cuda_isCurrentStreamCapturing"),
            ):
                stack.enter_context(mock.patch.object(owner, name, lambda: True))
        else:
            something = torch.zeros(1, device=device)
            torch.cuda.synchronize()
            stack.enter_context(torch.cuda.graph(torch.cuda.CUDAGraph()))
            something.add_(1)
        yield stack.enter_context(_Captured())


def capture(subject: Subject) -> Iterator[Wrong]:
    """Scales made before, during and after a capture."""
    with logged() as warnings:
        for layout, bpreshuffle in product(LAYOUTS, (True, False)):
            yield from _captured(subject, layout, bpreshuffle)
    if len(warnings) != 1:
        yield Wrong(
            "check mode does not warn once that captured graphs are not checked",
            "one warning that names the switch",
            f"{len(warnings)} warnings",
        )


def _captured(subject: Subject, layout: str, bpreshuffle: bool) -> Iterator[Wrong]:
    device = subject.device
    before, within = _wrong(device, layout), _wrong(device, layout)
    made_before = subject.produce(before, None, **FORMATS)[0][1]
    error: Exception | None = None
    with capturing(device) as graph:
        # An error must not leave a real capture, because that would raise another one.
        try:
            made_within = subject.produce(within, None, **FORMATS)[0][1]
            subject.for_gemm(made_within, bpreshuffle)
            subject.for_gemm(made_before, bpreshuffle)
        except Exception as raised:
            error = raised
        ran = list(graph.ran)
    if error is not None:
        yield Wrong("check mode raises in graph capture", "no error", describe(error))
    elif ran or len(within.asked) != 1:
        yield Wrong(
            "check mode adds to a captured graph",
            "one quantization, and views of its scale",
            f"{len(within.asked)} quantizations, {', '.join(ran) or 'no operation'}",
        )
    yield from raises(
        subject, _wrong(device, layout), bpreshuffle, "one after a capture"
    )


def _wrong(device: str, layout: str) -> Quantizer:
    truth = scales(3, 2, device)
    stored = truth.clone()
    bits(stored)[1, 1] ^= 1
    return Quantizer(truth, stored, layout)
