"""Scopes come from the syntax tree."""

from __future__ import annotations

import textwrap

from overlaykit.series.scopes import MODULE, map_scopes

_SOURCE = textwrap.dedent(
    '''\
    import os

    @decorated(
        here
    )
    class A:
        """Text."""

        x = 1

        @property
        def f(self):
            def inner():
                return 1

            return inner

        async def g(self): ...
    # after A

    if os.name:
        def twice(): return 1
    else:
        def twice():
            return 2

    def last():
        pass
    '''
).encode()


def test_every_line() -> None:
    scopes = map_scopes(_SOURCE)
    assert scopes is not None
    names = [scopes.at(n) for n in range(1, _SOURCE.count(b"\n") + 1)]
    assert names == [
        *[MODULE] * 2,
        *["A"] * 7,
        "A",
        *["A.f"] * 2,
        *["A.f.inner"] * 2,
        *["A.f"] * 2,
        "A",
        "A.g",
        *[MODULE] * 3,
        "twice",
        MODULE,
        *["twice#2"] * 2,
        MODULE,
        *["last"] * 2,
    ]
    assert "A.f.inner" in scopes
    assert "A.h" not in scopes


def test_a_file_that_does_not_parse_has_no_scopes() -> None:
    assert map_scopes(b"def f(:\n") is None
    assert map_scopes(b"\xff\xfe") is None
    assert map_scopes(b"a\0b") is None
