"""Follows a returned scale into the calling functions.

Only calls of plain functions are followed, because the source does not determine which
method a name means. The callers of a function that is passed as a value are unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xscale.census.flow import CALLER, Flow, follow_call
from xscale.census.modules import (
    FunctionNode,
    Module,
    Modules,
    Place,
)
from xscale.census.path_records import use_of
from xscale.census.values import Value, scales_in

_MOST_HOPS = 3

HANDED = "whoever is given its function"


@dataclass(frozen=True)
class Journey:
    """The flow of a scale, and the scopes that it was followed through."""

    flow: Flow
    scopes: tuple[str, ...]


def follow(
    modules: Modules,
    module: Module,
    place: Place,
    result: Value | None = None,
    hops: int = _MOST_HOPS,
) -> Journey:
    """Follow the scale of the call at ``place`` to its uses, in callers as well.

    ``result`` is what the call returns if it is not a kernel. If no caller is found,
    the use is attributed to "its caller". Raises TooManyPaths.
    """
    function, call = place.function, place.call
    if call is None:
        return Journey(Flow(frozenset(), asked=True), (place.scope,))
    flow = follow_call(modules, module, function, call, result)
    named = (
        list(_references_to(modules, module, function))
        if flow.returned and hops
        else []
    )
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
    """Whether the name is called there, not passed as a value."""
    return place.call is not None and place.call.func is place.node


def _references_to(
    modules: Modules, home: Module, function: FunctionNode | None
) -> Iterator[tuple[Module, Place]]:
    """Where the function is called or passed as a value: in its own module and, unless
    it is private, in all searched modules."""
    if function is None or home.functions.get(function.name) is not function:
        return
    name = function.name
    others = () if name.startswith("_") else modules.holding(name)
    for path in dict.fromkeys([home.path, *(path for path, _ in others)]):
        module = modules.module(path)
        if module is None:
            continue
        for place in module.reads.get(name, ()):
            found = modules.function_of(module, place.node)
            if found is not None and found.node is function:
                yield module, place
