"""The bases of SGLang that the overlay carries, for tests that go through them."""

MARKED = ("sglang", "sglang-0.5.12.post1")
"""The series brings the layout, with a module of its own."""

REVIVED = ("sglang-0.5.23", "sglang-0.5.22", "sglang-0.5.19")
"""Upstream has the producers, all dead; the series mends and opens them."""

BASES = (*MARKED, *REVIVED)
FIRST, *OTHERS = BASES
