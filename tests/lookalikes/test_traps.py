"""Traps for the engine that real code does not hold ready: one small file each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
import pytest
from lookalikes.carry import make
from lookalikes.edits import swap

from conftest import Pins
from overlaykit.carried import Carried
from overlaykit.landing import Foreseen, foresee
from overlaykit.plan import State
from overlaykit.series import Series

PATH = "pkg/m.py"
ABOVE = "".join(f"ABOVE_{n} = {n}\n" for n in range(12))
BELOW = "".join(f"BELOW_{n} = {n}\n" for n in range(12))
FUNCTION = """\
def f(x):
    a = one(x)
    b = two(a)
    x.contiguous()
    c = three(b)
    return c
"""
PLAIN = ABOVE + FUNCTION + BELOW


@dataclass(frozen=True)
class Files:
    """A tree of a few files."""

    files: Mapping[str, str]
    name: str = "files"

    def read(self, path: str) -> bytes | None:
        return self.files[path].encode() if path in self.files else None

    def holds(self, path: str) -> bool:
        return True

    def paths(self) -> Iterator[str]:
        yield from self.files


@pytest.fixture
def template(pins: Pins) -> Carried:
    return pins.overlay["sglang"]


def land(template: Carried, old: str, new: str, files: Mapping[str, str]) -> Foreseen:
    """What becomes of the change from ``old`` to ``new`` on a tree of ``files``."""
    carried = make(template, PATH, old.encode(), new.encode())
    return foresee(carried, Files(files), Files({PATH: old}))


def states(foreseen: Foreseen) -> set[State]:
    return {hunk.state for hunk in foreseen.hunks}


def test_a_deletion_is_not_upstream_because_its_function_is_gone(
    template: Carried,
) -> None:
    """The line to delete lives on, in a function of another name."""
    new = swap(PLAIN, "    x.contiguous()\n", "")
    drifted = PLAIN.replace("def f", "def g").replace("two(", "deux(")
    drifted = swap(drifted, "three(", "trois(")
    assert states(land(template, PLAIN, new, {PATH: drifted})) == {State.GONE}


def test_lines_further_in_are_not_the_same_lines(template: Carried) -> None:
    """Upstream rewrote this place, and has the new call in a deeper block."""
    old = ABOVE + "def f(x):\n    y = quant(x)\n    for i in x:\n        pass\n" + BELOW
    new = swap(old, "    y = quant(x)\n", "    y = quant2(x)\n")
    drifted = swap(old, "    y = quant(x)\n", "    y = quantum(x, 3)\n")
    drifted = swap(drifted, "        pass\n", "        y = quant2(x)\n")
    assert states(land(template, old, new, {PATH: drifted})) == {State.CONFLICT}


def test_an_import_in_an_unlike_file_is_not_upstream(template: Carried) -> None:
    old = f"import a\nimport b\n{ABOVE}\n{FUNCTION}"
    new = swap(old, "import b\n", "import b\nimport c\n")
    files = {"pkg/m_other.py": "import c\nz = 1\n"}
    assert states(land(template, old, new, files)) == {State.GONE}


CHOICE = """\
if A:
    def f(x):
        # one
        a = one(x)
        b = {}(a)
        return b
else:
    def f(x):
        # two
        a = one(x)
        b = slow(a)
        return b
"""


def test_definitions_of_one_name_that_change_places(template: Carried) -> None:
    """As many as before, but the first of the name is another one now."""
    old = ABOVE + CHOICE.format("quant") + BELOW
    new = ABOVE + CHOICE.format("quant2") + BELOW
    twin = CHOICE.format("quant").partition("else:")[0].replace("if A", "if not A")
    drifted = f"{ABOVE}{twin}else:\n    def f(x):\n        return all_new(x)\n{BELOW}"
    assert states(land(template, old, new, {PATH: drifted})) == {State.MISPLACED}


def test_definitions_of_one_name_that_stay_as_they_are(template: Carried) -> None:
    """Getter and setter share a name: that alone must not stop a hunk."""
    old = ABOVE + CHOICE.format("quant") + BELOW
    new = ABOVE + CHOICE.format("quant2") + BELOW
    foreseen = land(template, old, new, {PATH: f"import q\n{old}"})
    assert states(foreseen) == {State.OFFSET}
    assert foreseen.files[PATH].decode() == f"import q\n{new}"


def test_a_class_overridden_below_by_one_without_the_method(
    template: Carried,
) -> None:
    """The method's name is still unique; its class is no longer the one in use."""
    inner = "".join(f"    {line}\n" for line in FUNCTION.splitlines())
    old = f"{ABOVE}class A:\n{inner}{BELOW}"
    new = swap(old, "two(a)", "deux(a)")
    drifted = f"{old}class A(Base):\n    pass\n"
    assert states(land(template, old, new, {PATH: drifted})) == {State.MISPLACED}


def test_a_lone_carriage_return_shifts_no_scope(template: Carried) -> None:
    """Python counts a line more there than git: f's lines would pass for g's."""
    twin = FUNCTION.replace("def f", "def g")
    old = f'"""Doc."""\n{ABOVE}{FUNCTION}{BELOW}'
    new = swap(old, "two(a)", "deux(a)")
    shift = "\r" * twin.count("\n")
    f_first = "def f(x):\n    pass\n    pass\n    pass\n    pass\n    pass\n"
    drifted = f'"""Doc.{shift}"""\n{ABOVE}{f_first}{twin}{BELOW}'
    assert states(land(template, old, new, {PATH: drifted})) == {State.MISPLACED}


def test_a_line_is_not_added_twice(template: Carried) -> None:
    """Upstream added it too, two lines further down, where no merge sees it."""
    new = swap(PLAIN, "    a = one(x)\n", "    a = one(x)\n    a = a.t()\n")
    drifted = swap(PLAIN, "    c = three(b)\n", "    c = three(b)\n    a = a.t()\n")
    assert states(land(template, PLAIN, new, {PATH: drifted})) == {State.MISPLACED}


def test_a_twin_branch_of_the_same_function(template: Carried) -> None:
    """Upstream rewrote this branch and left its block in the other one alone."""
    block = "        a = one(x)\n        b = two(a)\n        c = three(b)\n"
    old = f"{ABOVE}def f(x):\n    if x:\n{block}    else:\n        c = 0\n{BELOW}"
    new = swap(old, "two(a)", "deux(a)")
    drifted = (
        f"{ABOVE}def f(x):\n    if x:\n        c = all_new(x)\n        log(c)\n"
        f"    else:\n{block}{BELOW}"
    )
    foreseen = land(template, old, new, {PATH: drifted})
    assert not foreseen.lands


def test_two_files_that_became_one_keep_each_others_hunks(template: Carried) -> None:
    """The second file's hunks go on top of the first's, not in their stead."""
    other = "def g(y):\n    p = five(y)\n    q = two(p)\n    return six(q)\n"
    f, g = ABOVE + FUNCTION + BELOW, ABOVE + other + BELOW
    parts = [
        make(template, path, old.encode(), old.replace("two", "deux").encode())
        for path, old in (("pkg/m.py", f), ("pkg/m_g.py", g))
    ]
    carried = replace(
        parts[0],
        series=Series(tuple(p for part in parts for p in part.series.patches)),
        lock=msgspec.structs.replace(
            parts[0].lock, patches=tuple(q for p in parts for q in p.lock.patches)
        ),
    )
    both = ABOVE + FUNCTION + other + BELOW
    base = Files({"pkg/m.py": f, "pkg/m_g.py": g})
    foreseen = foresee(carried, Files({"pkg/m_g_all.py": both}), base)
    assert foreseen.lands
    assert foreseen.files == {"pkg/m_g_all.py": both.replace("two", "deux").encode()}


@pytest.mark.parametrize("data", ["", "\n", "def f(:\n", "\0", "x = '\\d'\n", "\ufeff"])
def test_odd_files_are_refused_and_crash_nothing(template: Carried, data: str) -> None:
    new = swap(PLAIN, "two(a)", "deux(a)")
    assert not land(template, PLAIN, new, {PATH: data}).lands
