"""Stubs for everything that a function imports and that is not judged.

A stub module creates its attributes on demand and records their names. Attributes that
the case defines (platform flags, AITER's kernels, collectives) get a value; all others
are an :class:`Anything`: callable, falsy, equal to nothing, empty. So every optional
feature of a tree is off unless the case enables it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType, TracebackType
from typing import Any

Answer = Callable[[str, str], Any]
"""Returns a stub module's attribute, given both names; raises KeyError if unknown.

Raises AttributeError if the attribute must not exist.
"""

CallObserver = Callable[[str, tuple[Any, ...], dict[str, Any]], None]
"""Receives the name of a called stub, and the arguments."""

_observers: list[CallObserver] = []


@contextmanager
def recording_calls(observer: CallObserver) -> Iterator[None]:
    """Report calls of stubs to ``observer``, because the real function's effects are
    unknown."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


class _Base:
    """Base class of classes with an unknown base."""


class Anything:
    """An unknown value."""

    def __init__(self, path: str) -> None:
        vars(self)["_path"] = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        child = Anything(f"{self._path}.{name}")
        vars(self)[name] = child
        return child

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # As a decorator, return the function itself: its body is needed.
        if len(args) == 1 and not kwargs and isinstance(args[0], (FunctionType, type)):
            return args[0]
        for observer in _observers:
            observer(self._path, args, kwargs)
        return Anything(f"{self._path}()")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        if any(isinstance(base, type) for base in bases):
            return ()
        # A separate class each time: a class may have several unknown bases.
        return (type(self._path.rpartition(".")[2], (_Base,), {}),)

    def __instancecheck__(self, instance: object) -> bool:
        return False

    def __getitem__(self, key: object) -> Any:
        return Anything(f"{self._path}[]")

    def __setitem__(self, key: object, value: object) -> None:
        return

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return False

    def __index__(self) -> int:
        return 0

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def __lt__(self, other: object) -> bool:
        return False

    __le__ = __gt__ = __ge__ = __contains__ = __lt__

    def __or__(self, other: object) -> Any:
        return self

    __ror__ = __or__

    def __repr__(self) -> str:
        return f"<stub {self._path}>"


def stub_module(
    name: str,
    answer: Answer,
    real: Callable[[str], ModuleType | None],
    asked: set[str],
) -> ModuleType:
    """A module that is also a package and creates its attributes on demand.

    It is a plain module with its own ``__getattr__`` (PEP 562): before PyTorch 2.13,
    Dynamo refuses to trace an import of a subclass.
    """
    module = ModuleType(name)

    def attribute(of: str) -> Any:
        if of.startswith("__"):
            raise AttributeError(of)
        full = f"{name}.{of}"
        value: Any = real(full)
        if value is None:
            asked.add(full)
            try:
                value = answer(name, of)
            except KeyError:
                value = Anything(full)
        setattr(module, of, value)
        return value

    vars(module).update(__path__=[], __getattr__=attribute)
    return module


class Double:
    """Mixin for a real class: attributes that are not set are :class:`Anything`."""

    _makes_up: Callable[[str], bool] | None = None
    """If given, selects the names without a leading underscore that are created."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._makes_up is not None and name[0] != "_" and not self._makes_up(name):
            raise AttributeError(name)
        value = Anything(f"self.{name}")
        setattr(self, name, value)
        return value

    # A torch module checks its attributes; its constructor has not run.
    __setattr__ = object.__setattr__


def double_of(real: type, **attributes: Any) -> Any:
    """An instance of a real class with these attributes; its constructor is not run."""
    instance: Any = object.__new__(type(real.__name__, (Double, real), {}))
    vars(instance).update(attributes)
    return instance
