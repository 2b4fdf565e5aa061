#!/usr/bin/env python3
"""Would each site of the series be live on this machine, and if not, what to change?

A site can be adopted and never run, or run with an AITER that ignores what it is asked
for; neither raises anything. So nothing here is taken from a version: the GPU is asked
for its name, AITER's producers are run, and the tree is read. What this machine cannot
tell is reported as not run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from contract.aiter_tree import aiter_at
from contract.census import Census, check_adopted, take_census
from contract.numeric.presentation import (
    Presentation,
    Presented,
    not_run,
    presentations,
)
from contract.numeric.sources import SWITCH
from contract.sites import CATALOGUE, FLATTEN, RMS, Role
from overlaykit.carried import load_overlay
from overlaykit.cli import ROOT, Report, Result, Verb, run, table
from overlaykit.errors import CannotApply, Exit, Finding
from overlaykit.plan import Standing, locate
from overlaykit.targets import Found, find_targets
from overlaykit.transaction import refuse_interrupted
from overlaykit.trees import DirectoryTree

_ABSENT = "not found"
_USE_AITER = "SGLANG_USE_AITER"
_ROCM_FILE = Path("/opt/rocm/.info/version")
_ROCM = (7, 2)
_LIMIT = 180
_AITER_PACKAGES = {"aiter", "amd-aiter"}

_SITES = tuple(site.id for site in CATALOGUE if site.role is Role.PRODUCER)
_SITES_OF = {
    kernel: tuple(site.id for site in CATALOGUE if site.kernel == kernel)
    for kernel in (RMS, FLATTEN)
}
_NOTES = dict.fromkeys(
    ("S3", "S4"), "saves nothing under graph capture with an alternate stream"
)
# Asked of the chip itself, which takes a served model: no run of this program tells.
_ONLY_SERVING_TELLS = (
    "CK's bpreshuffle GEMM reading the scale: not run",
    "the copies' absence from a decode trace: not run",
    "throughput and accuracy of a served model: not run",
)
_UNSEEN = (
    "the environment is this shell's; the server's own must set the same",
    "the model is not looked at: the sites need FP8 (e4m3fn) weights in 128x128 blocks",
)


class Answer(Enum):
    """Whether something holds; NOT_RUN where this machine cannot tell."""

    YES = "yes"
    NO = "no"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Condition:
    """One thing that sites need to be live. ``findings`` say what to change."""

    what: str
    sites: tuple[str, ...]
    holds: Answer
    found: str
    findings: tuple[Finding, ...] = field(default=())


@dataclass(frozen=True)
class Liveness:
    """One site: its state in the source, whether it would run, and what it lacks."""

    site: str
    state: str
    live: Answer
    lacks: tuple[str, ...]
    note: str = ""


class Machine(Result, frozen=True, kw_only=True):
    """What SGLang would run on, as this Python sees it."""

    python: str
    torch: str
    triton: str
    rocm: str
    gpu: str
    arch: str
    not_run: tuple[str, ...]


class Kernels(Result, frozen=True, kw_only=True):
    """An AITER, and what its producers really return."""

    version: str
    producers: tuple[Presented, ...]


class Adopted(Result, frozen=True, kw_only=True):
    """An SGLang tree, and each site's prospects in it."""

    standing: str
    consumer: str
    sites: tuple[Liveness, ...]
    conditions: tuple[Condition, ...]


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
    facts = _facts()
    machine = _machine(facts)
    if found is None and aiter is None:
        return Report(
            verb="doctor",
            exit_code=Exit.ENVIRONMENT,
            message="nothing to examine: neither SGLang nor AITER",
            results=(machine,),
            findings=(_absent("SGLang", "--sglang"), _absent("AITER", "--aiter")),
        )
    producers = _presented(aiter, facts, arguments.device)
    census = _census(found) if found else None
    conditions = (
        *_tree_conditions(found, census),
        *machine_conditions(facts),
        *environment_conditions(os.environ),
        *producer_conditions(producers, aiter),
    )
    sites = tuple(liveness(site, census, conditions) for site in _SITES)
    findings = _findings(found, conditions)
    live = sum(site.live is Answer.YES for site in sites)
    return Report(
        verb="doctor",
        exit_code=Exit.FAILS if findings else Exit.DONE,
        message=f"{live} of {len(sites)} sites would be live here",
        results=(
            machine,
            _kernels(aiter, arguments.aiter is None, producers),
            _adopted(found, census, sites, conditions),
        ),
        findings=findings,
    )


# --- what there is ------------------------------------------------------------------


def _installed(package: str) -> Path | None:
    """Where this Python would import it from. Importing AITER would ask for ROCm."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _sglang(given: Path | None) -> Found | None:
    path = given or _installed("sglang")
    if path is None:
        return None
    bases = load_overlay(ROOT).items()
    overlay = {name: one for name, one in bases if one.target.package == "sglang"}
    return find_targets([path], overlay)[0]


def _aiter(given: Path | None) -> DirectoryTree | None:
    path = given or _installed("aiter")
    return aiter_at(path) if path is not None else None


def _version(tree: DirectoryTree, imported: bool) -> str:
    """Of the distribution around the package, or what the package says itself."""
    package = tree.root / (tree.layout.inside("aiter/") or "")
    # An editable installation's metadata lies apart from its package.
    places = [str(package.resolve().parent), *(sys.path if imported else ())]
    for one in distributions(path=places):
        if (one.metadata["Name"] or "").lower() in _AITER_PACKAGES:
            return one.version
    said = (tree.read("aiter/_version.py") or b"").decode(errors="replace")
    match = re.search(r"^(?:__version__|version)\b[^'\"\n]*['\"]([^'\"]+)", said, re.M)
    return match[1] if match else _ABSENT


def _facts() -> dict[str, str]:
    """What a process of its own learns by importing PyTorch and Triton, which may
    crash on a broken installation."""
    here = str(Path(__file__).resolve().parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", "import doctor; doctor.look_around()"]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=_LIMIT
        )
        facts: dict[str, str] = json.loads(done.stdout.rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return {"error": f"importing PyTorch took more than {_LIMIT} s"}
    except ValueError:
        said = done.stderr.strip().rpartition("\n")[2]
        return {"error": f"importing PyTorch ended with {done.returncode}: {said}"}
    return facts


def look_around() -> None:
    """The other process: prints the facts as one line, after whatever others print."""
    facts: dict[str, str] = {}
    for ask in (_ask_torch, _ask_triton):
        try:
            facts |= ask()
        except Exception as error:
            facts[f"no {ask.__name__}"] = f"{type(error).__name__}: {error}"
    print("\n" + json.dumps(facts), end="")


def _ask_torch() -> dict[str, str]:
    import torch

    facts = {"torch": torch.__version__}
    if torch.version.hip:
        facts["hip"] = torch.version.hip
    if torch.cuda.is_available():
        properties: Any = torch.cuda.get_device_properties(0)
        facts["gpu"] = properties.name
        if torch.version.hip:
            facts["arch"] = properties.gcnArchName.partition(":")[0]
    return facts


def _ask_triton() -> dict[str, str]:
    import triton

    return {"triton": triton.__version__}


def _machine(facts: Mapping[str, str]) -> Machine:
    # A crash leaves open what it kept from being asked.
    absent = "not known" if "error" in facts else _ABSENT
    rocm = facts.get("hip")
    if rocm is None:
        try:
            text = _ROCM_FILE.read_text(encoding="utf-8").strip()
            rocm = f"{text} in {_ROCM_FILE}, unused by torch"
        except (OSError, UnicodeDecodeError):
            rocm = _ABSENT
    return Machine(
        target="machine",
        tree=platform.platform(),
        outcome="examined",
        python=platform.python_version(),
        torch=facts.get("torch", absent),
        triton=facts.get("triton", absent),
        rocm=rocm,
        gpu=facts.get("gpu", absent),
        arch=facts.get("arch", absent),
        not_run=_ONLY_SERVING_TELLS,
        notes=tuple(v for k, v in facts.items() if k == "error" or k[:3] == "no "),
    )


def _presented(
    aiter: DirectoryTree | None, facts: Mapping[str, str], device: str
) -> tuple[Presented, ...]:
    if aiter is None:
        return not_run(f"AITER {_ABSENT}")
    if "error" in facts:
        return not_run(facts["error"])
    if missing := [name for name in ("torch", "triton") if name not in facts]:
        return not_run(f"{' and '.join(missing)} {_ABSENT}")
    if device == "auto":
        device = "cuda" if "gpu" in facts else "cpu"
    if device == "cuda" and "gpu" not in facts:
        return not_run("no GPU that torch can use")
    return presentations(aiter, device)


def _census(found: Found) -> Census:
    # Upstream's own tests and benchmarks may call the kernels as they like.
    return take_census(found.tree, within=f"{found.carried.target.package_root}/")


# --- what the sites need ------------------------------------------------------------


def _condition(
    what: str, sites: Iterable[str], holds: Answer, found: str, change: str
) -> Condition:
    """With one finding, for all its sites together, where it does not hold."""
    sites = tuple(sites)
    if holds is Answer.YES:
        return Condition(what, sites, holds, found)
    state = "cannot be told here" if holds is Answer.NOT_RUN else "does not hold"
    finding = Finding(
        f"{what}: {state}",
        site=" ".join(sites),
        expected=what,
        found=found,
        next_step=change,
    )
    return Condition(what, sites, holds, found, (finding,))


def _told(right: bool, known: bool = True) -> Answer:
    if not known:
        return Answer.NOT_RUN
    return Answer.YES if right else Answer.NO


def _tree_conditions(found: Found | None, census: Census | None) -> list[Condition]:
    what = "the series is in the tree"
    if found is None or census is None:
        absent = (_absent("SGLang", "--sglang"),)
        return [Condition(what, _SITES, Answer.NOT_RUN, f"SGLang {_ABSENT}", absent)]
    standing = locate(found.carried, found.tree).standing(found.carried)
    release = f"{found.carried.target.dist.name} {found.carried.target.dist.version}"
    if standing is Standing.PRISTINE:
        change = f"run scripts/apply.py {found.tree.root}"
        return [_condition(what, _SITES, Answer.NO, f"{release} without it", change)]
    conditions = _adoption(what, census)
    whole = standing is Standing.APPLIED
    conditions.append(
        _condition(
            f"it is {release}, whose conditions are known",
            _SITES,
            _told(whole, known=whole),
            standing.value,
            "run scripts/verify.py --numeric on it, which runs the tree's own "
            "functions, whatever their conditions",
        )
    )
    return conditions


def _adoption(what: str, census: Census) -> list[Condition]:
    """One per site that the census finds fault with; a fault of the consumer, or of a
    call that nobody foresaw, is every site's."""
    wrong = check_adopted(census)
    conditions = []
    for site in dict.fromkeys(finding.site for finding in wrong):
        mine = tuple(finding for finding in wrong if finding.site == site)
        sites = (site,) if site in _SITES else _SITES
        found = "; ".join(finding.what for finding in mine)
        conditions.append(Condition(what, sites, Answer.NO, found, mine))
    faulty = {site for one in conditions for site in one.sites}
    whole = tuple(site for site in _SITES if site not in faulty)
    if whole:
        conditions.append(Condition(what, whole, Answer.YES, "by the census"))
    return conditions


def machine_conditions(facts: Mapping[str, str]) -> list[Condition]:
    known = "torch" in facts
    torch = f"torch {facts['torch']}" if known else f"torch {_ABSENT}"
    hip = facts.get("hip", "")
    numbers = re.match(r"(\d+)\.(\d+)", hip)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    gpu = facts.get("arch") or facts.get("gpu") or "no GPU that torch can use"
    wanted = ".".join(map(str, _ROCM))
    return [
        _condition(
            "the GPU is a gfx95",
            _SITES,
            _told("gfx95" in facts.get("arch", ""), known),
            gpu if known else torch,
            "run this on the MI350 or MI355X node, with the Python that serves; other "
            "chips take the Triton GEMM, which has no copy to save",
        ),
        _condition(
            f"ROCm is {wanted} or newer",
            _SITES,
            _told(version >= _ROCM, known),
            f"{torch}, HIP {hip}" if hip else f"{torch}, without ROCm",
            f"install a torch built for ROCm {wanted} or newer; with an older one "
            "SGLang keeps to the Triton GEMM",
        ),
    ]


def environment_conditions(environ: Mapping[str, str]) -> list[Condition]:
    used = environ.get(_USE_AITER)
    switch = environ.get(SWITCH)
    right = switch in (None, "1", "check")
    if switch == "0":
        change = f"unset {SWITCH}, or set it to 1: 0 turns the series off"
    else:
        change = f"set {SWITCH} to 0, 1 or check: SGLang raises on anything else"
    return [
        _condition(
            f"{_USE_AITER} is set",
            _SITES,
            _told((used or "").lower() in ("1", "true")),
            f"{_USE_AITER}={used}" if used is not None else "not set",
            f"export {_USE_AITER}=1 for the server",
        ),
        _condition(
            f"{SWITCH} is on",
            _SITES,
            _told(right),
            f"{SWITCH}={switch}" if switch is not None else "not set: 1",
            change,
        ),
    ]


def producer_conditions(
    producers: Iterable[Presented], aiter: DirectoryTree | None
) -> list[Condition]:
    return [
        _condition(
            f"AITER's {one.kernel} writes its scale transposed",
            _SITES_OF[one.kernel],
            _told(
                one.presentation.usable, one.presentation is not Presentation.NOT_RUN
            ),
            str(one),
            _change_aiter(one, aiter),
        )
        for one in producers
    ]


def _change_aiter(one: Presented, aiter: DirectoryTree | None) -> str:
    if aiter is None:
        return "install AITER for this Python, or name one with --aiter PATH"
    if one.presentation is Presentation.NOT_RUN:
        return "mend what is named, or try another --device or --aiter"
    if one.presentation is not Presentation.NO_PARAMETER:
        return f"the GEMM would misread it: serve with {SWITCH}=0, or replace AITER"
    if one.kernel == FLATTEN:
        return (
            f"run scripts/apply.py {aiter.root}, or install an AITER that has "
            "ROCm/aiter#3041; until then its scale is copied, as before"
        )
    return "install a newer AITER; until then its scale is copied, as before"


def liveness(
    site: str, census: Census | None, conditions: Iterable[Condition]
) -> Liveness:
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
    return ", ".join(states) or _ABSENT


# --- the answer ---------------------------------------------------------------------


def _absent(what: str, option: str) -> Finding:
    return Finding(
        f"{what} {_ABSENT}",
        found=f"this Python, {sys.executable}, would import none",
        next_step=f"run this with the Python that serves, or give {option} PATH",
    )


def _findings(
    found: Found | None, conditions: Iterable[Condition]
) -> tuple[Finding, ...]:
    findings = [finding for one in conditions for finding in one.findings]
    if found is not None:
        try:
            refuse_interrupted(found.tree)
        except CannotApply as error:
            findings = [*error.findings, *findings]
    return tuple(findings)


def _kernels(
    aiter: DirectoryTree | None, imported: bool, producers: tuple[Presented, ...]
) -> Kernels:
    ran = any(p.presentation is not Presentation.NOT_RUN for p in producers)
    return Kernels(
        target="aiter",
        tree=aiter.name if aiter is not None else _ABSENT,
        outcome="examined" if ran else "not run",
        version=_version(aiter, imported) if aiter is not None else _ABSENT,
        producers=producers,
    )


def _adopted(
    found: Found | None,
    census: Census | None,
    sites: tuple[Liveness, ...],
    conditions: tuple[Condition, ...],
) -> Adopted:
    live = {site.live for site in sites}
    standing = _ABSENT
    if found is not None:
        standing = locate(found.carried, found.tree).standing(found.carried).value
    return Adopted(
        target="sglang",
        tree=found.tree.name if found is not None else _ABSENT,
        outcome="live" if live == {Answer.YES} else "not all live",
        notes=_UNSEEN,
        standing=standing,
        consumer=_state("C", census),
        sites=sites,
        conditions=conditions,
    )


def show(report: Report) -> str:
    """The report as a person reads it."""
    return "\n\n".join(_show(result) for result in report.results)


def _show(result: Result) -> str:
    if isinstance(result, Machine):
        return _show_machine(result)
    if isinstance(result, Kernels):
        rows = ((p.kernel, p.presentation.value, p.detail) for p in result.producers)
        returns = table(("PRODUCER", "ASKED FOR TRANSPOSED, RETURNS", "FOUND BY"), rows)
        return f"AITER     {result.tree}\nversion   {result.version}\n{returns}"
    assert isinstance(result, Adopted)
    return _show_sites(result)


def _show_machine(machine: Machine) -> str:
    names = ("python", "torch", "triton", "rocm", "gpu", "arch")
    lines = [f"{name:<9} {getattr(machine, name)}" for name in names]
    lines += [f"note      {note}" for note in machine.notes]
    lines += [f"MI355X    {fact}" for fact in machine.not_run]
    return "\n".join(lines)


def _show_sites(tree: Adopted) -> str:
    sites = (
        (site.site, site.state, site.live.value, str(len(site.lacks)), site.note)
        for site in tree.sites
    )
    conditions = (
        (_span(one.sites), one.what, one.holds.value, one.found)
        for one in tree.conditions
    )
    return "\n".join(
        (
            f"SGLang    {tree.tree}",
            f"standing  {tree.standing}",
            f"consumer  {tree.consumer}",
            table(("SITE", "IN THE SOURCE", "LIVE HERE", "LACKS", "NOTE"), sites),
            "",
            table(("SITES", "CONDITION", "HOLDS", "FOUND"), conditions),
            *(f"note      {note}" for note in tree.notes),
        )
    )


def _span(sites: tuple[str, ...]) -> str:
    """Short for a run of the catalogue's sites."""
    start = _SITES.index(sites[0])
    if len(sites) > 2 and sites == _SITES[start : start + len(sites)]:
        return f"{sites[0]}-{sites[-1]}"
    return " ".join(sites)


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
