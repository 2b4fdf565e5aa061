"""Which sites of a tree are live for a checkpoint's format, by running its code.

A site is live only if the tree's own code calls the fused kernel and hands its result
to the projection: the tree's own quantization method registers the weights, its own
detection says what they are, its own layer passes that on. Census, drift, doctor and
the numeric proof take the answer from here.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, InputError
from overlaykit.trees.tree import DirectoryTree, Tree
from xscale.census import Census, SiteRow
from xscale.numeric.cases import Platform
from xscale.numeric.client import Job, Worker
from xscale.numeric.formats import NATIVE_BLOCK_FP8, Format
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
    "with_lives",
    "worker",
]

NEVER_RUNS = "never runs: "
"""How the reason for a dead call begins."""
_workers: list[Worker] = []


def probe(
    tree: Tree,
    aiter: Tree | Path,
    form: Format = NATIVE_BLOCK_FP8,
    platform: Platform = Platform.GFX95,
) -> dict[str, LiveState]:
    """The state of every site, by its name. What cannot be run says why.

    The worker process is kept for the next call.
    """
    kernels = DirectoryTree(aiter) if isinstance(aiter, Path) else aiter
    try:
        sources = sglang_sources(tree, modules_of(tree, form))
        job = Job(sources, aiter_sources(kernels), None, life_cases(form, platform))
        results = worker().do(job, lambda *_: None)
    except InputError as error:
        return not_run(str(error))
    except EnvironmentFailure as error:
        found = (finding.what for finding in error.findings)
        return not_run("; ".join(found) or str(error))
    states = {
        state.site: state
        for result in results
        if isinstance(result, LifeResult)
        for state in result.states
    }
    return {site: states[site] for site in CHAINS}


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


def worker() -> Worker:
    """The worker process of this process; it is started at the first call."""
    if not _workers or not _workers[-1].alive:
        _workers.append(Worker())
        atexit.register(_workers[-1].close)
    return _workers[-1]


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
