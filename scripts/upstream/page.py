"""The matrix as one self-contained HTML page, without network access or scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from overlaykit.core.pages import template
from upstream.advice import Advice, headline
from upstream.matrix import MEANING, short_names
from upstream.outcomes import Column, Outcome

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def html(
    columns: Sequence[Column],
    advice: Sequence[Sequence[Advice]],
    title: str,
    command: str,
) -> str:
    """The page. Raises EnvironmentFailure if jinja2 is not installed."""
    page = template(_TEMPLATE, "maintain")
    used = {cell.outcome for column in columns for cell in column.cells}
    return page.render(
        title=title,
        command=command,
        columns=list(zip(columns, short_names(columns), advice, strict=True)),
        headline=headline,
        legend=[(o, MEANING[o]) for o in Outcome if o in used],
    )
