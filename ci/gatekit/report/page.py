"""The report as one self-contained HTML page, without scripts or network requests."""

from __future__ import annotations

from pathlib import Path

from gatekit.report import contents
from gatekit.report.schema import GateReport
from gatekit.report.section import Mark, duration, mark
from gatekit.traces.timeline import STYLE
from overlaykit.core.errors import EnvironmentFailure, Finding

_TEMPLATE = "page.html.j2"


def page(report: GateReport) -> str:
    """The page. Raises EnvironmentFailure if jinja2 is not installed."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        finding = Finding(
            "jinja2 is not installed", next_step="pip install --group gate"
        )
        raise EnvironmentFailure("the page needs jinja2", (finding,)) from error
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["mark"] = lambda value: isinstance(value, Mark)
    return environment.get_template(_TEMPLATE).render(
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
