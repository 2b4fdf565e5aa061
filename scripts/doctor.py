#!/usr/bin/env python3
"""Reports whether each site of the series would be live on this machine.

A site can be adopted and never run, or run with an AITER that ignores the request;
neither raises an error. So nothing here is inferred from a version: the GPU is queried,
AITER's producers are run, and the tree is read. What this machine cannot determine is
reported as not run.
"""

from __future__ import annotations

import importlib.util
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from overlaykit.applying.targets import FoundTarget, find_targets
from overlaykit.applying.transaction import refuse_interrupted
from overlaykit.cli import ROOT, Report, Verb, run
from overlaykit.core.errors import CannotApply, Exit, Finding
from overlaykit.series.carried import load_overlay
from overlaykit.trees.tree import DirectoryTree
from xscale.aiter_tree import aiter_at
from xscale.doctor import adoption, machine, producers
from xscale.doctor.answers import SITES, Answer, Condition, missing
from xscale.doctor.page import show


def options(parser: ArgumentParser) -> None:
    kinds = "a clone, an unpacked source tree, a site-packages or the package itself"
    for name, what in (("sglang", "SGLang"), ("aiter", "AITER")):
        parser.add_argument(
            f"--{name}",
            metavar="PATH",
            type=Path,
            help=f"{kinds} (default: the {what} that this Python imports)",
        )
    parser.add_argument(
        "--model",
        metavar="PATH",
        type=Path,
        help="the checkpoint's directory or its config.json: the sites are run with "
        "its format (default: native block FP8)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to run AITER's producers: cpu uses Triton's interpreter, cuda the "
        "GPU (also with ROCm), auto (default) the GPU if there is one",
    )


def doctor(arguments: Namespace) -> Report:
    """Examine everything that is found; a missing part does not stop the rest."""
    # What was named wrongly is refused before anything is run.
    form = adoption.format_at(arguments.model)
    found = _sglang(arguments.sglang)
    aiter = _aiter(arguments.aiter)
    facts = machine.facts()
    here = machine.report_of(facts)
    if found is None and aiter is None:
        return Report(
            verb="doctor",
            exit_code=Exit.ENVIRONMENT,
            message="nothing to examine: neither SGLang nor AITER was found",
            results=(here,),
            findings=(missing("SGLang", "--sglang"), missing("AITER", "--aiter")),
        )
    layouts = producers.layouts(aiter, facts, arguments.device)
    census = adoption.census_of(found) if found else None
    conditions = (
        *adoption.tree_conditions(found, census),
        *machine.machine_conditions(facts),
        *machine.environment_conditions(os.environ),
        *producers.producer_conditions(layouts, aiter),
        *adoption.run_conditions(found, aiter, form, arguments.model),
    )
    sites = tuple(adoption.liveness(site, census, conditions) for site in SITES)
    findings = _findings(found, conditions)
    live = sum(site.live is Answer.YES for site in sites)
    return Report(
        verb="doctor",
        exit_code=Exit.FAILS if findings else Exit.DONE,
        message=f"{live} of {len(sites)} sites would be live here",
        results=(
            here,
            producers.report_of(aiter, arguments.aiter is None, layouts),
            adoption.report_of(found, census, sites, conditions),
        ),
        findings=findings,
    )


def _installed(package: str) -> Path | None:
    """The path that this Python would import from. Importing AITER would need ROCm."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _sglang(given: Path | None) -> FoundTarget | None:
    path = given or _installed("sglang")
    if path is None:
        return None
    bases = load_overlay(ROOT).items()
    overlay = {name: one for name, one in bases if one.target.package == "sglang"}
    return find_targets([path], overlay)[0]


def _aiter(given: Path | None) -> DirectoryTree | None:
    path = given or _installed("aiter")
    return aiter_at(path) if path is not None else None


def _findings(
    found: FoundTarget | None, conditions: Iterable[Condition]
) -> tuple[Finding, ...]:
    findings = [finding for one in conditions for finding in one.findings]
    if found is not None:
        try:
            refuse_interrupted(found.tree)
        except CannotApply as error:
            findings = [*error.findings, *findings]
    return tuple(findings)


if __name__ == "__main__":
    run(
        Verb(
            "Report whether each site of the series would be live on this machine. Run "
            "it on the GPU node, with the Python that serves. Exit code 0 means that "
            "all sites would be live.",
            (
                "scripts/doctor.py",
                "scripts/doctor.py --sglang ~/src/sglang --aiter ~/src/aiter",
                "scripts/doctor.py --model ~/models/GLM-5.1-FP8",
                "scripts/doctor.py --json --device cpu",
            ),
            options,
            doctor,
            show,
        )
    )
