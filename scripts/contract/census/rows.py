"""Every call that makes or reads an FP8 activation scale, and in which state it is.

A tree that adopts the transposed scale at some producers and not at others is the
worst there is: it computes with scrambled scales and may still score well enough not
to be noticed (SGLang 27798, 31490). So all calls are looked at, and a call that
nobody foresaw is listed as ``?`` rather than left out.

Calls are found by the kernels' own names, imported under whatever name. A kernel that
one module of the tree renames and another imports from there is not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contract.census.callers import Journey, follow
from contract.census.calls import Reference, manner, references, sites_of
from contract.census.flow import Flow, TooManyPaths
from contract.census.judge import consumer_state, producer_state
from contract.census.liveness import Liveness
from contract.census.modules import FunctionNode, Module, Modules
from contract.sites import (
    CATALOGUE,
    GEMM,
    NATIVE_LINEAR,
    PRODUCERS,
    UNKNOWN_SITE,
    Role,
    State,
    role_of,
)
from overlaykit.errors import CannotApply, Finding
from overlaykit.trees import Tree

_KERNELS = (*PRODUCERS, GEMM)
_SITES = {site.id: site for site in CATALOGUE}
_NAMED = tuple(kernel.encode() for kernel in _KERNELS)
_SEARCHED = (
    f"class {NATIVE_LINEAR}".encode(),
    *{site.feeds.encode() for site in CATALOGUE if site.feeds},
)
"""In the files that may call a producer's function or say what a layer has."""


@dataclass(frozen=True)
class SiteRow:
    """One call, consumer or missing catalogue entry (that has no path and line).

    One site may have several rows, where several calls do what one did, and one call
    a row for each of several sites. ``live`` is whether native block-FP8 layers let
    it run (see :meth:`Liveness.of`); None is what the source does not say.
    """

    site: str
    role: Role
    kernel: str
    path: str | None
    scope: str | None
    line: int | None
    state: State
    detail: str
    live: bool | None = None


@dataclass(frozen=True)
class Census:
    """All rows, in the catalogue's order, then the unforeseen by path and line."""

    tree: str
    rows: tuple[SiteRow, ...]


def take_census(tree: Tree, within: str = "") -> Census:
    """Look at every Python file below ``within`` that mentions one of the kernels."""
    modules = Modules(tree, _KERNELS)
    naming = {
        path: source
        for path in tree.paths()
        if path.startswith(within) and path.endswith(".py")
        for source in [_searched(tree, path, modules)]
        if source is not None
    }
    liveness = Liveness(modules)
    rows = [
        row
        for path, source in naming.items()
        for row in _rows_of(path, source, modules, liveness)
    ]
    found = {row.site for row in rows}
    rows += [
        SiteRow(s.id, s.role, s.kernel, None, s.function, None, State.GONE, s.meaning)
        for s in CATALOGUE
        if s.id not in found
    ]
    order = {site: place for place, site in enumerate(_SITES)}
    rows.sort(key=lambda r: (order.get(r.site, len(order)), r.path or "", r.line or 0))
    return Census(tree.name, tuple(rows))


def _searched(tree: Tree, path: str, modules: Modules) -> bytes | None:
    """The source, if it mentions one of the kernels."""
    try:
        source = tree.read(path) or b""
    except CannotApply:
        return None  # a symbolic link: what it points to, if in the tree, is read there
    if any(text in source for text in _SEARCHED):
        modules.keep(path, source)
    return source if any(_is_said(kernel, source) for kernel in _NAMED) else None


def _is_said(kernel: bytes, source: bytes) -> bool:
    """Whether a text is there, and not on lines of comment only."""
    if kernel not in source:
        return False
    lines = (line for line in source.splitlines() if kernel in line)
    return any(not line.lstrip().startswith(b"#") for line in lines)


def _rows_of(
    path: str, source: bytes, modules: Modules, liveness: Liveness
) -> Iterator[SiteRow]:
    try:
        module = modules.parse(path, source)
    except (SyntaxError, ValueError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        for kernel in _KERNELS:
            if kernel.encode() in source:
                detail = f"the file does not parse: {error}"
                yield _unseen(kernel, path, None, line, detail)
        return
    consumers: set[FunctionNode | None] = set()
    for reference in references(modules, module):
        function = reference.at.function
        if reference.kernel in PRODUCERS:
            yield from _producer_rows(modules, module, reference, liveness)
        elif function is None or function not in consumers:
            consumers.add(function)
            yield _consumer_row(modules, module, reference)


def _unseen(
    kernel: str, path: str, scope: str | None, line: int | None, detail: str
) -> SiteRow:
    role = role_of(kernel)
    return SiteRow(UNKNOWN_SITE, role, kernel, path, scope, line, State.UNKNOWN, detail)


def _producer_rows(
    modules: Modules, module: Module, reference: Reference, liveness: Liveness
) -> Iterator[SiteRow]:
    kernel, call, scope = reference.kernel, reference.at.call, reference.at.scope
    if call is None:
        detail = "kept under another name or handed on: its calls are not seen"
        yield _unseen(kernel, module.path, scope, reference.at.node.lineno, detail)
        return
    try:
        journey = follow(modules, module, reference.at)
    except TooManyPaths:
        journey = Journey(Flow(frozenset(), asked=True), (scope,))
    state, what = producer_state(journey.flow)
    sites = sites_of(
        reference, call, journey.scopes, {use.by for use in journey.flow.uses}
    )
    live, why = liveness.of(module, reference.at)
    details = [manner(modules, module, reference, call), what]
    if len(sites) > 1:
        details.append(f"one call stands for {' and '.join(sites)}")
    detail = "; ".join(filter(None, [*details, why]))
    for site in sites:
        yield SiteRow(
            site,
            Role.PRODUCER,
            kernel,
            module.path,
            scope,
            call.lineno,
            state,
            detail,
            live,
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


_AGAIN = "and the consumer transposes it again: its GEMM reads scrambled scales"
_TOGETHER: Mapping[tuple[State, State], str] = {
    (
        State.ROW_MAJOR,
        State.COPIES_UNMARKED,
    ): "left behind: right, but copied each time",
    (State.ROW_MAJOR, State.ASSUMES): (
        "dangerous mix: the consumer takes it for transposed, its GEMM reads scrambled "
        "scales"
    ),
    (State.UNMARKED, State.ASSUMES): "right only as long as every producer is so",
    (
        State.UNMARKED,
        State.COPIES_UNMARKED,
    ): f"dangerous mix: it is not marked, {_AGAIN}",
    (State.ROW_MAJOR, State.NEEDS_HONEST): (
        "dangerous mix: the Triton GEMM takes it for transposed and reads scrambled "
        "scales"
    ),
    (State.UNMARKED, State.NEEDS_HONEST): (
        f"dangerous mix: its strides do not tell that it is transposed, {_AGAIN}"
    ),
    (State.UNMARKED, State.COPIES_ALL): f"dangerous mix: it is transposed, {_AGAIN}",
}
_NEXT_STEP: Mapping[State, str] = {
    State.ROW_MAJOR: "apply the series' patch for this call: transpose and mark",
    State.COPIED: "apply the series' patch for this call instead of the copy",
    State.UNMARKED: "set the marker on the very tensor that is handed on",
    State.COPIES_ALL: "apply the series' patch for the consumer",
    State.ASSUMES: "apply the series' patch for the consumer",
    State.GONE: "find what took its place upstream, then rebase or drop the site",
    State.MARKED: "guard it by what the pinned layers have",
    State.HONEST: "apply the series' patch for this call, or retire the patch",
    State.NEEDS_HONEST: "give it honest strides from every producer; retire the patch",
    State.UNKNOWN: "read the source; teach contract.judge its form or rewrite it",
}


def check_adopted(census: Census) -> tuple[Finding, ...]:
    """What keeps the tree from having adopted the optimization, wholly and alone.

    Empty iff every site of the catalogue is in the state it should be in, none is
    known to be dead and no call stands outside the catalogue.
    """
    consumers = {r.state for r in census.rows if r.role is Role.CONSUMER}
    return tuple(
        _finding(row, census, consumers)
        for row in census.rows
        if row.site not in _SITES
        or row.state is not _SITES[row.site].expected
        or row.live is False
    )


def _finding(row: SiteRow, census: Census, consumers: set[State]) -> Finding:
    site = _SITES.get(row.site)
    if row.role is Role.CONSUMER:
        dangers = _mixture(row.state, census)
    else:
        # Whether an unforeseen call's scale goes to this consumer is not known.
        pairs = [(row.state, state) for state in State if state in consumers and site]
        dangers = [_TOGETHER[pair] for pair in pairs if pair in _TOGETHER]
    if site is None:
        what = f"unforeseen {row.role.value}"
        expected = "no call outside the catalogue in contract.sites"
        next_step = "show where its scale goes; adopt it and add it to the catalogue"
    else:
        dead = ", dead" if row.live is False else ""
        what = f"{site.id} ({site.meaning}): {row.state.value}{dead}"
        expected, next_step = site.expected.value, _NEXT_STEP[row.state]
        expected += ", live" if dead else ""
    return Finding(
        "; ".join([what, *dangers]),
        path=row.path,
        line=row.line,
        scope=row.scope,
        site=row.site,
        expected=expected,
        found=f"{row.state.value}: {row.detail}",
        next_step=next_step,
    )


def _mixture(consumer: State, census: Census) -> list[str]:
    """What a consumer that treats all scales alike gets wrong."""
    transposed = _sites_in(census, State.MARKED, State.UNMARKED)
    row_major = _sites_in(census, State.ROW_MAJOR)
    if consumer is State.ASSUMES and transposed and row_major:
        return [
            f"dangerous mix: it takes every scale for transposed; {transposed} are, "
            f"{row_major} are row-major"
        ]
    if consumer is State.COPIES_ALL and transposed:
        return [
            f"dangerous mix: it transposes the scales of {transposed} once more, "
            "wrong unless their strides tell of the first time"
        ]
    return []


def _sites_in(census: Census, *states: State) -> str:
    sites = (r.site for r in census.rows if r.state in states and r.site in _SITES)
    return ", ".join(dict.fromkeys(sites))
