"""Load selected modules of SGLang from bytes, with stubs for everything else.

While an island is entered, its modules are the ones in ``sys.modules``, also for late
imports; afterwards the previous ones are restored. Sources need not be on disk;
tracebacks and ``inspect`` still show them.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from types import CodeType, ModuleType
from typing import Any

from overlaykit.core.syntax import compiled
from xscale.islands import removed
from xscale.numeric.results import Spot
from xscale.numeric.sources import Sources
from xscale.numeric.stubs import Answer, stub_module

STUBBED = frozenset({"sglang", "aiter", "sgl_kernel"})


class Island:
    """The real modules of ``sources``; ``answer`` provides their imports."""

    def __init__(
        self, sources: Sources, answer: Answer, environ: Mapping[str, str | None]
    ) -> None:
        self.sources = sources
        self.asked: set[str] = set()
        self._environ = environ
        self._families = STUBBED | {n for n in sources.foreign if not _importable(n)}
        self._modules: dict[str, ModuleType] = {}
        self._finder = _Finder(sources, answer, self._families, self.asked)

    @contextmanager
    def entered(self) -> Iterator[Island]:
        """Use the island's modules and environment in this process."""
        before = removed(self._families)
        _forget_lines(f"{self.sources.tree}/")
        environ = {name: os.environ.get(name) for name in self._environ}
        sys.modules.update(self._modules)
        sys.meta_path.insert(0, self._finder)
        _set_environ(self._environ)
        try:
            yield self
        finally:
            _set_environ(environ)
            sys.meta_path.remove(self._finder)
            self._modules = removed(self._families)
            sys.modules.update(before)

    def definition(self, name: str) -> Any:
        """The function of that name in its module. Only while entered."""
        place = self.sources.places[name]
        return _within(importlib.import_module(place.module), place.name)

    def owner(self, name: str) -> Any:
        """The class that the function is in. Only while entered."""
        place = self.sources.places[name]
        return _within(importlib.import_module(place.module), place.owner)

    def has(self, *names: str) -> bool:
        """Whether the tree defines all of them in the expected places."""
        return all(name in self.sources.places for name in names)

    def stubs(self, package: str) -> bool:
        """Whether a top-level package is not installed, so that all of it is stubs."""
        return package in self._families

    def module(self, name: str) -> ModuleType:
        """The module that the function is in. Only while entered."""
        return importlib.import_module(self.sources.places[name].module)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(
        self,
        sources: Sources,
        answer: Answer,
        families: frozenset[str] | set[str],
        asked: set[str],
    ) -> None:
        self._sources, self._answer = sources, answer
        self._families, self._asked = families, asked

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self._families:
            return None
        if found := self._sources.modules.get(fullname):
            loader = _Loader(f"{self._sources.tree}/{found[0]}", found[1])
            package = found[0].endswith("/__init__.py")
            spec = importlib.util.spec_from_loader(
                fullname, loader, is_package=package, origin=loader.path
            )
            if spec is not None:
                spec.has_location = True  # Some modules read their __file__.
            return spec
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return stub_module(spec.name, self._answer, self._real, self._asked)

    def exec_module(self, module: ModuleType) -> None:
        return

    def _real(self, name: str) -> ModuleType | None:
        known = name in self._sources.modules
        return importlib.import_module(name) if known else None


class _Loader(importlib.abc.InspectLoader):
    """Loads source from memory. ``path`` is its name in tracebacks."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self._data = path, data

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._data)

    def get_code(self, fullname: str) -> CodeType:
        return _compiled(self._data, self.path)

    def is_package(self, fullname: str) -> bool:
        return self.path.endswith("/__init__.py")


@lru_cache(maxsize=512)
def _compiled(data: bytes, path: str) -> CodeType:
    return compiled(data, path)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Disable ``torch.compile``, for classes that compile their methods on
    definition."""
    import torch

    before = torch.compile
    torch.compile = lambda *args, **_: args[0] if args else lambda function: function
    try:
        yield
    finally:
        torch.compile = before


def described(error: Exception, sources: Sources) -> str:
    """The error, and the innermost line of the tree's own code in its traceback."""
    text = f"{type(error).__name__}: {error}"
    spot = spot_of(error, sources)
    return f"{text} ({spot})" if spot is not None else text


def spot_of(error: Exception, sources: Sources) -> Spot | None:
    """The innermost line of the tree's own code in the error's traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    spots = (_spot(f.filename, f.lineno or 0, f.name, sources) for f in frames)
    own = [spot for spot in spots if spot is not None]
    if len(own) > 1:
        return replace(own[-1], caller=f"{own[-2].path}:{own[-2].line}")
    return own[-1] if own else None


def spot_of_function(function: Any, sources: Sources) -> Spot | None:
    """The first line of a function of the tree."""
    real = inspect.unwrap(function)
    code = real.__code__
    return _spot(code.co_filename, code.co_firstlineno, real.__qualname__, sources)


def _spot(file: str, line: int, function: str, sources: Sources) -> Spot | None:
    prefix = f"{sources.tree}/"
    if not file.startswith(prefix):
        return None
    return Spot(file.removeprefix(prefix), line, function)


def _forget_lines(prefix: str) -> None:
    """Drop the lines that ``inspect`` would show. They have no file, so Python never
    checks them, and another tree of the same name may have been here before."""
    for name in [name for name in linecache.cache if name.startswith(prefix)]:
        del linecache.cache[name]


def _within(module: Any, dotted: str) -> Any:
    for part in filter(None, dotted.split(".")):
        module = getattr(module, part)
    return module


def _importable(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _set_environ(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
