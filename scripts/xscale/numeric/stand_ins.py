"""Stand-ins for packages that AITER imports besides Triton, if they are not installed.

Since v0.1.13 AITER gets the GPU's architecture from JAX if Triton knows none, and
compares Triton's version with ``packaging``. Both happen on import, in modules that the
fused quantizations import but do not use. The interpreter has no architecture. A
stand-in has only those few names, never replaces a module that can be imported, and is
named in the report.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import total_ordering
from types import ModuleType, SimpleNamespace
from typing import Any

NO_ARCHITECTURE = "interpreted"


@total_ordering
class _Version:
    """The release numbers of a version; only they are compared."""

    def __init__(self, text: str) -> None:
        found = re.match(r"v?(\d+(?:\.\d+)*)", text)
        if found is None:
            raise ValueError(f"not a version: {text!r}")
        numbers = [int(part) for part in found[1].split(".")]
        while numbers and not numbers[-1]:
            numbers.pop()
        self._numbers = tuple(numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Version) and self._numbers == other._numbers

    def __lt__(self, other: _Version) -> bool:
        return self._numbers < other._numbers

    def __hash__(self) -> int:
        return hash(self._numbers)


def _jax() -> dict[str, Any]:
    return {
        "gpu_triton": SimpleNamespace(get_arch_details=lambda _: NO_ARCHITECTURE),
    }


_HOLDS: dict[str, Callable[[], dict[str, Any]]] = {
    "jax": dict,
    "jax._src": dict,
    "jax._src.lib": _jax,
    "packaging": dict,
    "packaging.version": lambda: {"Version": _Version},
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last finder: installed packages are found before it is reached."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        family = fullname.partition(".")[0]
        # Never replace a part of an installed package.
        if fullname not in _HOLDS or (fullname != family and family not in self.used):
            return None
        self.used.add(family)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        vars(module).update(_HOLDS[spec.name]())
        return module

    def exec_module(self, module: ModuleType) -> None:
        return


@contextmanager
def stand_ins() -> Iterator[set[str]]:
    """Yields the set of packages that have a stand-in; it is filled on import. On exit
    the stand-ins are removed, so that no other code takes one for the real package."""
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield finder.used
    finally:
        sys.meta_path.remove(finder)
        for name in list(sys.modules):
            if name.partition(".")[0] in finder.used:
                del sys.modules[name]
