#!/usr/bin/env python3
"""Would each site of the series be live on this machine, and if not, what to change?

A site can be adopted and never run, or run with an AITER that ignores what it is asked
for; neither raises anything. So nothing here is taken from a version: the GPU is asked
for its name, AITER's producers are run, and the tree is read. What this machine cannot
tell is reported as not run.
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
from xscale.doctor.answers import SITES, Answer, Condition, absent
from xscale.doctor.page import show


def options(parser: ArgumentParser) -> None:
    kinds = "a clone, an unpacked source tree, a site-packages or the package itself"
    for name, what in (("sglang", "SGLang"), ("aiter", "AITER")):
        parser.add_argument(
            f"--{name}",
            metavar="PATH",
            type=Path,
            help=f"{kinds}; left out, the {what} that this Python would import",
        )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to run AITER's producers: cpu is Triton's interpreter, cuda the "
        "GPU, ROCm's as well; auto (default) the GPU where there is one",
    )


def doctor(arguments: Namespace) -> Report:
    """Examine what is there; what is missing does not stop the rest."""
    found = _sglang(arguments.sglang)
    aiter = _aiter(arguments.aiter)
    facts = machine.facts()
    here = machine.examined(facts)
    if found is None and aiter is None:
        return Report(
            verb="doctor",
            exit_code=Exit.ENVIRONMENT,
            message="nothing to examine: neither SGLang nor AITER",
            results=(here,),
            findings=(absent("SGLang", "--sglang"), absent("AITER", "--aiter")),
        )
    presented = producers.presented(aiter, facts, arguments.device)
    census = adoption.census_of(found) if found else None
    conditions = (
        *adoption.tree_conditions(found, census),
        *machine.machine_conditions(facts),
        *machine.environment_conditions(os.environ),
        *producers.producer_conditions(presented, aiter),
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
            producers.examined(aiter, arguments.aiter is None, presented),
            adoption.examined(found, census, sites, conditions),
        ),
        findings=findings,
    )


def _installed(package: str) -> Path | None:
    """Where this Python would import it from. Importing AITER would ask for ROCm."""
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
            "Would each site of the series be live on this machine? Run it on the GPU "
            "node, with the Python that serves. Done means that all would be.",
            (
                "scripts/doctor.py",
                "scripts/doctor.py --sglang ~/src/sglang --aiter ~/src/aiter",
                "scripts/doctor.py --json --device cpu",
            ),
            options,
            doctor,
            show,
        )
    )
