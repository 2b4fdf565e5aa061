#!/usr/bin/env python3
"""Measure time and copies of a layer's projection chain, in each design.

Runs the tree's own attention chain on this machine's GPU (ROCm or CUDA), eagerly and as
a replayed graph: for the pinned release, the pull request's design, this series,
upstream's newest convention and a lower bound. Where upstream has the layout and a
guard keeps it dead, for the release, its guard opened alone, and this series. Writes
traces, a page, a plot and figures.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryFile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import overlaykit  # noqa: F401  (first: it handles failed imports)

# isort: split

from gatekit.microbench.arms import trees_at
from gatekit.microbench.claims import claims_of
from gatekit.microbench.page import page
from gatekit.microbench.plot import plot
from gatekit.microbench.results import Bench, Cell, Claim
from overlaykit.cli import Report, Verb, run, say, table
from overlaykit.core.documents import to_json
from overlaykit.core.errors import EnvironmentFailure, Exit, Finding, InputError
from overlaykit.core.files import write_whole
from overlaykit.core.options import whole_number
from xscale.numeric.device import set_device
from xscale.numeric.server import CannotRun, look_around

_VENDORS = {"nvidia", "amd", "instinct"}


def options(parser: ArgumentParser) -> None:
    for name, what in (("sglang", "SGLang"), ("aiter", "AITER")):
        parser.add_argument(
            f"--{name}",
            metavar="PATH",
            type=Path,
            required=True,
            help=f"{what}, of a pinned release, with or without the series: a clone, "
            "an unpacked source tree, a site-packages or the package's directory",
        )
    parser.add_argument(
        "--pull-request",
        metavar="PATH",
        type=Path,
        help="an SGLang with the pull request's commits: its own code runs in place of "
        "its design",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder for microbench-DEVICE.{json,md,svg} and traces/; created if "
        "missing",
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=whole_number(0),
        default=200,
        help="timed replays per arm (default: %(default)s)",
    )
    parser.add_argument(
        "--layers",
        metavar="N",
        type=whole_number(0),
        default=8,
        help="timed layers (default: %(default)s; their weights exceed a GPU's cache)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="on a CPU, with interpreted kernels and small shapes: values and copies "
        "only",
    )


def microbench(arguments: Namespace) -> Report:
    """Run every cell; results are written after each one."""
    started = time.monotonic()
    if arguments.rounds < 1 or arguments.layers < 2:
        raise InputError("--rounds must be at least 1, --layers at least 2")
    trees = trees_at(arguments.sglang, arguments.aiter, arguments.pull_request)
    about = _environment(arguments.dry_run)
    from gatekit.microbench.bench import Workload, interpreted, on_gpu

    plan = (
        interpreted()
        if arguments.dry_run
        else on_gpu(trees, arguments.layers, arguments.rounds)
    )
    out: Path = arguments.out
    stem = _stem(out, about["device"], trees.release if trees.revived else "")
    say(f"loading {len(trees.arms)} arms")
    workload = Workload(trees, plan)
    cells: list[Cell] = []

    def result() -> Bench:
        claims = claims_of(cells)
        return Bench(
            target="sglang",
            tree=trees.release,
            outcome="holds" if all(c.holds for c in claims) else "differs",
            aiter=trees.aiter,
            ran_with=about,
            gemm=workload.stand_in,
            command=_command(arguments),
            rounds=plan.rounds,
            arms=trees.about,
            cells=tuple(cells),
            claims=claims,
            seconds=round(time.monotonic() - started, 1),
        )

    for cell in workload.cells(out, say):
        cells.append(cell)
        _write(stem, result())
    bench = result()
    _write(stem, bench)
    wrong = [claim for claim in bench.claims if not claim.holds]
    code = Exit.FAILS if wrong else Exit.DONE
    if any(claim.control for claim in wrong):
        code = Exit.INVALID
    return Report(
        verb="microbench",
        exit_code=code,
        message=f"{len(bench.claims) - len(wrong)} of {len(bench.claims)} claims hold",
        dry_run=arguments.dry_run,
        results=(bench,),
        findings=tuple(
            Finding(f"does not hold: {claim.what}", found=claim.found)
            for claim in wrong
        ),
    )


def _environment(dry_run: bool) -> dict[str, str]:
    """Versions and the device."""
    device = "cpu" if dry_run else "cuda"
    set_device(os.environ, device)
    try:
        about = look_around(device)
    except CannotRun as error:
        what, found, next_step = error.args
        if "--device" in next_step:
            next_step = "use a machine with a GPU; --dry-run needs none"
        finding = Finding(what, found=found, next_step=next_step)
        raise EnvironmentFailure("the workload cannot run", (finding,)) from error
    return about


def _command(arguments: Namespace) -> str:
    """The command without this machine's paths."""
    parts = ["ci/microbench.py --sglang SGLANG --aiter AITER"]
    if arguments.pull_request is not None:
        parts.append("--pull-request PULL-REQUEST")
    parts.append("--out DIR")
    if arguments.dry_run:
        parts.append("--dry-run")
    else:
        parts.append(f"--rounds {arguments.rounds} --layers {arguments.layers}")
    return " ".join(parts)


def _stem(out: Path, device: str, release: str) -> Path:
    """The path of the figures, with the device's name and the release if it is not the
    pin, so that copies stay identifiable.

    Raises EnvironmentFailure if the folder is not writable.
    """
    words = device.partition(",")[0].lower().split()
    words = [word for word in words if word not in _VENDORS]
    name = "-".join([*release.split()[1:], *words])
    stem = out / f"microbench-{name}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        finding = Finding(str(error), path=str(out), next_step="give another --out")
        raise EnvironmentFailure(f"cannot write to {out}", (finding,)) from error
    return stem


def _write(stem: Path, bench: Bench) -> None:
    # A release's number has dots, so with_suffix() would cut it.
    write_whole(stem.with_name(f"{stem.name}.json"), to_json(bench) + b"\n")
    drawn = plot(bench.cells, bench.ran_with["device"])
    if drawn:
        write_whole(stem.with_name(f"{stem.name}.svg"), drawn)
    text = page(bench, f"{stem.name}.svg" if drawn else None)
    write_whole(stem.with_name(f"{stem.name}.md"), text)


def show(report: Report) -> str:
    """The report as a person reads it."""
    return "\n\n".join(
        _show(bench) for bench in report.results if isinstance(bench, Bench)
    )


def _show(bench: Bench) -> str:
    rows = [
        (
            cell.shape,
            str(cell.m),
            row.mode,
            row.arm,
            f"{row.copies:g}",
            f"{row.time.median_us:.2f}" if row.time else "-",
            f"{row.time.minimum_us:.2f}" if row.time else "-",
            f"{row.time.to_pristine:.3f}" if row.time else "-",
            f"{row.time.to_bound:.3f}" if row.time and row.time.to_bound else "-",
        )
        for cell in bench.cells
        for row in cell.rows
    ]
    head = ("SHAPE", "M", "MODE", "ARM", "COPIES", "US", "LEAST", "TO PIN", "TO BOUND")
    claims = (
        ("control" if claim.control else "claim", claim.what, _holds(claim))
        for claim in bench.claims
    )
    return "\n".join(
        (
            f"SGLang    {bench.tree}",
            f"AITER     {bench.aiter}",
            f"run       {', '.join(f'{k} {v}' for k, v in bench.ran_with.items())}",
            f"CK's GEMM {bench.gemm}",
            "per layer",
            table(head, rows),
            "",
            table(("", "", "HOLDS"), claims),
        )
    )


def _holds(claim: Claim) -> str:
    return "yes" if claim.holds else "no"


if __name__ == "__main__":
    run(
        Verb(
            "Measure the time of a layer's projection chain and its copies of scales, "
            "in each design, on this machine's GPU.",
            (
                "ci/microbench.py --sglang ~/src/sglang --aiter ~/src/aiter --out out",
                "ci/microbench.py --dry-run --sglang build/sglang --aiter build/aiter "
                "--out out",
            ),
            options,
            microbench,
            show,
        )
    )
