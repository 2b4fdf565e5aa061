"""Any drift of any small file: the engine refuses, or it is right.

Files have few names and few statements, so that twins are common. The test decides
what is right by reading the files itself, without the engine.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, assume, event, given, reject, settings
from hypothesis import strategies as st

from conftest import Pins
from lookalikes.carry import make
from lookalikes.test_traps import Files
from overlaykit.planning.landing import plan_drifted
from overlaykit.planning.plan import State
from overlaykit.series.carried import Carried

PATH = "pkg/m.py"
_CALLS = ("a = one(x)", "b = two(a)", "c = quant(b)", "log(c)")
_NAMES = ("f", "g", "A.f", "B.g", "C.f")
_CONDITIONS = ("", "if x:", "if y:", "for x in y:")


@dataclass(frozen=True)
class Statement:
    """A call, on its own or under a condition."""

    call: str
    under: str = ""

    def lines(self) -> list[str]:
        if not self.under:
            return [self.call]
        return [self.under, f"    {self.call}"]


@dataclass(frozen=True)
class Function:
    """A function, or a method with the class that has it alone."""

    name: str
    body: tuple[Statement, ...]

    def lines(self) -> list[str]:
        inside = [line for part in self.body for line in part.lines()] + ["return x"]
        cls, _, name = self.name.rpartition(".")
        own = [f"def {name}(x):", *(f"    {line}" for line in inside)]
        return [f"class {cls}:", *(f"    {line}" for line in own)] if cls else own


File = tuple[Function, ...]


def render(file: File) -> str:
    return "".join(f"{line}\n" for part in file for line in [*part.lines(), "", ""])


_statements = st.builds(
    Statement, st.sampled_from(_CALLS), st.sampled_from(_CONDITIONS)
)
_bodies = st.lists(_statements, min_size=1, max_size=6).map(tuple)
_functions = st.builds(Function, st.sampled_from(_NAMES), _bodies)
_files = st.lists(_functions, min_size=1, max_size=4, unique_by=lambda f: f.name)
Edit = Callable[[File, int, int, Statement], File]


def _put(file: File, at: int, *parts: Function) -> File:
    return (*file[:at], *parts, *file[at + 1 :])


def _swap(file: File, at: int, to: int, _: Statement) -> File:
    to %= len(file)
    return tuple(
        file[to] if i == at else file[at] if i == to else part
        for i, part in enumerate(file)
    )


def _rename(file: File, at: int, to: int, _: Statement) -> File:
    return _put(file, at, Function(_NAMES[to % len(_NAMES)], file[at].body))


def _copy(file: File, at: int, to: int, _: Statement) -> File:
    twin = Function(_NAMES[to % len(_NAMES)], file[at].body)
    return _put(file, at, *((twin, file[at]) if to % 2 else (file[at], twin)))


def _delete(file: File, at: int, to: int, _: Statement) -> File:
    return _put(file, at) if len(file) > 1 else file


def _rewrite(file: File, at: int, to: int, new: Statement) -> File:
    body = file[at].body
    to %= len(body)
    return _put(file, at, Function(file[at].name, (*body[:to], new, *body[to + 1 :])))


def _insert(file: File, at: int, to: int, new: Statement) -> File:
    body = file[at].body
    to %= len(body) + 1
    return _put(file, at, Function(file[at].name, (*body[:to], new, *body[to:])))


def _remove(file: File, at: int, to: int, _: Statement) -> File:
    body = file[at].body
    to %= len(body)
    rest = body[:to] + body[to + 1 :] or body
    return _put(file, at, Function(file[at].name, rest))


_edits = st.tuples(
    st.sampled_from((_swap, _rename, _copy, _delete, _rewrite, _insert, _remove)),
    st.integers(0, 5),
    st.integers(0, 9),
    _statements,
)
_CHANGES: tuple[Edit, ...] = (_rewrite, _insert, _remove)
_changes = st.tuples(
    st.sampled_from(_CHANGES),
    st.integers(0, 5),
    st.integers(0, 9),
    st.builds(
        Statement,
        st.sampled_from((*_CALLS, "c = quant2(b)")),
        st.sampled_from(_CONDITIONS),
    ),
)


def _edit(file: File, change: tuple[Edit, int, int, Statement]) -> File:
    edit, at, to, statement = change
    return edit(file, at % len(file), to, statement)


Carry = Callable[[str, str], Carried]


@pytest.fixture(scope="module")
def carry(pins: Pins) -> Carry:
    """Turns a change into a patch with one hunk, as the lock requires."""

    def make_carried(old: str, new: str) -> Carried:
        assume(old != new)
        try:
            made = make(pins.overlay["sglang"], PATH, old.encode(), new.encode())
        except ValueError:
            reject()
        assume(len(made.series.patches[0].files[0].hunks) == 1)
        return made

    return make_carried


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.filter_too_much,
        HealthCheck.too_slow,
    ],
)
@given(_files.map(tuple), _changes, st.lists(_edits, min_size=1, max_size=5))
def test_it_refuses_or_is_right(
    carry: Carry,
    file: File,
    change: tuple[Edit, int, int, Statement],
    drift: list[tuple[Edit, int, int, Statement]],
) -> None:
    old, new = render(file), render(_edit(file, change))
    carried = carry(old, new)
    drifted = file
    for edit in drift:
        drifted = _edit(drifted, edit)
    before = render(drifted)
    landed = plan_drifted(carried, Files({PATH: before}), Files({PATH: old}))
    [hunk] = landed.hunks
    event(hunk.state.value)
    assert hunk.detail or hunk.state in (State.CLEAN, State.OFFSET, State.MERGED)
    after = landed.files[PATH].decode()
    if not landed.lands:
        assert after == before
    elif hunk.state is State.UPSTREAMED:
        assert after == before
        _assert_right(hunk.scope, _reverted(carry(new, old), after, new), after)
    else:
        _assert_right(hunk.scope, before, after)
        assert _net(before, after) == _net(old, new)


def _reverted(opposite: Carried, text: str, base: str) -> str:
    """A file without its hunk: the engine lands the opposite change."""
    undone = plan_drifted(opposite, Files({PATH: text}), Files({PATH: base}))
    assert undone.lands
    return undone.files[PATH].decode()


def _assert_right(scope: str, before: str, after: str) -> None:
    """All changes are in one scope, whose name is unique."""
    old, new = _by_scope(before), _by_scope(after)
    assert [name for name, _ in old].count(scope) == 1
    rest_old, rest_new = (
        [(name, lines) for name, lines in side if name != scope] for side in (old, new)
    )
    assert rest_old == rest_new


def _net(before: str, after: str) -> tuple[Counter[str], Counter[str]]:
    old, new = Counter(before.splitlines()), Counter(after.splitlines())
    return old - new, new - old


def _by_scope(text: str) -> list[tuple[str, list[str]]]:
    """The file's functions in order, with their lines; blank lines left out."""
    lines = text.splitlines()
    found: list[tuple[str, list[str]]] = []
    for node in ast.parse(text).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        if isinstance(node, ast.ClassDef):
            found.append((node.name, [lines[node.lineno - 1]]))
        for part in inner:
            name = part.name if isinstance(part, ast.FunctionDef) else "<other>"
            found.append((prefix + name, lines[part.lineno - 1 : part.end_lineno]))
    return found
