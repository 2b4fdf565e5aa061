"""The report as one self-contained HTML page, without scripts or network requests."""

from __future__ import annotations

from pathlib import Path

from gatekit.report import contents
from gatekit.report.schema import GateReport
from gatekit.report.section import Mark, duration, mark
from gatekit.traces.timeline import STYLE
from overlaykit.core.pages import template

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def page(report: GateReport) -> str:
    """The page. Raises EnvironmentFailure if jinja2 is not installed."""
    page = template(_TEMPLATE, "gate", {"mark": lambda value: isinstance(value, Mark)})
    # jinja2 needs it.
    from markupsafe import Markup

    return page.render(
        report=report,
        verdict=mark(report.verdict),
        mark=mark,
        time_taken=contents.time_taken,
        duration=duration,
        sections=contents.sections(report),
        shown_in=contents.SHOWN_IN,
        reasons=contents.reasons(report),
        left_out=contents.left_out(report),
        ran_on_stand_in=contents.ran_on_stand_in(report),
        about=contents.about_the_run(report),
        ran_on=contents.ran_on(report),
        # Drawings already escape their text.
        drawn=Markup,
        colours=Markup(STYLE),
    )
