"""Run a tree with a dead guard shut and open, and compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from overlaykit.core.errors import Finding, InputError, InvalidEvidence
from overlaykit.core.versions import stated_version
from overlaykit.trees.tree import Tree
from xscale.audit.faults import Fault, NotJudged, faults_of, merged
from xscale.audit.guards import ALL, DeadGuard, chosen, dead_guards
from xscale.audit.opening import opened
from xscale.liveness import NATIVE_BLOCK_FP8, Life, LiveState, probe
from xscale.numeric.cases import BPRESHUFFLE, GROUP, TRITON, Case
from xscale.numeric.client import Progress
from xscale.numeric.formats import FORMATS, Format
from xscale.numeric.results import CaseResult
from xscale.numeric.situations import BEHIND_MODULES, behind_cases

_CASES: tuple[Case, ...] = (*BPRESHUFFLE, *TRITON, *behind_cases())
_BLOCKS = [GROUP, GROUP]
_SGLANG, _AITER = "python/sglang/_version.py", "aiter/_version.py"


@dataclass(frozen=True)
class Audit:
    """``guards`` were opened and ``shut`` were not; without a dead guard, nothing was
    opened. ``before`` and ``after`` are the states of the sites, and ``revived`` those
    that the opening made live. ``sglang`` and ``aiter`` are versions or names."""

    sglang: str
    aiter: str
    format: str
    guards: tuple[DeadGuard, ...]
    shut: tuple[DeadGuard, ...]
    before: tuple[LiveState, ...]
    after: tuple[LiveState, ...]
    revived: tuple[str, ...]
    faults: tuple[Fault, ...]
    not_judged: tuple[NotJudged, ...]
    cases: int
    device: str


class Run(Protocol):
    """Runs cases on a tree, as :meth:`xscale.numeric.Pool.run` does."""

    def __call__(
        self,
        tree: Tree,
        aiter: Tree,
        cases: Iterable[Case],
        pristine: Tree | None,
        progress: Progress,
        also: Iterable[str],
    ) -> tuple[CaseResult, ...]: ...


def audit(
    tree: Tree, aiter: Tree, name: str, run: Run, device: str, progress: Progress
) -> Audit:
    """Open the guards of this name. ``device`` says what ``run`` runs on.

    Raises InputError if none has it or none can be opened, and InvalidEvidence if it is
    unknown whether one is dead."""
    form = NATIVE_BLOCK_FP8
    before = probe(tree, aiter, form)
    guards = dead_guards(before)
    about = (_version(tree, _SGLANG), _version(aiter, _AITER), str(form))
    if not guards:
        states = tuple(before.values())
        _require_live(states)
        return Audit(*about, (), (), states, states, (), (), (), 0, device)
    open_now = chosen(guards, name)
    changed = opened(tree, open_now)
    after = probe(changed, aiter, form)
    # Behind one guard there may be another.
    while name == ALL and (more := _others(dead_guards(after), open_now)):
        open_now += chosen(more, name)
        changed = opened(tree, open_now)
        after = probe(changed, aiter, form)

    def outcomes(of: Tree) -> tuple[CaseResult, ...]:
        # Values are not compared: a fused kernel rounds in other places.
        return run(of, aiter, _CASES, None, progress, BEHIND_MODULES)

    faults, not_judged = faults_of(outcomes(tree), outcomes(changed))
    faults += tuple(_other_formats(tree, changed, aiter, open_now))
    return Audit(
        *about,
        open_now,
        _others(guards, open_now),
        tuple(before.values()),
        tuple(after.values()),
        tuple(
            site
            for site, state in after.items()
            if state.state is Life.LIVE and before[site].state is Life.DEAD
        ),
        merged(faults),
        not_judged,
        len(_CASES),
        device,
    )


def _version(tree: Tree, path: str) -> str:
    """What its own file states, or the end of its name: a path is nobody's business."""
    stated = stated_version((tree.read(path) or b"").decode(errors="replace"))
    return stated or PurePath(tree.name).name


def _require_live(states: Iterable[LiveState]) -> None:
    """Without a guard that could be opened, every site must run."""
    states = tuple(states)
    for life, kind, what in (
        (Life.NOT_RUN, InvalidEvidence, "it is unknown whether a guard is dead"),
        (Life.DEAD, InputError, "no dead guard can be opened"),
    ):
        findings = tuple(
            Finding(one.reason, path=one.path, line=one.line, site=one.site)
            for one in states
            if one.state is life
        )
        if findings:
            raise kind(what, findings)


def _other_formats(
    tree: Tree, changed: Tree, aiter: Tree, guards: tuple[DeadGuard, ...]
) -> Iterator[Fault]:
    """A fault for each format of other groups that the guards let through as well."""
    for form in FORMATS:
        if form.config.get("weight_block_size") == _BLOCKS:
            continue
        live = _live(changed, aiter, form)
        was = _live(tree, aiter, form) if live else ()
        for guard in guards:
            new = tuple(s for s in guard.sites if s in live and s not in was)
            if new:
                yield Fault(
                    f"opens for {form} as well",
                    guard.path,
                    guard.line,
                    guard.name,
                    new,
                    (f"liveness; {form}",),
                    f"its linears are handed (fp8, scale) in groups of {GROUP}",
                )


def _others(
    guards: Iterable[DeadGuard], but: Iterable[DeadGuard]
) -> tuple[DeadGuard, ...]:
    places = {guard.at for guard in but}
    return tuple(guard for guard in guards if guard.at not in places)


def _live(tree: Tree, aiter: Tree, form: Format) -> tuple[str, ...]:
    states = probe(tree, aiter, form).values()
    return tuple(one.site for one in states if one.state is Life.LIVE)
