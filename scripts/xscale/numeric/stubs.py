"""Stand-ins for everything that a function of interest imports but is not judged by.

A stub module makes its attributes on demand and remembers what was asked of it. What
the case decides (platform flags, AITER's kernels, collectives) is answered; all else
is an :class:`Anything`: callable, falsy, equal to nothing, empty. So every optional
feature of a tree that the case does not ask for is off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType, TracebackType
from typing import Any

Answer = Callable[[str, str], Any]
"""What a stub module answers, given its name and the attribute's; or raises KeyError.

Raises AttributeError where the attribute must not exist.
"""

Handed = Callable[[str, tuple[Any, ...], dict[str, Any]], None]
"""Told the name of a stub that is called, and the arguments."""

_handed: list[Handed] = []


@contextmanager
def recording_calls(handed: Handed) -> Iterator[None]:
    """Calls of stubs are told to ``handed``: what a stub does in earnest is unknown."""
    _handed.append(handed)
    try:
        yield
    finally:
        _handed.remove(handed)


class _Base:
    """What classes that derive from something unknown derive from."""


class Anything:
    """A value about which nothing is known."""

    def __init__(self, path: str) -> None:
        vars(self)["_path"] = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        child = Anything(f"{self._path}.{name}")
        vars(self)[name] = child
        return child

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # As a decorator, the function itself: bodies are what is wanted.
        if len(args) == 1 and not kwargs and isinstance(args[0], (FunctionType, type)):
            return args[0]
        for handed in _handed:
            handed(self._path, args, kwargs)
        return Anything(f"{self._path}()")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        if any(isinstance(base, type) for base in bases):
            return ()
        # One of its own: a class may derive from several unknown ones.
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
    """A module, and a package, whose attributes come into being when asked for.

    Of the very type of modules, by its own ``__getattr__`` (PEP 562): before PyTorch
    2.13 Dynamo refuses to trace an import of anything derived from it.
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
    """Mixed into a real class: attributes that nobody set are :class:`Anything`."""

    _makes_up: Callable[[str], bool] | None = None
    """If given, which names without an underscore in front are made up at all."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._makes_up is not None and name[0] != "_" and not self._makes_up(name):
            raise AttributeError(name)
        value = Anything(f"self.{name}")
        setattr(self, name, value)
        return value

    # A torch module asks more of its attributes; its constructor has not run.
    __setattr__ = object.__setattr__


def double_of(real: type, **attributes: Any) -> Any:
    """An instance of a real class, without its constructor, with these attributes."""
    instance: Any = object.__new__(type(real.__name__, (Double, real), {}))
    vars(instance).update(attributes)
    return instance
