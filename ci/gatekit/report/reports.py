"""Writes the three reports of a run, all from the same data."""

from __future__ import annotations

from pathlib import Path

from gatekit.report.markdown import markdown
from gatekit.report.page import page
from gatekit.report.schema import GateReport
from overlaykit.core.documents import to_json
from overlaykit.core.files import write_whole


def write_reports(report: GateReport, folder: Path) -> tuple[Path, ...]:
    """Write ``report.json``, ``report.md`` and ``report.html``. Raises
    EnvironmentFailure."""
    paths = []
    # JSON first: the other two can be regenerated from it.
    for kind, make in (("json", _json), ("md", markdown), ("html", page)):
        paths.append(folder / f"report.{kind}")
        write_whole(paths[-1], make(report))
    return tuple(paths)


def _json(report: GateReport) -> str:
    return to_json(report).decode() + "\n"
