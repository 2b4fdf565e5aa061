"""The report as text."""

from __future__ import annotations

from overlaykit.cli import Report, Result, table
from xscale.doctor.adoption import TreeReport
from xscale.doctor.answers import SITES
from xscale.doctor.machine import MachineReport
from xscale.doctor.producers import AiterReport


def show(report: Report) -> str:
    """Format the report as text."""
    return "\n\n".join(_show(result) for result in report.results)


def _show(result: Result) -> str:
    if isinstance(result, MachineReport):
        return _machine(result)
    if isinstance(result, AiterReport):
        rows = ((p.kernel, p.layout.value, p.detail) for p in result.producers)
        returns = table(("PRODUCER", "ASKED FOR TRANSPOSED, RETURNS", "FOUND BY"), rows)
        return f"AITER     {result.tree}\nversion   {result.version}\n{returns}"
    assert isinstance(result, TreeReport)
    return _sites(result)


def _machine(machine: MachineReport) -> str:
    names = ("python", "torch", "triton", "rocm", "gpu", "arch", "git")
    lines = [f"{name:<9} {getattr(machine, name)}" for name in names]
    lines += [f"note      {note}" for note in machine.notes]
    lines += [f"MI355X    {fact}" for fact in machine.not_run]
    return "\n".join(lines)


def _sites(tree: TreeReport) -> str:
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
    """The sites, shortened if they are consecutive."""
    start = SITES.index(sites[0])
    if len(sites) > 2 and sites == SITES[start : start + len(sites)]:
        return f"{sites[0]}-{sites[-1]}"
    return " ".join(sites)
