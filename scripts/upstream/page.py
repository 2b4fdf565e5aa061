"""The matrix as one self-contained HTML page, without network access or scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding
from upstream.advice import Advice, headline
from upstream.matrix import MEANING, short_names
from upstream.outcomes import Column, Outcome

_TEMPLATE = "page.html.j2"


def html(
    columns: Sequence[Column],
    advice: Sequence[Sequence[Advice]],
    title: str,
    command: str,
) -> str:
    """The page. Raises EnvironmentFailure if jinja2 is not installed."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        finding = Finding(
            "jinja2 is missing",
            next_step="python -m pip install --group maintain",
        )
        raise EnvironmentFailure("--html needs jinja2", (finding,)) from error
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    used = {cell.outcome for column in columns for cell in column.cells}
    return environment.get_template(_TEMPLATE).render(
        title=title,
        command=command,
        columns=list(zip(columns, short_names(columns), advice, strict=True)),
        headline=headline,
        legend=[(o, MEANING[o]) for o in Outcome if o in used],
    )
