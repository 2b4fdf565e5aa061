"""Which sites of a tree are live for a checkpoint's format, by running its code.

A site is live only if the tree's own code calls the fused kernel and hands its result
to the projection: the tree's own quantization method registers the weights, its own
detection says what they are, its own layer passes that on. Census, drift, doctor and
the numeric proof take the answer from here.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from overlaykit.core.digests import SCRIPTS
from overlaykit.core.errors import EnvironmentFailure, InputError
from overlaykit.core.kept import FOLDER, Kept, key_of
from overlaykit.trees.tree import DirectoryTree, Tree
from xscale.census import Census, SiteRow
from xscale.numeric.cases import Platform
from xscale.numeric.client import Job, worker
from xscale.numeric.formats import NATIVE_BLOCK_FP8, Format
from xscale.numeric.inputs import inputs_of
from xscale.numeric.lives import CHAINS, Life, LifeResult, LiveState, life_cases
from xscale.numeric.sources import aiter_sources, sglang_sources

__all__ = [
    "NATIVE_BLOCK_FP8",
    "NEVER_RUNS",
    "Format",
    "Life",
    "LiveState",
    "not_run",
    "probe",
    "probe_surely",
    "with_lives",
]

NEVER_RUNS = "never runs: "
"""How the reason for a dead call begins."""
_TREE = "<tree>"
_DEVICE = "cpu"
# An error of the system, and the folder that AITER's sources are in meanwhile.
_CHANCE = re.compile(
    r"^\w*(Memory|OS|IO|Runtime|System|Timeout|Interrupted|Permission|FileNotFound)"
    r"\w*Error\b|^\w*Error: \[Errno|numeric-aiter-"
)
_KEPT: Kept[tuple[LiveState, ...]] = Kept(
    SCRIPTS.parent / FOLDER / "lives", tuple[LiveState, ...]
)


def probe(
    tree: Tree,
    aiter: Tree | Path,
    form: Format = NATIVE_BLOCK_FP8,
    platform: Platform = Platform.GFX95,
) -> dict[str, LiveState]:
    """The state of every site, by its name. What cannot be run says why.

    An answer is kept by everything that it depends on (see
    :mod:`xscale.numeric.inputs`), and the worker process for the next call.
    """
    return probe_surely(tree, aiter, form, platform)[0]


def probe_surely(
    tree: Tree,
    aiter: Tree | Path,
    form: Format = NATIVE_BLOCK_FP8,
    platform: Platform = Platform.GFX95,
) -> tuple[dict[str, LiveState], bool]:
    """The same, and whether it is the answer as long as its inputs are the same."""
    kernels = DirectoryTree(aiter) if isinstance(aiter, Path) else aiter
    try:
        sources = sglang_sources(tree, modules_of(tree, form))
        # No answer depends on where a tree is.
        sources = replace(sources, tree=_TREE)
        job = Job(sources, aiter_sources(kernels), None, life_cases(form, platform))
        states, sure = _states(job)
    except InputError as error:
        return not_run(str(error)), True
    except EnvironmentFailure as error:
        found = (finding.what for finding in error.findings)
        return not_run("; ".join(found) or str(error)), _lacks_a_package()
    return {state.site: state for state in states}, sure


def _lacks_a_package() -> bool:
    """Whether no worker can start because a package is not installed: what is around a
    run names that. Any other cause may be gone the next time."""
    needed = ("torch", "triton", "numpy")
    return any(importlib.util.find_spec(name) is None for name in needed)


def _states(job: Job) -> tuple[tuple[LiveState, ...], bool]:
    inputs = inputs_of(job, _DEVICE)
    key = key_of(inputs) if inputs is not None else None
    if key is not None and (known := _KEPT.load(key)) is not None:
        return known, True
    states = {
        state.site: state
        for result in worker(_DEVICE).do(job, lambda *_: None)
        if isinstance(result, LifeResult)
        for state in result.states
    }
    found = tuple(states[site] for site in CHAINS)
    sure = key is not None and not any(map(_may_be_chance, found))
    if key is not None and sure:
        _KEPT.save(key, found)
    return found, sure


def _may_be_chance(state: LiveState) -> bool:
    """Whether a run may have ended because of the machine: a full disk, too little
    memory, a file that it could not read."""
    return state.state is Life.NOT_RUN and bool(_CHANCE.search(state.reason))


def not_run(why: str, sites: Iterable[str] = CHAINS) -> dict[str, LiveState]:
    """The answer where nothing can be run."""
    return {site: LiveState(site, Life.NOT_RUN, reason=why) for site in sites}


def modules_of(tree: Tree, form: Format) -> tuple[str, ...]:
    """The modules that read the format; a package's are all needed."""
    if form.reader is None:
        return ()
    root = "python/sglang/srt/"
    path = form.reader[0]
    folder = path.rpartition("/")[0]
    modules = [f"{root}{path}.py"]
    if folder.rpartition("/")[2] != "quantization":
        below = f"{root}{folder}/"
        modules += [p for p in tree.paths() if p.startswith(below) and ".py" in p]
    return tuple(
        found.removeprefix("python/").removesuffix(".py").removesuffix("/__init__")
        .replace("/", ".")
        for found in dict.fromkeys(modules)
        if found.endswith(".py") and _reads(found)
    )  # fmt: skip


def _reads(path: str) -> bool:
    """Whether the module may be about an FP8 linear: other schemes import more."""
    *_, folder, name = path.split("/")
    return folder != "schemes" or any(
        word in name for word in ("w8a8_fp8", "scheme.py", "__init__")
    )


def with_lives(census: Census, states: Mapping[str, LiveState]) -> Census:
    """The census with the states in its rows; a dead row says which guard keeps it
    so."""
    return replace(
        census, rows=tuple(_with_life(row, states.get(row.site)) for row in census.rows)
    )


def _with_life(row: SiteRow, state: LiveState | None) -> SiteRow:
    if state is None or row.path is None:
        return row
    if state.state is Life.DEAD:
        where = f"{state.at}: " if state.at else ""
        why = f"{NEVER_RUNS}{where}{state.reason}"
        detail = "; ".join(filter(None, (row.detail, why)))
        return replace(row, live=False, detail=detail)
    return replace(row, live=state.state is Life.LIVE or None)
