"""Charts: positions read from the SVG."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from gatekit.report.charts import Bound, Estimate, estimates

# Upper bound of a letter's average width in a drawing.
_LETTER = 7.2


def _spans(svg: str, words: tuple[str, ...]) -> list[tuple[float, float]]:
    """Left and right end of each of these words, from left to right."""
    found = []
    for x, anchor, word in re.findall(
        r'<text x="([\d.-]+)" y="[\d.-]+" text-anchor="(\w+)"[^>]*>([^<]+)<', svg
    ):
        if word in words:
            wide = _LETTER * len(word)
            left = float(x) - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
            found.append((left, left + wide))
    assert len(found) == len(words)
    return sorted(found)


@pytest.mark.parametrize("half", [0.5, 5.0, 25.27, 100.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_names_of_bounds_do_not_overlap(half: float, sign: int) -> None:
    """If the interval is many times the margin, as with eight questions, the margin is
    drawn close to zero."""
    bounds = [Bound(1.5 * sign, "margin", limit=True), Bound(0.0, "equal")]
    svg = estimates([Estimate("d", 0.0, -half, half, "0")], bounds, "points", "d")
    for (_, right), (left, _) in pairwise(_spans(svg, ("margin", "equal"))):
        assert right < left
