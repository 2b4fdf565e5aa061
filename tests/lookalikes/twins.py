"""Random drifts that make twins, with the truth of where the original is.

Every line knows which pinned line it is: a copied line is none, a rewritten one keeps
its identity and loses its text. So what the engine does with a hunk can be judged
without looking alike coming into it: the hunk belongs to the pinned lines that it was
made for, wherever they are by now, and nowhere else.

Run as a program it counts, from one seed to another, and tells of every hunk that a
copy got: ``python tests/lookalikes/twins.py 0 1000``.
"""

from __future__ import annotations

import ast
import keyword
import random
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from lookalikes.carry import make, pick  # noqa: E402
from lookalikes.test_traps import Files  # noqa: E402

from overlaykit.carried import Carried  # noqa: E402
from overlaykit.landing import foresee  # noqa: E402
from overlaykit.patches import Hunk, apply_hunks  # noqa: E402
from overlaykit.plan import State  # noqa: E402
from overlaykit.trees import Tree  # noqa: E402

PATH = "pkg/m.py"
_Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Verdict(Enum):
    """What an answer of the engine is worth."""

    RIGHT = "right"
    REFUSED = "refused"
    UNTOLD = "in a copy that the text alone takes for the original"
    WRONG = "WRONG"


@dataclass(frozen=True)
class Line:
    """``origin`` is the pinned line that this one is, counted from 1; of a line that
    the hunk adds, which upstream took, the negative of its number; None of any other.
    """

    text: str
    origin: int | None = None


@dataclass(frozen=True)
class Case:
    """A pinned file and the one hunk that is carried on top of it."""

    name: str
    carried: Carried
    old: str
    new: str

    @property
    def hunk(self) -> Hunk:
        return self.carried.series.patches[0].files[0].hunks[0]

    @property
    def scope(self) -> str:
        return self.carried.lock.patches[0].files[0].hunks[0].scope


@dataclass
class Drift:
    """A file on its way away from the pin."""

    case: Case
    random: random.Random
    lines: list[Line]
    done: list[str]

    @property
    def text(self) -> str:
        return "".join(line.text for line in self.lines)

    def at(self, origin: int) -> int | None:
        """Where a pinned line is by now, from 0."""
        places = [i for i, line in enumerate(self.lines) if line.origin == origin]
        return places[0] if places else None

    def place(self) -> int:
        """Where the hunk's first changed line is, or the line that it comes after."""
        change = self.case.hunk.changes[0]
        for origin in range(change.old_line - (not change.removed), 0, -1):
            if (place := self.at(origin)) is not None:
                return place
        return 0


def _span(node: ast.stmt) -> range:
    first = [node.lineno]
    if isinstance(node, _Definition):
        first += [decorator.lineno for decorator in node.decorator_list]
    return range(min(first) - 1, node.end_lineno or node.lineno)


def _home(drift: Drift) -> tuple[ast.Module, list[ast.stmt]]:
    """The statements that the hunk's place is in, outermost first."""
    module, place = ast.parse(drift.text), drift.place()
    path: list[ast.stmt] = []
    node: ast.AST = module
    while True:
        inner = [s for s in ast.iter_child_nodes(node) if _holds(s, place)]
        if not inner:
            return module, path
        [node] = inner[:1]
        if isinstance(node, ast.stmt):
            path.append(node)


def _holds(node: ast.AST, place: int) -> bool:
    if isinstance(node, ast.stmt):
        return place in _span(node)
    if isinstance(node, ast.ExceptHandler):
        return place in range(node.lineno - 1, node.end_lineno or 0)
    return False


def _definition(drift: Drift) -> ast.stmt | None:
    """The innermost definition that the hunk's place is in; sometimes its class."""
    _, path = _home(drift)
    found = [node for node in path if isinstance(node, _Definition)]
    if not found:
        return None
    return found[0] if drift.random.random() < 0.25 else found[-1]


def _copied(lines: list[Line], deeper: int = 0) -> list[Line]:
    return [Line(_indented(line.text, deeper)) for line in lines]


def _indented(text: str, by: int) -> str:
    return " " * by + text if text.strip() else text


def _plain(drift: Drift, *texts: str) -> list[Line]:
    return [Line(f"{text}\n") for text in texts]


def _renamed(lines: list[Line], name: str, new: str) -> list[Line]:
    """A definition under another name."""
    done = list(lines)
    for at, line in enumerate(done):
        text, count = re.subn(
            rf"\b(def|class) {name}\b", rf"\1 {new}", line.text, count=1
        )
        if count:
            done[at] = replace(line, text=text)
            break
    return done


def _put(drift: Drift, at: int, lines: list[Line]) -> None:
    drift.lines[at:at] = lines


# Edits that make twins. Each returns False where it has nothing to work on.


def define_again(drift: Drift) -> bool:
    """The definition stands twice under its name."""
    node = _definition(drift)
    if node is None:
        return False
    span = _span(node)
    copy = [*_copied(drift.lines[span.start : span.stop]), Line("\n")]
    _put(drift, drift.random.choice((span.start, span.stop)), copy)
    return True


def define_in_branches(drift: Drift) -> bool:
    """It stands in both branches of an if, or of a try."""
    node = _definition(drift)
    if node is None:
        return False
    span = _span(node)
    margin = " " * node.col_offset
    own = drift.lines[span.start : span.stop]
    original = [replace(ln, text=_indented(ln.text, 4)) for ln in own]
    twin = _copied(own, 4)
    first, second = drift.random.choice(
        (("if FLAG:", "else:"), ("try:", "except ImportError:"))
    )
    branches = [original, twin]
    drift.random.shuffle(branches)
    drift.lines[span.start : span.stop] = [
        Line(f"{margin}{first}\n"),
        *branches[0],
        Line(f"{margin}{second}\n"),
        *branches[1],
    ]
    return True


def define_in_a_branch(drift: Drift) -> bool:
    """A second one stands under an if of its own, after or before the original."""
    node = _definition(drift)
    if node is None:
        return False
    span = _span(node)
    margin = " " * node.col_offset
    own = drift.lines[span.start : span.stop]
    twin = [Line(f"{margin}if FLAG:\n"), *_copied(own, 4)]
    _put(drift, drift.random.choice((span.start, span.stop)), twin)
    return True


def define_within(drift: Drift) -> bool:
    """A copy stands within the definition itself."""
    node = _definition(drift)
    if not isinstance(node, _Definition):
        return False
    span = _span(node)
    own = drift.lines[span.start : span.stop]
    at = _span(node.body[-1]).start
    deeper = node.body[-1].col_offset - node.col_offset
    _put(drift, at, _copied(own, deeper))
    return True


def rename(drift: Drift) -> bool:
    """The original gets another name; a copy is left under the old one."""
    node = _definition(drift)
    if not isinstance(node, _Definition):
        return False
    span = _span(node)
    own = drift.lines[span.start : span.stop]
    drift.lines[span.start : span.stop] = _renamed(own, node.name, f"{node.name}_new")
    copy = [*_copied(own), Line("\n")]
    where = (span.start, span.stop, _far(drift, node))
    _put(drift, drift.random.choice(where), copy)
    return True


def _far(drift: Drift, node: ast.stmt) -> int:
    """Before or after a definition beside another one, or the end of the file."""
    module = ast.parse(drift.text)
    nodes = [
        other
        for other in ast.walk(module)
        if isinstance(other, _Definition) and other.col_offset == node.col_offset
    ]
    other = drift.random.choice(nodes)
    if node.col_offset and not _same_parent(module, node.lineno, other.lineno):
        return _span(node).stop
    return _span(other).start


def _same_parent(module: ast.Module, one: int, two: int) -> bool:
    return any(
        isinstance(node, ast.ClassDef)
        and {one, two} <= {child.lineno for child in node.body}
        for node in ast.walk(module)
    )


def rebind(drift: Drift) -> bool:
    """A copy under another name is bound to the name of the original, further down."""
    node = _definition(drift)
    if not isinstance(node, _Definition):
        return False
    span = _span(node)
    margin = " " * node.col_offset
    own = drift.lines[span.start : span.stop]
    copy = _renamed(_copied(own), node.name, f"{node.name}_other")
    form = drift.random.choice(
        ("{0} = {0}_other", "from other import {0}", "{0} = wrapped({0}_other)")
    )
    _put(drift, span.stop, [*copy, Line(f"{margin}{form.format(node.name)}\n")])
    return True


def copy_block(drift: Drift) -> bool:
    """A run of statements around the place, copied within its block."""
    module, path = _home(drift)
    if not path or isinstance(path[-1], _Definition):
        return False
    body = _body_of(module, path[-1])
    at = body.index(path[-1])
    first = drift.random.randint(max(0, at - 3), at)
    last = drift.random.randint(at, min(len(body) - 1, at + 3))
    span = range(_span(body[first]).start, _span(body[last]).stop)
    copy = _copied(drift.lines[span.start : span.stop])
    # Other edges: what stands around the copy stands nowhere else.
    margin = " " * path[-1].col_offset
    edges = [_plain(drift, f"{margin}edge_{n}()") for n in (1, 2)]
    copy = [
        *(edges[0] if drift.random.random() < 0.5 else []),
        *copy,
        *(edges[1] if drift.random.random() < 0.5 else []),
    ]
    outside = [n for n in range(len(body)) if not first < n <= last]
    target = body[drift.random.choice(outside)]
    _put(drift, _span(target).start, copy)
    return True


def copy_block_below(drift: Drift) -> bool:
    """The like, to the end of the block."""
    module, path = _home(drift)
    if not path or isinstance(path[-1], _Definition):
        return False
    body = _body_of(module, path[-1])
    at = body.index(path[-1])
    first = drift.random.randint(max(0, at - 2), at)
    last = drift.random.randint(at, min(len(body) - 1, at + 2))
    span = range(_span(body[first]).start, _span(body[last]).stop)
    copy = _copied(drift.lines[span.start : span.stop])
    end = _span(body[-1])
    leaves = isinstance(body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)
    _put(drift, end.start if leaves else end.stop, copy)
    return True


def _body_of(module: ast.Module, statement: ast.stmt) -> list[ast.stmt]:
    for node in ast.walk(module):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and statement in value:
                return value
    raise LookupError(statement)


# What becomes of the original, and of the rest.


def damage(drift: Drift) -> bool:
    """A line that the hunk removes, or one beside its place, says something else."""
    change = drift.random.choice(drift.case.hunk.changes)
    end = change.old_line + len(change.removed)
    removed = list(range(change.old_line, end))
    origins = removed or [change.old_line - 1, change.old_line]
    if drift.random.random() < 0.3:
        origins = [change.old_line - 1, *removed, end]
    if drift.random.random() < 0.3:
        return _each(drift, origins, _rewrite_line)
    return _rewrite_line(drift, drift.random.choice(origins))


def damage_all(drift: Drift) -> bool:
    """All that the hunk is about says something else."""
    hunk = drift.case.hunk
    wide = range(hunk.old_start, hunk.old_start + len(hunk.old))
    narrow = [
        c.old_line + i for c in hunk.changes for i in range(-1, len(c.removed) + 1)
    ]
    return _each(drift, list(drift.random.choice((narrow, wide))), _rewrite_line)


def delete_original(drift: Drift) -> bool:
    """The statement that the hunk changes is gone."""
    module, path = _home(drift)
    if not path or isinstance(path[-1], _Definition):
        return False
    if len(_body_of(module, path[-1])) < 2:
        return False
    span = _span(path[-1])
    del drift.lines[span.start : span.stop]
    return True


def _each(drift: Drift, origins: list[int], edit: Callable[[Drift, int], bool]) -> bool:
    done = [edit(drift, origin) for origin in dict.fromkeys(origins)]
    return any(done)


def _rewrite_line(drift: Drift, origin: int) -> bool:
    at = drift.at(origin)
    if at is None:
        return False
    text = drift.lines[at].text
    words = [
        m for m in re.finditer(r"\b[A-Za-z_]\w*\b", text) if not keyword.iskeyword(m[0])
    ]
    if not words or re.match(r"\s*(async def|def|class|from|import|@)\b", text):
        return False
    word = drift.random.choice(words)
    new = f"{text[: word.start()]}{word[0]}_v2{text[word.end() :]}"
    drift.lines[at] = replace(drift.lines[at], text=new)
    return True


def take(drift: Drift) -> bool:
    """Upstream takes the hunk."""
    for change in drift.case.hunk.changes:
        spot = _spot(drift, change.old_line, change.removed)
        if spot is None:
            return False
    for change in reversed(drift.case.hunk.changes):
        spot = _spot(drift, change.old_line, change.removed)
        assert spot is not None
        added = [
            Line(text.decode(), -(change.new_line + i))
            for i, text in enumerate(change.added)
        ]
        drift.lines[spot.start : spot.stop] = added
    return True


def revert(drift: Drift) -> bool:
    """Upstream takes the hunk back, at its original place."""
    news = {
        -(c.new_line + i) for c in drift.case.hunk.changes for i in range(len(c.added))
    }
    if not any(line.origin in news for line in drift.lines):
        return False
    for change in drift.case.hunk.changes:
        mine = {-(change.new_line + i) for i in range(len(change.added))}
        places = [i for i, line in enumerate(drift.lines) if line.origin in mine]
        if not places:
            continue
        olds = [
            Line(text.decode(), change.old_line + i)
            for i, text in enumerate(change.removed)
        ]
        drift.lines[places[0] : places[-1] + 1] = olds
    return True


def rewrite_taken(drift: Drift) -> bool:
    """What upstream took says something else by now."""
    news = [
        -(c.new_line + i) for c in drift.case.hunk.changes for i in range(len(c.added))
    ]
    return bool(news) and _rewrite_line(drift, drift.random.choice(news))


def add_noise(drift: Drift) -> bool:
    """A line more, somewhere."""
    module = ast.parse(drift.text)
    nodes = [n for n in ast.walk(module) if isinstance(n, ast.stmt)]
    near = drift.random.random() < 0.5
    if near:
        home = _definition(drift)
        nodes = [n for n in ast.walk(home or module) if isinstance(n, ast.stmt)]
    node = drift.random.choice(nodes)
    margin = " " * node.col_offset
    text = f"{margin}noise_{drift.random.randint(1, 9)}()"
    _put(drift, _span(node).start, _plain(drift, text))
    return True


def rewrite_somewhere(drift: Drift) -> bool:
    """A line says something else, mostly far from the place."""
    hunk = drift.case.hunk
    near = range(hunk.old_start, hunk.old_start + len(hunk.old))
    origins = [ln.origin for ln in drift.lines if ln.origin and ln.origin not in near]
    return bool(origins) and _rewrite_line(drift, drift.random.choice(origins))


def rewrite_context(drift: Drift) -> bool:
    """A line of the hunk's context says something else."""
    hunk = drift.case.hunk
    changed = {c.old_line + i for c in hunk.changes for i in range(len(c.removed))}
    near = range(hunk.old_start, hunk.old_start + len(hunk.old))
    origins = [origin for origin in near if origin not in changed]
    return bool(origins) and _rewrite_line(drift, drift.random.choice(origins))


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


# The truth.


def _spot(drift: Drift, old_line: int, removed: tuple[bytes, ...]) -> range | None:
    """Where a change of the hunk belongs: its pinned lines, as they were pinned."""
    if not removed:
        before, after = drift.at(old_line - 1), drift.at(old_line)
        if before is not None:
            return range(before + 1, before + 1)
        return range(after, after) if after is not None else None
    places = [drift.at(old_line + i) for i in range(len(removed))]
    first = places[0]
    if first is None or places != list(range(first, first + len(places))):
        return None
    texts = [line.text for line in drift.lines[first : first + len(places)]]
    if texts != [line.decode() for line in removed]:
        return None
    return range(first, first + len(places))


def truths(drift: Drift) -> set[str]:
    """What the file may be with the hunk in: where nothing is left of what it
    changes, there is nothing. Lines may be added after the line before them or
    before the line after."""
    spots: list[list[tuple[range, list[str]]]] = []
    for change in drift.case.hunk.changes:
        added = [line.decode() for line in change.added]
        ways = []
        if change.removed:
            spot = _spot(drift, change.old_line, change.removed)
            ways = [spot] if spot is not None else []
        else:
            before, after = drift.at(change.old_line - 1), drift.at(change.old_line)
            if before is not None:
                ways.append(range(before + 1, before + 1))
            if after is not None:
                ways.append(range(after, after))
        spots.append([(way, added) for way in ways])
    return set(_filled([line.text for line in drift.lines], spots))


def _filled(
    texts: list[str], spots: list[list[tuple[range, list[str]]]]
) -> Iterator[str]:
    if not spots:
        yield "".join(texts)
        return
    *rest, last = spots
    for way, added in last:
        done = [*texts[: way.start], *added, *texts[way.stop :]]
        yield from _filled(done, rest)


def is_taken(drift: Drift) -> bool:
    """Whether upstream has the hunk, at its original place."""
    for change in drift.case.hunk.changes:
        for i, text in enumerate(change.added):
            at = drift.at(-(change.new_line + i))
            if at is None or drift.lines[at].text != text.decode():
                return False
        if any(drift.at(change.old_line + i) for i in range(len(change.removed))):
            return False
        if not change.added and "take" not in drift.done:
            return False
    return True


@dataclass(frozen=True)
class Answer:
    """What the engine says of a drift, and what it is worth."""

    verdict: Verdict
    state: State
    detail: str
    after: str


def ask(drift: Drift) -> Answer:
    case = drift.case
    foreseen = foresee(case.carried, Files({PATH: drift.text}), Files({PATH: case.old}))
    [hunk] = foreseen.hunks
    after = foreseen.files[PATH].decode()
    return Answer(_verdict(drift, hunk.state, after), hunk.state, hunk.detail, after)


def _verdict(drift: Drift, state: State, after: str) -> Verdict:
    if not state.lands:
        assert after == drift.text
        return Verdict.REFUSED
    if rebound(drift):
        return Verdict.WRONG
    if state is State.UPSTREAMED:
        if is_taken(drift):
            return Verdict.RIGHT
        by_text = _common(drift.case.new, drift.text)
        done = _kept(drift, drift.case.new)
    else:
        if after in truths(drift) or _by_name(drift):
            return Verdict.RIGHT
        by_text = _explained(drift, after)
        done = _kept(drift, drift.case.old)
    return Verdict.UNTOLD if done < by_text else Verdict.WRONG


def _kept(drift: Drift, side: str) -> int:
    """How many lines of a text are still there, by what has been done."""
    lines = side.splitlines(True)
    new = side != drift.case.old
    numbers = _numbers(drift.case, new)
    return sum(
        drift.lines[at].text == text
        for text, origin in zip(lines, numbers, strict=True)
        if (at := drift.at(origin)) is not None
    )


def _numbers(case: Case, new: bool) -> list[int]:
    """The origins of the lines of the pinned file, without or with the hunk."""
    numbers = list(range(1, len(case.old.splitlines()) + 1))
    for change in reversed(case.hunk.changes if new else ()):
        first = change.old_line - 1
        added = [-(change.new_line + i) for i in range(len(change.added))]
        numbers[first : first + len(change.removed)] = added
    return numbers


def _explained(drift: Drift, after: str) -> int:
    """How many pinned lines would still be there, were the landing's place the
    original: with more than there are, the text speaks for another history."""
    before, done = drift.text.splitlines(True), after.splitlines(True)
    most = min(len(before), len(done))
    head = min(most, _alike(before, done))
    tail = min(most, _alike(before[::-1], done[::-1]))
    first, last = drift.case.hunk.changes[0], drift.case.hunk.changes[-1]
    end = last.old_line - 1 + len(last.removed)
    old = drift.case.old.splitlines(True)
    above, below = old[: first.old_line - 1], old[end:]
    # A change beside a line like its own is the same one a line further on.
    ways = (
        (head, len(before) - min(tail, most - head)),
        (
            min(head, most - tail),
            len(before) - tail,
        ),
    )
    return max(
        _common("".join(above), "".join(before[:start]))
        + _common("".join(below), "".join(before[stop:]))
        for start, stop in ways
    ) + (end - first.old_line + 1)


def _alike(one: list[str], two: list[str]) -> int:
    """How many lines at the beginning are the same."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(two)))


def _common(one: str, two: str) -> int:
    """The length of the longest common subsequence of lines."""
    row = [0] * (len(two.splitlines()) + 1)
    for line in one.splitlines():
        last = 0
        for at, other in enumerate(two.splitlines(), 1):
            last, row[at] = (
                row[at],
                last + 1 if line == other else max(row[at], row[at - 1]),
            )
    return row[-1]


def rebound(drift: Drift) -> bool:
    """Whether the original is no longer what its name means."""
    return "rebind" in drift.done


def _by_name(drift: Drift) -> bool:
    """A copy under the old name, of an original that nobody touched: the name says
    which of two equal definitions is meant, and so does nothing else."""
    return "rename" in drift.done and bool(truths(drift))


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
            answer = ask(drift)
            word = answer.verdict.value
            if answer.verdict is Verdict.REFUSED and (truths(drift) or is_taken(drift)):
                word += ", the original being there"
            told[f"{kind}: {word}"] += 1
            told[f"{kind}: {word}: {answer.state.value}"] += 1
            if answer.verdict in (Verdict.WRONG, Verdict.UNTOLD):
                done = ", ".join(drift.done)
                print(f"{seed}, {case.name}: {done}: {answer.state.value}: {word}")
    for name, times in sorted(told.items()):
        print(f"{times:6} {name}")


if __name__ == "__main__":
    from overlaykit.carried import load_overlay
    from overlaykit.sources import fetch
    from overlaykit.trees import WheelTree

    _count(*map(int, sys.argv[1:3]))
