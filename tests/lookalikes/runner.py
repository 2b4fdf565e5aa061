"""Each tool on each scenario: what it exits with, and where the edit ends up.

Tools run as their users run them, on clones whose history is the pin and then the
drift. Where an edit landed is read off the files, never off what a tool says.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from lookalikes.carry import pick
from lookalikes.scenarios import NOWHERE, SCENARIOS, Files, Scenario
from overlaykit.core import git
from overlaykit.planning.landing import plan_drifted
from overlaykit.planning.plan import HunkPlan
from overlaykit.series.carried import Carried
from overlaykit.series.patches import apply_hunks, split_lines
from overlaykit.series.scopes import MODULE, ScopeMap, map_scopes
from overlaykit.trees.tree import DirectoryTree, Tree
from support.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
Contents = dict[str, bytes]


class Place(Enum):
    """Where an edit ended up."""

    RIGHT = "right scope"
    PARTLY = "right scope, in part"
    WRONG = "WRONG SCOPE"
    WRONG_BLOCK = "WRONG BLOCK of the right scope"
    REFUSED = "nowhere, refused"
    MARKERS = "nowhere, conflict markers"
    THERE = "already there"
    SILENT = "NOWHERE, and exit 0"


@dataclass(frozen=True)
class ToolOutcome:
    """One tool on one scenario. ``why`` is the engine's, hunk by hunk."""

    exit: int
    place: Place
    states: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedScenario:
    """A scenario made ready: a clone to copy, its files, what is to be applied.

    The files lie at ``inside`` the clone.
    """

    scenario: Scenario
    carried: Carried
    whole: Carried
    base: Tree
    clone: Path
    inside: str
    before: Contents


def environment(home: Path) -> dict[str, str]:
    """The tools' environment: no user configuration, a fixed identity."""
    who = git.identity("A Tester", "tester@localhost", "@1700000000 +0000")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "QUILT_PATCHES": "patches",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        **who,
    }


def _call(where: Path, *command: str, stdin: bytes = b"") -> int:
    """Run a tool; without a terminal, so that no tool can ask a question."""
    done = subprocess.run(
        command,
        cwd=where,
        input=stdin,
        capture_output=True,
        env=environment(where.parent),
        start_new_session=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode


def _must(where: Path, *command: str) -> None:
    if code := _call(where, *command):
        raise RuntimeError(f"{' '.join(command)} exits with {code}")


# The tools. Each works in a copy of its own and returns its exit code.


def _git_apply(root: Path, prepared: PreparedScenario) -> int:
    return _call(root, "git", "apply", stdin=prepared.carried.series.patches[0].data)


def _git_am(root: Path, prepared: PreparedScenario) -> int:
    return _call(root, "git", "am", "-3", stdin=prepared.carried.series.patches[0].data)


def _patch(root: Path, prepared: PreparedScenario) -> int:
    return _call(root, "patch", "-p1", stdin=prepared.carried.series.patches[0].data)


def _quilt(root: Path, prepared: PreparedScenario) -> int:
    [patch] = prepared.carried.series.patches
    folder = root / "patches"
    folder.mkdir()
    (folder / patch.name).write_bytes(patch.data)
    (folder / "series").write_text(f"{patch.name}\n", encoding="utf-8")
    return _call(root, "quilt", "--quiltrc", os.devnull, "push")


def _merge_tree(root: Path, prepared: PreparedScenario) -> int:
    """By hand: commit the patch on the pin, then merge it with the drift."""
    patch = prepared.carried.series.patches[0].data
    _must(root, "git", "checkout", "-q", "-b", "patched", "HEAD~1")
    if _call(root, "git", "apply", "--index", stdin=patch):
        raise RuntimeError(f"{prepared.scenario.patch} does not fit its own base")
    _must(root, "git", "commit", "-q", "-m", "patch")
    done = subprocess.run(
        ["git", "merge-tree", "--write-tree", "drift", "patched"],
        cwd=root,
        capture_output=True,
        env=environment(root.parent),
        check=False,
    )
    # A tree with conflicts is not a result.
    tree = done.stdout.decode().split("\n")[0] if not done.returncode else "drift"
    _must(root, "git", "checkout", "-q", "drift")
    _must(root, "git", "restore", "--source", tree, "--", ".")
    return done.returncode


def _apply_py(root: Path, prepared: PreparedScenario) -> int:
    return _call(root, sys.executable, str(ROOT / "scripts/apply.py"), str(root))


ENGINE = "this engine"
APPLY = "scripts/apply.py"
Tool = Callable[[Path, PreparedScenario], int]
TOOLS: Mapping[str, tuple[str, Tool]] = {
    "git apply": ("git", _git_apply),
    "git am -3": ("git", _git_am),
    "patch -p1": ("patch", _patch),
    "quilt push": ("quilt", _quilt),
    "git merge-tree, by hand": ("git", _merge_tree),
    APPLY: (sys.executable, _apply_py),
}


def found_tools() -> dict[str, Tool]:
    """The tools that this machine has."""
    return {n: tool for n, (program, tool) in TOOLS.items() if shutil.which(program)}


def missing_tools() -> list[str]:
    """The programs of the table that this machine lacks."""
    programs = {program for program, _ in TOOLS.values()}
    return sorted(p for p in programs if not shutil.which(p))


def versions() -> dict[str, str]:
    """The version line of each program."""
    said = {}
    for program in ("git", "patch", "quilt"):
        if shutil.which(program):
            done = subprocess.run(
                [program, "--version"], capture_output=True, text=True, check=False
            )
            line = done.stdout.splitlines()[0]
            said[program] = line if program in line.lower() else f"{program} {line}"
    return said


def read_all(root: Path) -> Contents:
    """The files of a tree, without the tools' own files."""
    found = {}
    for place in sorted(root.rglob("*")):
        path = place.relative_to(root).as_posix()
        mine = path.startswith((".git/", ".pc/", "patches/"))
        if place.is_file() and not mine and place.suffix == ".py":
            found[path] = place.read_bytes()
    return found


def prepare(
    scenario: Scenario, carried: Carried, pin: Tree, folder: Path
) -> PreparedScenario:
    """Lay a scenario out: the pin committed, then the drift."""
    one, base = pick(carried, pin, scenario.patch)
    clone = folder / "staged"
    inside = "vendor/sglang" if scenario.nested else "."
    files: Files = {
        path: (base.read(path) or b"").decode() for path in carried.series.paths
    }
    _write(clone / inside, files)
    _must(clone, "git", "init", "-q", "-b", "main")
    _commit(clone, "pin")
    _upstream(scenario, one, files)
    scenario.drift(files)
    for place in clone.rglob("*.py"):
        place.unlink()
    _write(clone / inside, files)
    _must(clone, "git", "checkout", "-q", "-b", "drift")
    _commit(clone, "drift")
    before = read_all(clone / inside)
    return PreparedScenario(scenario, one, carried, base, clone, inside, before)


def _commit(clone: Path, message: str) -> None:
    _must(clone, "git", "add", "-A")
    _must(clone, "git", "commit", "-q", "--allow-empty", "-m", message)


def _upstream(scenario: Scenario, one: Carried, files: Files) -> None:
    [(_, diff)] = one.series.diffs(scenario.path)
    taken = [hunk for hunk in diff.hunks if hunk.number in scenario.upstream]
    after = apply_hunks(files[scenario.path].encode(), taken)
    assert after is not None
    files[scenario.path] = after.decode()


def _write(root: Path, files: Files) -> None:
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode())


def run_scenario(
    scenario: Scenario, carried: Carried, pin: Tree, tools: Mapping[str, Tool]
) -> dict[str, ToolOutcome]:
    """Every tool, and the engine, on one scenario."""
    with TemporaryDirectory(prefix="lookalikes-") as name:
        ready = prepare(scenario, carried, pin, Path(name))
        outcomes = {ENGINE: _engine(ready)}
        for tool, call in tools.items():
            # A merge by hand begins with a commit, and a nested folder has none.
            if not (scenario.nested and call is _merge_tree):
                outcomes[tool] = _run_tool(ready, tool, call)
        return outcomes


def _run_tool(ready: PreparedScenario, tool: str, call: Tool) -> ToolOutcome:
    copy = ready.clone.parent / "copy"
    shutil.copytree(ready.clone, copy, symlinks=True)
    root = copy / ready.inside
    code = call(root, ready)
    carried = ready.whole if tool == APPLY else ready.carried
    place = locate(ready, carried, code, read_all(root))
    shutil.rmtree(copy)
    return ToolOutcome(code, place)


def _engine(ready: PreparedScenario) -> ToolOutcome:
    landed = plan_drifted(
        ready.carried, DirectoryTree(ready.clone / ready.inside), ready.base
    )
    after = dict(ready.before)
    if landed.lands:
        after |= landed.files
    code = 0 if landed.lands else 3
    blocking = [h for h in landed.hunks if not h.state.lands]
    said = blocking or landed.hunks
    states = tuple(sorted({hunk.state.value for hunk in said}))
    place = locate(ready, ready.carried, code, after)
    return ToolOutcome(code, place, states, tuple(_why(hunk) for hunk in blocking))


def _why(hunk: HunkPlan) -> str:
    first = hunk.detail.partition("\n")[0].removesuffix(":")
    # The table names the folders already.
    detail = re.sub(r"[\w/]+/(?=\w+\.py)", "", first)
    return f"hunk {hunk.number}, {hunk.scope}: {hunk.state.value}: {detail}"


def locate(
    ready: PreparedScenario, carried: Carried, code: int, after: Contents
) -> Place:
    """Find the edits of a series, from the files before and after."""
    laid = {new.path for new in carried.new_files}
    paths = sorted({*ready.before, *after} - laid)
    changed = [path for path in paths if ready.before.get(path) != after.get(path)]
    if not changed:
        there = Place.THERE if _all_taken(ready) else Place.SILENT
        return Place.REFUSED if code else there
    if any(b"\n<<<<<<< " in b"\n" + after.get(path, b"") for path in changed):
        return Place.MARKERS
    spots = [spot for path in changed for spot in _changes(ready, path, after)]
    homes = _homes(ready.scenario, carried)
    if not all((spot.path, spot.scope) in homes for spot in spots):
        return Place.WRONG
    if any(_in_copy(ready.scenario, spot) for spot in spots):
        return Place.WRONG_BLOCK
    return Place.PARTLY if code else Place.RIGHT


def _all_taken(ready: PreparedScenario) -> bool:
    """Whether upstream has the whole patch."""
    [(_, diff)] = ready.carried.series.diffs(ready.scenario.path)
    return len(ready.scenario.upstream) == len(diff.hunks)


@dataclass(frozen=True)
class _Spot:
    """A removed or added line: its place, and the text that contains it."""

    path: str
    scope: str
    line: int
    data: bytes


def _changes(ready: PreparedScenario, path: str, after: Contents) -> Iterator[_Spot]:
    """Every line removed or added."""
    sides = ready.before.get(path, b""), after.get(path, b"")
    old, new = (split_lines(data) for data in sides)
    match = difflib.SequenceMatcher(None, old, new, False)
    for tag, *spans in match.get_opcodes():
        if tag == "equal":
            continue
        for data, first, last in zip(sides, spans[::2], spans[1::2], strict=True):
            scopes = _scopes(data)
            for line in range(first + 1, last + 1):
                yield _Spot(path, scopes.at(line) if scopes else MODULE, line, data)


@lru_cache(maxsize=64)
def _scopes(data: bytes) -> ScopeMap | None:
    return map_scopes(data)


def _homes(scenario: Scenario, carried: Carried) -> set[tuple[str, str]]:
    """The files and scopes in which the edits of a series belong."""
    homes = set()
    for patch in carried.lock.patches:
        for file in patch.files:
            moved = file.path == scenario.path and scenario.moved
            for hunk in file.hunks:
                scope = scenario.homes.get(hunk.scope, hunk.scope)
                homes.add((moved or file.path, scope))
    return {(path, scope) for path, scope in homes if scope != NOWHERE}


def _in_copy(scenario: Scenario, spot: _Spot) -> bool:
    """Whether a line lies in a copy, in its scope, of the place that is meant."""
    if scenario.copy is None or spot.path != scenario.path:
        return False
    start, end = (spot.data.find(mark.encode()) for mark in scenario.copy)
    at = sum(map(len, split_lines(spot.data)[: spot.line - 1]))
    return start <= at < end


Results = dict[str, dict[str, ToolOutcome]]


def run_all(carried: Carried, pin: Tree) -> Results:
    """All scenarios, one by one: two threads that parse can fail one another (Python
    before 3.13: "AST constructor recursion depth mismatch")."""
    tools = found_tools()
    return {s.name: run_scenario(s, carried, pin, tools) for s in SCENARIOS}
