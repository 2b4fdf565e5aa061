"""Every call that makes or reads an FP8 activation scale, and in which state it is.

The worst tree adopts the transposed scale at some producers and not at others: it
computes with scrambled scales and may still score well enough to go unnoticed (SGLang
27798, 31490). So every call is examined, and a call outside the catalogue is listed as
``?`` instead of being left out.

Calls are found by the kernels' own names, under any import alias, and by the parameter
that selects the layout. A kernel is not found if one module of the tree renames it and
another imports the new name. A per-token scale has one layout only and is not a block
scale. Values that a block-FP8 linear quantizes itself are part of C; they get a
separate row unless its GEMM is seen to read them correctly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from overlaykit.trees.search import files_with
from overlaykit.trees.tree import Tree
from xscale.census.callers import Journey, follow
from xscale.census.calls import Reference, describe_call, references, sites_of
from xscale.census.flow import Flow, TooManyPaths, follow_within
from xscale.census.judge import consumer_state, own_state, producer_state
from xscale.census.modules import FunctionNode, Module, Modules
from xscale.census.pairing import Consumer, Pairing
from xscale.census.path_records import Use
from xscale.sites import (
    CATALOGUE,
    GEMM,
    NATIVE_LINEAR,
    PARAMETER,
    QUANTIZATIONS,
    UNKNOWN_SITE,
    Role,
    SiteState,
    role_of,
)

_KERNELS = (*QUANTIZATIONS, GEMM)
_SITES = {site.id: site for site in CATALOGUE}
_NAMED = tuple(name.encode() for name in (*_KERNELS, PARAMETER))
_SEARCHED = (
    f"class {NATIVE_LINEAR}".encode(),
    *{site.feeds.encode() for site in CATALOGUE if site.feeds},
)
"""Texts in files that may call a producer's function or define a layer's attributes."""


@dataclass(frozen=True)
class SiteRow:
    """One call, consumer or missing catalogue entry (without path and line).

    A site has several rows if several calls replace one, and a call has several rows if
    it covers several sites. ``live`` says whether the tree's code called the kernel
    when it was run (see :func:`xscale.liveness.with_lives`); None if it was not run.

    A call outside the catalogue has one row per ``consumer`` (path and line) that reads
    its scale, and one without a consumer for uses that could not be paired. Sites of
    the catalogue belong to C by definition.
    """

    site: str
    role: Role
    kernel: str
    path: str | None
    scope: str | None
    line: int | None
    state: SiteState
    detail: str
    live: bool | None = None
    consumer: str | None = None


@dataclass(frozen=True)
class Census:
    """All rows in the catalogue's order, then the calls outside it by path and line."""

    tree: str
    rows: tuple[SiteRow, ...]


def take_census(tree: Tree, within: str = "") -> Census:
    """Examine every Python file below ``within`` that mentions one of the kernels."""
    return census_of(tree, files_of(tree, within))


def files_of(tree: Tree, within: str) -> dict[str, bytes]:
    """The files that a census starts from, by path."""
    return dict(files_with(tree, within, (*_NAMED, *_SEARCHED)))


def census_of(tree: Tree, files: Mapping[str, bytes]) -> Census:
    """Examine these files, and what they import from the tree."""
    modules = Modules(tree, _KERNELS)
    naming: dict[str, bytes] = {}
    for path, source in files.items():
        names, is_searched = _contents(source)
        if is_searched:
            modules.keep(path, source)
        if names:
            naming[path] = source
    found_in = [
        (module, list(references(modules, module)))
        for path, source in naming.items()
        for module in [_parsed(path, source, modules)]
        if isinstance(module, Module)
    ]
    rows = [
        row
        for path, source in naming.items()
        for row in _unreadable(path, source, modules)
    ]
    consumers = [c for m, found in found_in for c in _consumer_rows(modules, m, found)]
    pairing = Pairing(
        modules,
        [
            Consumer(row.path, row.line, (row.scope or "").rpartition(".")[2])
            for row in consumers
            if row.path and row.line and row.site in _SITES
        ],
    )
    rows += consumers
    rows += [
        row
        for module, found in found_in
        for reference in found
        if reference.is_producer
        for row in _producer_rows(modules, module, reference, pairing)
    ]
    found = {row.site for row in rows}
    rows += [
        SiteRow(
            s.id, s.role, s.kernel, None, s.function, None, SiteState.GONE, s.meaning
        )
        for s in CATALOGUE
        if s.id not in found
    ]
    order = {site: place for place, site in enumerate(_SITES)}
    rows.sort(
        key=lambda r: (
            order.get(r.site, len(order)),
            r.path or "",
            r.line or 0,
            r.consumer is None,
            r.consumer or "",
        )
    )
    return Census(tree.name, tuple(rows))


@lru_cache(maxsize=1024)
def _contents(source: bytes) -> tuple[bool, bool]:
    """Whether a file mentions one of the kernels, and whether it is one of those that
    are searched."""
    return (
        any(_is_mentioned(kernel, source) for kernel in _NAMED),
        any(text in source for text in _SEARCHED),
    )


def _is_mentioned(kernel: bytes, source: bytes) -> bool:
    """Whether the source contains a text outside comment lines."""
    if kernel not in source:
        return False
    lines = (line for line in source.splitlines() if kernel in line)
    return any(not line.lstrip().startswith(b"#") for line in lines)


def _parsed(path: str, source: bytes, modules: Modules) -> Module | Exception:
    try:
        return modules.parse(path, source)
    except (SyntaxError, ValueError) as error:
        return error


def _unreadable(path: str, source: bytes, modules: Modules) -> Iterator[SiteRow]:
    error = _parsed(path, source, modules)
    if isinstance(error, Exception):
        line = error.lineno if isinstance(error, SyntaxError) else None
        for kernel in _KERNELS:
            if kernel.encode() in source:
                detail = f"the file does not parse: {error}"
                yield _unseen(kernel, path, None, line, detail)


def _consumer_rows(
    modules: Modules, module: Module, found: Collection[Reference]
) -> Iterator[SiteRow]:
    """A row for each function that mentions CK's GEMM."""
    consumers: set[FunctionNode | None] = set()
    for reference in found:
        function = reference.at.function
        if not reference.is_producer and (
            function is None or function not in consumers
        ):
            consumers.add(function)
            yield _consumer_row(modules, module, reference)


def _unseen(
    kernel: str, path: str, scope: str | None, line: int | None, detail: str
) -> SiteRow:
    role = role_of(kernel)
    return SiteRow(
        UNKNOWN_SITE, role, kernel, path, scope, line, SiteState.UNKNOWN, detail
    )


def _producer_rows(
    modules: Modules,
    module: Module,
    reference: Reference,
    pairing: Pairing,
) -> Iterator[SiteRow]:
    kernel, call, scope = reference.kernel, reference.at.call, reference.at.scope
    if call is None:
        detail = "kept under another name or handed on: its calls are not seen"
        yield _unseen(kernel, module.path, scope, reference.at.node.lineno, detail)
        return
    function = reference.at.function
    own = pairing.at(module.path, function.lineno) if function else None
    if own is not None and function is not None:
        yield from _own_rows(modules, module, reference, own, function)
        return
    try:
        journey = follow(modules, module, reference.at)
    except TooManyPaths:
        journey = Journey(Flow(frozenset(), asked=True), (scope,))
    flow = journey.flow
    state, what = producer_state(flow)
    sites = sites_of(reference, call, journey.scopes, {use.by for use in flow.uses})
    how = describe_call(modules, module, reference, call)
    row = SiteRow(
        UNKNOWN_SITE,
        Role.PRODUCER,
        kernel,
        module.path,
        scope,
        call.lineno,
        state,
        f"{how}; {what}",
    )
    if sites == [UNKNOWN_SITE]:
        yield from _paired_rows(row, how, flow, pairing)
        return
    details = [how, what]
    if len(sites) > 1:
        details.append(f"one call stands for {' and '.join(sites)}")
    detail = "; ".join(details)
    for site in sites:
        yield replace(row, site=site, detail=detail)


def _own_rows(
    modules: Modules,
    module: Module,
    reference: Reference,
    own: Consumer,
    function: FunctionNode,
) -> Iterator[SiteRow]:
    """A row for a scale that a function makes for its own GEMM, unless it is right."""
    call = reference.at.call
    assert call is not None
    try:
        state, what = own_state(follow_within(modules, module, function, call))
    except TooManyPaths:
        state, what = SiteState.UNKNOWN, "branches too often to be followed"
    if state is not None:
        yield SiteRow(
            UNKNOWN_SITE,
            Role.PRODUCER,
            reference.kernel,
            module.path,
            reference.at.scope,
            call.lineno,
            state,
            f"{describe_call(modules, module, reference, call)}; {what}",
            consumer=own.place,
        )


def _paired_rows(
    row: SiteRow, how: str, flow: Flow, pairing: Pairing
) -> Iterator[SiteRow]:
    """A row for each consumer that reads the scale, and one for unpaired uses."""
    found: dict[Consumer | None, list[Use]] = {}
    for use in flow.uses:
        found.setdefault(pairing.of(use), []).append(use)
    for consumer, uses in found.items():
        state, what = producer_state(Flow(frozenset(uses), flow.asked))
        detail = f"{how}; {what}; handed to {_places(uses)}"
        place = consumer.place if consumer else None
        yield replace(row, state=state, detail=detail, consumer=place)
    if not found:
        yield row


def _places(uses: Collection[Use]) -> str:
    """``wq_a, wq_b (path:1, 2)``, each file once."""
    files: dict[str, tuple[set[str], set[int]]] = {}
    for use in uses:
        path, _, line = use.at.rpartition(":")
        names, lines = files.setdefault(path, (set(), set()))
        names.add(use.by)
        lines.add(int(line))
    return "; ".join(
        f"{', '.join(sorted(names))} ({path}:{', '.join(map(str, sorted(lines)))})"
        for path, (names, lines) in sorted(files.items())
    )


def _consumer_row(modules: Modules, module: Module, reference: Reference) -> SiteRow:
    """The function that mentions CK's GEMM."""
    path, scope, function = module.path, reference.at.scope, reference.at.function
    if function is None:
        detail = "kept under another name: its calls are not seen"
        return _unseen(GEMM, path, scope, reference.at.node.lineno, detail)
    state, detail = consumer_state(modules, module, function)
    line = function.lineno
    return SiteRow("C", Role.CONSUMER, GEMM, path, scope, line, state, detail)
