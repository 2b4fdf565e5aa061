"""Where an AITER of any release lies: told by its Triton modules, not by a pin."""

from __future__ import annotations

from pathlib import Path

from overlaykit.errors import Finding, InputError
from overlaykit.trees import REPOSITORY, DirectoryTree, Layout

_KERNELS = "aiter/ops/triton"
_PACKAGE = Layout((("aiter/", ""),))


def aiter_at(path: Path) -> DirectoryTree:
    """A clone, an unpacked source tree, a site-packages or the package's directory.

    Raises InputError where the path is none of these.
    """
    for layout in (REPOSITORY, _PACKAGE):
        if (path / (layout.inside(_KERNELS) or "")).is_dir():
            return DirectoryTree(path.resolve(), layout)
    finding = Finding(
        "no AITER here" if path.is_dir() else "is no directory",
        path=str(path),
        expected=f"{_KERNELS} below a clone or a site-packages",
        next_step="name the directory that holds the package aiter",
    )
    raise InputError(f"{path} holds no AITER", (finding,))
