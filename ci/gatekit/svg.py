"""SVG from elements. Text and attributes are escaped, so data may contain anything."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from overlaykit.core.wording import one_line


def element(name: str, content: str | None = None, /, **attributes: str | float) -> str:
    """An element; ``content`` is SVG itself. ``stroke_width`` becomes ``stroke-width``,
    ``class_`` becomes ``class``, and fractions get one decimal."""
    words = [name]
    for key, value in attributes.items():
        shown = f"{value:.1f}" if isinstance(value, float) else one_line(str(value))
        words.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    start = " ".join(words)
    return f"<{start}/>" if content is None else f"<{start}>{content}</{name}>"


def text(x: float, y: float, content: str, /, **attributes: str | float) -> str:
    return element("text", escaped(content), x=x, y=y, **attributes)


def line(
    x1: float, y1: float, x2: float, y2: float, /, **attributes: str | float
) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def rect(
    x: float, y: float, width: float, height: float, /, **attributes: str | float
) -> str:
    return element("rect", x=x, y=y, width=width, height=height, **attributes)


def document(
    width: int, height: int, parts: Iterable[str], /, **attributes: str | float
) -> str:
    """A whole drawing, one part per line."""
    return element(
        "svg",
        "\n".join(("", *parts, "")),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        **attributes,
    )


def escaped(content: str) -> str:
    """Text for an element's content, in one line."""
    return escape(one_line(content), quote=False)
