"""Follows a scale that a function returns on into the functions that call it.

Only calls of plain functions are followed: whom a method's name means, the source
does not say. A function that is handed on as a value returns to nobody knows whom.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xscale.census.flow import CALLER, Flow, follow_call
from xscale.census.interpreter import use_of
from xscale.census.modules import (
    Function,
    FunctionNode,
    Imported,
    Module,
    Modules,
    Place,
)
from xscale.census.values import Value, scales_in

_MOST_HOPS = 3

HANDED = "whoever is given its function"


@dataclass(frozen=True)
class Journey:
    """What becomes of a scale, and the scopes that it was followed through."""

    flow: Flow
    scopes: tuple[str, ...]


def follow(
    modules: Modules,
    module: Module,
    place: Place,
    result: Value | None = None,
    hops: int = _MOST_HOPS,
) -> Journey:
    """From the call at ``place`` to the uses of its scale, its callers' included.

    ``result`` is what the call returns, where it is no kernel's. A use stays the
    caller's where no caller is seen. Raises TooManyPaths.
    """
    function, call = place.function, place.call
    if call is None:
        return Journey(Flow(frozenset(), asked=True), (place.scope,))
    flow = follow_call(modules, module, function, call, result)
    named = list(_named(modules, module, function)) if flow.returned and hops else []
    if not named:
        return Journey(flow, (place.scope,))
    onward = [
        follow(modules, where, at, value, hops - 1)
        for where, at in named
        for value in flow.returned
        if _is_call(at)
    ]
    uses = {use for use in flow.uses if use.by != CALLER}
    uses |= {use for journey in onward for use in journey.flow.uses}
    uses |= {
        use_of(HANDED, scale, f"{where.path}:{at.node.lineno}")
        for where, at in named
        for scale in scales_in(flow.returned)
        if not _is_call(at)
    }
    scopes = [place.scope, *(s for journey in onward for s in journey.scopes)]
    return Journey(Flow(frozenset(uses), flow.asked), tuple(dict.fromkeys(scopes)))


def _is_call(place: Place) -> bool:
    """Whether the name is called there, rather than handed on as a value."""
    return place.call is not None and place.call.func is place.node


def _named(
    modules: Modules, home: Module, function: FunctionNode | None
) -> Iterator[tuple[Module, Place]]:
    """Where it is called or handed on, in its own module and, unless it is private, in
    those searched."""
    if function is None or home.functions.get(function.name) is not function:
        return
    name = function.name
    others = () if name.startswith("_") else modules.holding(name)
    for path in dict.fromkeys([home.path, *(path for path, _ in others)]):
        module = modules.module(path)
        if module is None:
            continue
        for place in module.reads.get(name, ()):
            meaning = modules.stands_for(module, place.node)
            if isinstance(meaning, Imported):
                meaning = modules.resolve(meaning)
            if isinstance(meaning, Function) and meaning.node is function:
                yield module, place
