"""Common lines, compared with a simple implementation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlaykit.planning.context import shared

_lines = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=8)


def _longest(one: list[bytes], two: list[bytes]) -> int:
    if not one or not two:
        return 0
    if one[-1] == two[-1]:
        return _longest(one[:-1], two[:-1]) + 1
    return max(_longest(one[:-1], two), _longest(one, two[:-1]))


@given(_lines, _lines)
def test_shared_is_the_longest_common_subsequence(
    lines: list[bytes], texts: list[bytes]
) -> None:
    heads = [_longest(lines, texts[:size]) for size in range(len(texts) + 1)]
    assert shared(lines, texts) == heads
