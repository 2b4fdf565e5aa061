"""Random drifts that make twins of hunks' places: in the series' files, in small ones.

Run as a program it counts, from one seed to another, and tells of every hunk that a
copy got: ``python tests/lookalikes/twins.py 0 1000``.
"""

from __future__ import annotations

import ast
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from lookalikes.carry import make, pick  # noqa: E402
from lookalikes.damage_edits import (  # noqa: E402
    add_noise,
    damage,
    damage_all,
    delete_original,
    revert,
    rewrite_context,
    rewrite_somewhere,
    rewrite_taken,
    take,
)
from lookalikes.drifting import Case, Drift, Line  # noqa: E402
from lookalikes.test_traps import PATH  # noqa: E402
from lookalikes.truth import Correctness, check_answer, is_taken, truths  # noqa: E402
from lookalikes.twin_edits import (  # noqa: E402
    copy_block,
    copy_block_below,
    define_again,
    define_in_a_branch,
    define_in_branches,
    define_within,
    rebind,
    rename,
)
from overlaykit.series.carried import Carried  # noqa: E402
from overlaykit.series.patches import apply_hunks  # noqa: E402
from overlaykit.trees.tree import Tree  # noqa: E402

Edit = Callable[[Drift], bool]
TWINS: tuple[Edit, ...] = (
    define_again, define_in_branches, define_in_a_branch, define_within, rename,
    rebind, copy_block, copy_block, copy_block, copy_block_below,
)  # fmt: skip
DAMAGE: tuple[Edit, ...] = (damage, damage_all, delete_original, rewrite_context)
NOISE: tuple[Edit, ...] = (
    add_noise, add_noise, rewrite_somewhere, rewrite_somewhere, rewrite_context,
)  # fmt: skip


def drifted(case: Case, seed: int, twins: bool = True) -> Drift:
    """The pinned file after some edits; a seed gives the same ones always."""
    lines = [Line(t, n) for n, t in enumerate(case.old.splitlines(True), 1)]
    drift = Drift(case, random.Random(seed), lines, [])
    plan: list[Edit] = []
    taken = drift.random.random() < 0.2
    if taken:
        plan.append(take)
    for _ in range(drift.random.randint(0, 2)):
        plan.append(drift.random.choice(NOISE))
    if twins:
        plan.append(drift.random.choice(TWINS))
        if drift.random.random() < 0.2:
            plan.append(drift.random.choice(TWINS))
        if taken:
            plan.append(drift.random.choice((revert, rewrite_taken, damage)))
        elif drift.random.random() < 0.75:
            plan.append(drift.random.choice(DAMAGE))
    for _ in range(drift.random.randint(0, 2)):
        plan.append(drift.random.choice(NOISE))
    for edit in plan:
        _try(drift, edit)
    return drift


def _try(drift: Drift, edit: Edit) -> None:
    """Make an edit; undo it where it leaves no Python."""
    before = list(drift.lines)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if edit(drift):
            try:
                ast.parse(drift.text)
            except SyntaxError:
                drift.lines = before
            else:
                drift.done.append(edit.__name__)


# What is carried: hunks of the real series, and ones made up.


def real_cases(carried: Carried, pin: Tree) -> list[Case]:
    """The hunks of a series, each on its own."""
    cases = []
    for patch in carried.series.patches:
        one, tree = pick(carried, pin, patch.name)
        for diff in one.series.patches[0].files:
            data = tree.read(diff.path)
            assert data is not None
            for hunk in diff.hunks:
                after = apply_hunks(data, [hunk])
                assert after is not None
                name = f"{patch.name}:{hunk.number}"
                case = _case(carried, name, data.decode(), after.decode())
                cases += [case] if case else []
    return cases


def _case(template: Carried, name: str, old: str, new: str) -> Case | None:
    try:
        made = make(template, PATH, old.encode(), new.encode())
    except ValueError:
        return None
    [diff] = made.series.patches[0].files
    return Case(name, made, old, new) if len(diff.hunks) == 1 else None


_CALLS = (
    "a = one(x)", "b = two(a)", "c = quant(b)", "log(c)", "d = three(c)",
    "e = four(d)", "a = five(e)", "x = six(a)",
)  # fmt: skip


def made_case(template: Carried, seed: int) -> Case:
    """A small file and a hunk in it."""
    chance = random.Random(f"case {seed}")
    while True:
        old = _made_file(chance)
        lines = old.splitlines(True)
        calls = [n for n, line in enumerate(lines) if line.strip() in _CALLS]
        at = chance.choice(calls)
        margin = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        new = list(lines)
        kind = chance.choice(("change", "add", "remove"))
        if kind == "change":
            new[at] = f"{margin}c = quant2(b)\n"
        elif kind == "add":
            new.insert(at, f"{margin}extra(a)\n")
        else:
            del new[at]
        case = _case(template, f"made {seed}, {kind}", old, "".join(new))
        if case and _parses(case.new):
            return case


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _made_file(chance: random.Random) -> str:
    parts = []
    for name in chance.sample(("f", "g", "h", "k"), chance.randint(1, 4)):
        margin = "    " if chance.random() < 0.3 else ""
        if margin:
            parts.append(f"class {name.upper()}:\n")
        parts.append(f"{margin}def {name}(x):\n")
        for _ in range(chance.randint(3, 9)):
            call = chance.choice(_CALLS)
            if chance.random() < 0.25:
                under = chance.choice(("if x:", "if y:", "for x in y:"))
                parts.append(f"{margin}    {under}\n")
                for more in (call, *chance.sample(_CALLS, chance.randint(0, 3))):
                    parts.append(f"{margin}        {more}\n")
            else:
                parts.append(f"{margin}    {call}\n")
        parts.append(f"{margin}    return x\n\n\n")
    return "".join(parts)


def any_case(template: Carried, real: list[Case], seed: int) -> Case:
    """One hunk of the series for two made up."""
    if seed % 3:
        return made_case(template, seed)
    return real[seed // 3 % len(real)]


def _count(first: int, last: int) -> None:
    carried = load_overlay(ROOT)["sglang"]
    wheel = fetch(ROOT, carried.target, carried.lock.dist)
    real = real_cases(carried, WheelTree(wheel, carried.target.site_layout()))
    told: Counter[str] = Counter()
    for twins in (True, False):
        kind = "twins" if twins else "no twins"
        for seed in range(first, last):
            case = any_case(carried, real, seed)
            drift = drifted(case, seed, twins)
            answer = check_answer(drift)
            word = answer.verdict.value
            if answer.verdict is Correctness.REFUSED and (
                truths(drift) or is_taken(drift)
            ):
                word += ", the original being there"
            told[f"{kind}: {word}"] += 1
            told[f"{kind}: {word}: {answer.state.value}"] += 1
            if answer.verdict in (Correctness.WRONG, Correctness.INDISTINGUISHABLE):
                done = ", ".join(drift.done)
                print(f"{seed}, {case.name}: {done}: {answer.state.value}: {word}")
    for name, times in sorted(told.items()):
        print(f"{times:6} {name}")


if __name__ == "__main__":
    from overlaykit.series.carried import load_overlay
    from overlaykit.sources.packages import fetch
    from overlaykit.trees.tree import WheelTree

    _count(*map(int, sys.argv[1:3]))
