"""What was examined, as a person reads it."""

from __future__ import annotations

from overlaykit.cli import Report, Result, table
from xscale.doctor.adoption import Adopted
from xscale.doctor.answers import SITES
from xscale.doctor.machine import Machine
from xscale.doctor.producers import Kernels


def show(report: Report) -> str:
    """The report as a person reads it."""
    return "\n\n".join(_show(result) for result in report.results)


def _show(result: Result) -> str:
    if isinstance(result, Machine):
        return _show_machine(result)
    if isinstance(result, Kernels):
        rows = ((p.kernel, p.layout.value, p.detail) for p in result.producers)
        returns = table(("PRODUCER", "ASKED FOR TRANSPOSED, RETURNS", "FOUND BY"), rows)
        return f"AITER     {result.tree}\nversion   {result.version}\n{returns}"
    assert isinstance(result, Adopted)
    return _show_sites(result)


def _show_machine(machine: Machine) -> str:
    names = ("python", "torch", "triton", "rocm", "gpu", "arch", "git")
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
    start = SITES.index(sites[0])
    if len(sites) > 2 and sites == SITES[start : start + len(sites)]:
        return f"{sites[0]}-{sites[-1]}"
    return " ".join(sites)
