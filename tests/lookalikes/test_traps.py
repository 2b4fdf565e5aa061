"""Traps for the engine that real code does not hold ready: one small file each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
import pytest

from conftest import Pins
from lookalikes.carry import make
from lookalikes.edits import swap
from overlaykit.planning.landing import DriftedPlan, plan_drifted
from overlaykit.planning.placement import MergeStep
from overlaykit.planning.plan import State
from overlaykit.rebase.moves import land_moved
from overlaykit.repository.merge import MergeStore
from overlaykit.series.carried import Carried
from overlaykit.series.quilt import Series
from overlaykit.series.scopes import parsed

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


def land(
    template: Carried, old: str, new: str, files: Mapping[str, str]
) -> DriftedPlan:
    """Plan the change from ``old`` to ``new`` on a tree with ``files``."""
    carried = make(template, PATH, old.encode(), new.encode())
    return plan_drifted(carried, Files(files), Files({PATH: old}))


def states(landed: DriftedPlan) -> set[State]:
    return {hunk.state for hunk in landed.hunks}


def test_a_deletion_is_not_upstream_because_its_function_is_gone(
    template: Carried,
) -> None:
    """The line to delete lives on, in a function of another name."""
    new = swap(PLAIN, "    x.contiguous()\n", "")
    drifted = PLAIN.replace("def f", "def g").replace("two(", "deux(")
    drifted = swap(drifted, "three(", "trois(")
    assert states(land(template, PLAIN, new, {PATH: drifted})) == {State.GONE}


def test_lines_further_in_are_not_the_same_lines(template: Carried) -> None:
    """Upstream rewrote this place and put the new call into a deeper block."""
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
    """As many definitions as before, but the first is a different one now."""
    old = ABOVE + CHOICE.format("quant") + BELOW
    new = ABOVE + CHOICE.format("quant2") + BELOW
    twin = CHOICE.format("quant").partition("else:")[0].replace("if A", "if not A")
    drifted = f"{ABOVE}{twin}else:\n    def f(x):\n        return all_new(x)\n{BELOW}"
    assert states(land(template, old, new, {PATH: drifted})) == {State.AMBIGUOUS}


def test_definitions_of_one_name_that_stay_as_they_are(template: Carried) -> None:
    """Getter and setter share a name: that alone must not stop a hunk."""
    old = ABOVE + CHOICE.format("quant") + BELOW
    new = ABOVE + CHOICE.format("quant2") + BELOW
    landed = land(template, old, new, {PATH: f"import q\n{old}"})
    assert states(landed) == {State.OFFSET}
    assert landed.files[PATH].decode() == f"import q\n{new}"


def test_a_class_overridden_below_by_one_without_the_method(
    template: Carried,
) -> None:
    """The method's name is still unique; its class is no longer the one in use."""
    inner = "".join(f"    {line}\n" for line in FUNCTION.splitlines())
    old = f"{ABOVE}class A:\n{inner}{BELOW}"
    new = swap(old, "two(a)", "deux(a)")
    drifted = f"{old}class A(Base):\n    pass\n"
    assert states(land(template, old, new, {PATH: drifted})) == {State.AMBIGUOUS}


def test_a_lone_carriage_return_shifts_no_scope(template: Carried) -> None:
    """Python counts one line more than git: f's lines would count as g's."""
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
    landed = land(template, old, new, {PATH: drifted})
    assert not landed.lands


BLOCK = """\
    a = one(x)
    b = two(a)
    c = three(b)
"""
BODY = f"def f(x):\n    start(x)\n{BLOCK}    stop(c)\n    return c\n"


@pytest.mark.parametrize(
    ("what", "drifted"),
    [
        (
            "a copy below, between other edges; the original rewritten",
            swap(BODY, "two(a)", "all_new(a)").replace(
                "    return", f"    other(c)\n{BLOCK}    third(c)\n    return"
            ),
        ),
        (
            "a copy above, the original rewritten",
            swap(
                BODY,
                BLOCK,
                f"{BLOCK}    log(c)\n    a = one(x)\n    b = 2\n    c = three(b)\n",
            ),
        ),
        (
            "a copy of the last two lines, the original's middle gone",
            swap(BODY, "    b = two(a)\n", "").replace(
                "    stop(c)\n",
                "    log(c)\n    b = two(a)\n    c = three(b)\n    stop(c)\n",
            ),
        ),
        (
            "the whole body twice",
            BODY.replace("    return c\n", BODY.partition("\n")[2]),
        ),
    ],
)
def test_a_copy_of_the_block_under_the_same_guards(
    template: Carried, what: str, drifted: str
) -> None:
    old = ABOVE + BODY + BELOW
    new = swap(old, "two(a)", "deux(a)")
    landed = land(template, old, new, {PATH: ABOVE + drifted + BELOW})
    assert not landed.lands, what


def test_a_copy_far_from_the_original_leaves_no_doubt(template: Carried) -> None:
    """Its line occurs twice now; the lines around it show which is meant."""
    old = ABOVE + BODY + BELOW
    new = swap(old, "two(a)", "deux(a)")
    drifted = swap(old, "    return c\n", "    log(c)\n    b = two(a)\n    return c\n")
    landed = land(template, old, new, {PATH: drifted})
    assert states(landed) == {State.MERGED}
    expected = swap(new, "    return c\n", "    log(c)\n    b = two(a)\n    return c\n")
    assert landed.files[PATH].decode() == expected


def test_a_line_moved_across_the_change(template: Carried) -> None:
    """It is unclear whether this line moved or all others did."""
    old = ABOVE + BODY + BELOW
    new = swap(old, "two(a)", "deux(a)")
    drifted = swap(old, "    start(x)\n", "")
    drifted = swap(drifted, "    stop(c)\n", "    stop(c)\n    start(x)\n")
    assert states(land(template, old, new, {PATH: drifted})) == {State.AMBIGUOUS}


def test_lines_in_a_copy_are_not_upstream(template: Carried) -> None:
    """Upstream adopted the change, copied it and reverted the original."""
    old = ABOVE + BODY + BELOW
    new = swap(old, "two(a)", "deux(a)")
    taken = swap(BLOCK, "two(a)", "deux(a)")
    drifted = swap(
        old, BLOCK, f"{taken}    log(c)\n    a = one(x)\n    b = 2\n    c = three(b)\n"
    )
    assert not land(template, old, new, {PATH: drifted}).lands


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


TWIN = swap(FUNCTION, "def f", "def f_other")
_REBINDINGS = {
    "to a copy": f"{TWIN}f = f_other\n",
    "to a copy, wrapped": f"{TWIN}f = wrapped(f_other)\n",
    "to itself, wrapped": "f = wrapped(f)\n",
    "by an import": "from other import f\n",
    "by an import under another name": "import other as f\n",
    "by a tuple": "f, g = g, f\n",
    "by a loop": "for f in every:\n    pass\n",
    "by with": "with every as f:\n    pass\n",
    "in an if": "if FLAG:\n    f = other\n",
    "in a try": "try:\n    from q import f\nexcept ImportError:\n    pass\n",
    "from within a function": "def g():\n    global f\n    f = other\n",
    "by setattr": 'setattr(A, "f", other)\n',
    "as an attribute": "A.f = other\n",
    "taken away": "del f\n",
    "a repeat": FUNCTION,
    "under a decorator": f"@some\n{FUNCTION}",
    "a repeat in an if": f"if FLAG:\n{_indented(FUNCTION)}",
    "a repeat after try": "try:\n    pass\nexcept ImportError:\n" + _indented(FUNCTION),
}


@pytest.mark.parametrize("form", _REBINDINGS)
def test_a_name_that_means_something_else_as_well(template: Carried, form: str) -> None:
    """The definition is unchanged, but its name means something else."""
    more = _REBINDINGS[form]
    if "A" in more.replace("FLAG", ""):
        cls = f"class A:\n{_indented(FUNCTION)}"
        old = ABOVE + cls + BELOW
    else:
        old = PLAIN
    new = swap(old, "two(a)", "deux(a)")
    landed = land(template, old, new, {PATH: f"{old}\n{more}"})
    assert states(landed) == {State.AMBIGUOUS}


@pytest.mark.parametrize("form", _REBINDINGS)
def test_a_binding_that_the_pinned_file_has_too(template: Carried, form: str) -> None:
    more = _REBINDINGS[form]
    old = f"{PLAIN}\n{more}"
    new = old.replace("two(a)", "deux(a)", 1)
    landed = land(template, old, new, {PATH: f"import q\n{old}"})
    assert states(landed) == {State.OFFSET}
    assert landed.files[PATH].decode() == f"import q\n{new}"


PROPERTY = """\
class A:
    @property
    def p(self):
        a = one(self)
        return two(a)

    @p.setter
    def p(self, value):
        self.q = value
"""


def test_a_setter_is_not_a_second_getter(template: Carried) -> None:
    """Upstream changes one; the name of the other keeps its meaning."""
    old = ABOVE + PROPERTY + BELOW
    new = swap(old, "two(a)", "deux(a)")
    drifted = swap(old, "self.q = value", "self.q = one(value)")
    drifted = swap(
        drifted,
        "\n    @p.setter",
        "\n    @p.deleter\n    def p(self):\n        pass\n\n    @p.setter",
    )
    assert states(land(template, old, new, {PATH: drifted})) == {State.MERGED}


def test_a_second_getter(template: Carried) -> None:
    old = ABOVE + PROPERTY + BELOW
    new = swap(old, "two(a)", "deux(a)")
    getter = PROPERTY.partition("\n")[2].partition("\n\n")[0]
    drifted = swap(
        old, "        self.q = value\n", f"        self.q = value\n\n{getter}\n"
    )
    assert states(land(template, old, new, {PATH: drifted})) == {State.AMBIGUOUS}


def test_the_original_under_a_new_name(template: Carried) -> None:
    """A copy has the old name; the original was rewritten."""
    old = ABOVE + FUNCTION + BELOW
    new = swap(old, "two(a)", "deux(a)")
    renamed = swap(FUNCTION, "def f", "def f_new").replace("two(a)", "all_new(a)")
    for drifted in (f"{renamed}\n\n{FUNCTION}", f"{FUNCTION}\n\n{renamed}"):
        landed = land(template, old, new, {PATH: ABOVE + drifted + BELOW})
        assert states(landed) == {State.AMBIGUOUS}


def test_a_copy_in_the_originals_place(template: Carried) -> None:
    """The definition with the old name is a copy, or it moved."""
    other = "def g(x):\n    return nine(x)\n"
    old = f"{ABOVE}{FUNCTION}\n\n{other}"
    new = swap(old, "two(a)", "deux(a)")
    renamed = swap(FUNCTION, "def f", "def f_new")
    drifted = f"{ABOVE}{renamed}\n\n{other}\n\n{FUNCTION}"
    assert not land(template, old, new, {PATH: drifted}).lands


def test_two_files_that_became_one_keep_each_others_hunks(template: Carried) -> None:
    """The second file's hunks go on top of the first's and do not replace them."""
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
    landed = plan_drifted(carried, Files({"pkg/m_g_all.py": both}), base)
    assert landed.lands
    assert landed.files == {"pkg/m_g_all.py": both.replace("two", "deux").encode()}


@pytest.mark.parametrize("data", ["", "\n", "def f(:\n", "\0", "x = '\\d'\n", "\ufeff"])
def test_odd_files_are_refused_without_a_crash(template: Carried, data: str) -> None:
    new = swap(PLAIN, "two(a)", "deux(a)")
    assert not land(template, PLAIN, new, {PATH: data}).lands


def test_lines_in_a_copy_are_not_upstream_in_a_moved_function(
    template: Carried,
) -> None:
    """A rebase follows the function to another file and must ignore the copy."""
    more = "    a = one(x)\n    extra(a)\n"
    old = ABOVE + BODY + BELOW
    new = swap(old, "    a = one(x)\n", more)
    carried = make(template, PATH, old.encode(), new.encode())
    [patch], [locked] = carried.series.patches, carried.lock.patches
    [hunk], [known] = patch.files[0].hunks, locked.files[0].hunks
    step = MergeStep(patch, hunk, known, PATH, old.encode(), new.encode(), new.encode())
    taken = swap(BODY, "    a = one(x)\n", more)
    copied = swap(taken, "    return c\n", f"    log(c)\n{BLOCK}    return c\n")
    found = {}
    with MergeStore() as store:
        for name, body in (("taken", taken), ("copied", copied)):
            text = f"import q\n{body}".encode()
            plan, after, _ = land_moved(step, "pkg/other.py", "f", text, store)
            assert after == text
            found[name] = plan.state
    assert found["taken"] is State.UPSTREAMED
    assert found["copied"] is State.AMBIGUOUS


def test_a_series_is_not_a_copy_of_itself(template: Carried) -> None:
    """A hunk whose lines another hunk adds elsewhere is upstream with that one."""
    other = "    d = four(c)\n    e = five(d)\n    f = six(e)\n    g = two(f)\n"
    body = swap(BODY, "    return c\n", f"{other}    return c\n")
    old = ABOVE + body + BELOW
    new = swap(swap(old, "two(a)", "deux(a)"), "three(b)", "three(b)\n    log(b)")
    new = swap(new, "two(f)", "deux(f)\n    log(b)\n    stop(c)")
    landed = land(template, old, new, {PATH: f"import q\n{new}"})
    assert states(landed) == {State.UPSTREAMED}


def test_one_content_is_parsed_once() -> None:
    assert parsed(b"x = 1\n") is parsed(bytes(bytearray(b"x = 1\n")))
