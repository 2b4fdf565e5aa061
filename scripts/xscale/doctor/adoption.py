"""An SGLang tree: whether the series is in it, and the state of every site."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from overlaykit.applying.targets import FoundTarget
from overlaykit.cli import Result
from overlaykit.core.errors import Finding, InputError
from overlaykit.planning.plan import Standing, locate
from overlaykit.trees.tree import Tree
from xscale.census import Census, check_adopted, kept_census
from xscale.doctor.answers import (
    ABSENT,
    SITES,
    Answer,
    Condition,
    answer,
    condition,
    missing,
)
from xscale.liveness import NATIVE_BLOCK_FP8, Format, Life, LiveState, probe
from xscale.numeric.formats import format_of

_NOTES = dict.fromkeys(
    ("S3", "S4"), "saves nothing under graph capture with an alternate stream"
)
_NOT_CHECKED = (
    "the environment checked is this shell's; the server must have the same",
)


@dataclass(frozen=True)
class Liveness:
    """One site: its state in the source, whether it would be live, and what it
    lacks."""

    site: str
    state: str
    live: Answer
    lacks: tuple[str, ...]
    note: str = ""


class TreeReport(Result, frozen=True, kw_only=True):
    """The report on an SGLang tree and its sites."""

    standing: str
    consumer: str
    sites: tuple[Liveness, ...]
    conditions: tuple[Condition, ...]


def census_of(found: FoundTarget) -> Census:
    """The census of the package only."""
    # Upstream's own tests and benchmarks may call the kernels in other ways.
    return kept_census(found.tree, within=f"{found.carried.target.package_root}/")


def tree_conditions(
    found: FoundTarget | None, census: Census | None
) -> list[Condition]:
    """The conditions that the whole series is applied, to a release whose code is
    known."""
    what = "the series is in the tree"
    if found is None or census is None:
        findings = (missing("SGLang", "--sglang"),)
        return [Condition(what, SITES, Answer.NOT_RUN, f"SGLang {ABSENT}", findings)]
    standing = locate(found.carried, found.tree).standing(found.carried)
    release = found.carried.target.release
    if standing is Standing.PRISTINE:
        change = f"run scripts/apply.py {found.tree.root}"
        return [
            condition(what, SITES, Answer.NO, f"{release} without the series", change)
        ]
    conditions = _adoption(what, census)
    whole = standing is Standing.APPLIED
    conditions.append(
        condition(
            f"the tree is {release}, whose conditions are known",
            SITES,
            answer(whole, known=whole),
            standing.value,
            "run scripts/verify.py --numeric on the tree: it runs the tree's own "
            "functions under any conditions",
        )
    )
    return conditions


def _adoption(what: str, census: Census) -> list[Condition]:
    """One condition per faulty site. A fault in the consumer, or in a call outside the
    catalogue, applies to every site."""
    wrong = check_adopted(census)
    conditions = []
    for site in dict.fromkeys(finding.site for finding in wrong):
        mine = tuple(finding for finding in wrong if finding.site == site)
        sites = (site,) if site in SITES else SITES
        found = "; ".join(finding.what for finding in mine)
        conditions.append(Condition(what, sites, Answer.NO, found, mine))
    faulty = {site for one in conditions for site in one.sites}
    whole = tuple(site for site in SITES if site not in faulty)
    if whole:
        conditions.append(Condition(what, whole, Answer.YES, "according to the census"))
    return conditions


def run_conditions(
    found: FoundTarget | None,
    aiter: Tree | None,
    form: Format | None,
    model: Path | None,
) -> list[Condition]:
    """The conditions that the tree's own code calls each site's kernel, for the
    format of the checkpoint; None if its weights are not quantized."""
    what = "the tree's own code reaches the kernel"
    if found is None or aiter is None:
        why = f"{'SGLang' if found is None else 'AITER'} {ABSENT}"
        return [Condition(what, SITES, Answer.NOT_RUN, why)]
    if form is None:
        found_here = f"{model} has no quantization_config"
        change = "serve an FP8 checkpoint: the sites quantize for FP8 linears alone"
        return [condition(what, SITES, Answer.NO, found_here, change)]
    states = probe(found.tree, aiter, form)
    what = f"{what} with {form}"
    return [
        one
        for group in _alike(states.values())
        for one in [_run_condition(what, group)]
    ]


def _alike(states: Iterable[LiveState]) -> Iterable[list[LiveState]]:
    """The states in groups with the same place and reason."""
    groups: dict[tuple[object, ...], list[LiveState]] = {}
    for state in states:
        live = state.state is Life.LIVE
        key = (state.state, *(() if live else (state.at, state.reason)))
        groups.setdefault(key, []).append(state)
    return groups.values()


def _run_condition(what: str, alike: list[LiveState]) -> Condition:
    first, sites = alike[0], tuple(state.site for state in alike)
    if first.state is Life.LIVE:
        return Condition(what, sites, Answer.YES, "the kernel is called")
    if first.state is Life.NOT_RUN:
        step = "run scripts/verify.py --numeric, which says what it could not drive"
        return condition(what, sites, Answer.NOT_RUN, first.reason, step)
    where = f"{first.at}: {first.reason}" if first.at else first.reason
    return condition(
        what,
        sites,
        Answer.NO,
        where,
        "serve a release whose guard lets this format through, or open the guard",
    )


def format_at(model: Path | None) -> Format | None:
    """The format to run the sites with: the checkpoint's, or else native block FP8."""
    return checkpoint_format(model) if model is not None else NATIVE_BLOCK_FP8


def checkpoint_format(model: Path) -> Format | None:
    """The format in a checkpoint's config.json; None if its weights are not quantized.

    Raises InputError if there is no such file, or it is not JSON.
    """
    path = model / "config.json" if model.is_dir() else model
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        finding = Finding(
            "the checkpoint's configuration cannot be read",
            path=str(path),
            expected="a config.json, as in the checkpoint's directory",
            found=str(error),
            next_step="give --model the directory of the checkpoint",
        )
        raise InputError(f"{model} is not a checkpoint", (finding,)) from error
    if not isinstance(config, dict):
        config = {}
    quantization = config.get("quantization_config") or (
        config.get("text_config") or {}
    ).get("quantization_config")
    return format_of(quantization)


def liveness(
    site: str, census: Census | None, conditions: Iterable[Condition]
) -> Liveness:
    """A site's answer is the worst answer among its conditions."""
    lacking = [c for c in conditions if site in c.sites and c.holds is not Answer.YES]
    answers = {condition.holds for condition in lacking}
    live = next((a for a in (Answer.NO, Answer.NOT_RUN) if a in answers), Answer.YES)
    return Liveness(
        site,
        _state(site, census),
        live,
        tuple(condition.what for condition in lacking),
        _NOTES.get(site, ""),
    )


def _state(site: str, census: Census | None) -> str:
    rows = census.rows if census is not None else ()
    states = dict.fromkeys(row.state.value for row in rows if row.site == site)
    return ", ".join(states) or ABSENT


def report_of(
    found: FoundTarget | None,
    census: Census | None,
    sites: tuple[Liveness, ...],
    conditions: tuple[Condition, ...],
) -> TreeReport:
    """The report on the tree."""
    live = {site.live for site in sites}
    standing = ABSENT
    if found is not None:
        standing = locate(found.carried, found.tree).standing(found.carried).value
    return TreeReport(
        target="sglang",
        tree=found.tree.name if found is not None else ABSENT,
        outcome="live" if live == {Answer.YES} else "not all live",
        notes=_NOT_CHECKED,
        standing=standing,
        consumer=_state("C", census),
        sites=sites,
        conditions=conditions,
    )
