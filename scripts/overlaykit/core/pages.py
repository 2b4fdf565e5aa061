"""HTML pages from templates. Only pages import this: jinja2 is not always installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from overlaykit.core.python import needs

if TYPE_CHECKING:
    from jinja2 import Template


def template(
    path: Path, group: str, tests: Mapping[str, Callable[[object], bool]] | None = None
) -> Template:
    """The template, with ``tests`` by name. Raises EnvironmentFailure if jinja2, which
    ``group`` of the dependencies has, is not installed."""
    with needs(group):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests.update(tests or {})
    return environment.get_template(path.name)
