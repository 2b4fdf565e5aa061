"""Find an AITER of any release by its Triton modules."""

from __future__ import annotations

from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.trees.tree import REPOSITORY, DirectoryTree, Layout, Tree
from xscale.kernels import UNKNOWN, KernelRow, take_kernels
from xscale.numeric.layout import ScaleLayout
from xscale.sites import FLATTEN, PARAMETER, without_parameter

_KERNELS = "aiter/ops/triton"
_PACKAGE = Layout((("aiter/", ""),))


def aiter_at(path: Path) -> DirectoryTree:
    """A clone, an unpacked source tree, a site-packages or the package's directory.

    Raises InputError for any other path.
    """
    for layout in (REPOSITORY, _PACKAGE):
        if (path / (layout.inside(_KERNELS) or "")).is_dir():
            return DirectoryTree(path.resolve(), layout)
    finding = Finding(
        "no AITER here" if path.is_dir() else "is not a directory",
        path=str(path),
        expected=f"{_KERNELS} below a clone or a site-packages",
        next_step="name the directory that holds the package aiter",
    )
    raise InputError(f"{path} holds no AITER", (finding,))


def flatten_here(tree: Tree) -> KernelRow | None:
    """What an AITER's code does for S8; None if it cannot be read from it."""
    [row] = [row for row in take_kernels(tree) if row.kernel == FLATTEN]
    return None if row.path is None or row.layout == UNKNOWN else row


def lacks_parameter(tree: Tree) -> Finding | None:
    """For an AITER that is not a base: whether it lacks the parameter that the series
    adds."""
    row = flatten_here(tree)
    if row is None or row.layout != ScaleLayout.NO_PARAMETER.value:
        return None
    return Finding(
        f"this AITER's {FLATTEN} has no parameter {PARAMETER}",
        path=row.path,
        line=row.line,
        site="S8",
        expected=f"{PARAMETER}, which the series adds",
        found="no such parameter: SGLang requests a row-major scale, copies it",
        next_step=without_parameter(FLATTEN),
    )
