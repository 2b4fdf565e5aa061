"""Each tool on each scenario: what it exits with, and where the edit ends up.

Tools run as their users run them, on clones whose history is the pin and then the
drift. Where an edit landed is read off the files, never off what a tool says.
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

from lookalikes.carry import pick
from lookalikes.scenarios import NOWHERE, SCENARIOS, Files, Scenario
from overlaykit.carried import Carried
from overlaykit.landing import foresee
from overlaykit.patches import apply_hunks, split_lines
from overlaykit.plan import HunkPlan
from overlaykit.scopes import MODULE, map_scopes
from overlaykit.trees import DirectoryTree, Tree

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 120
_OTHER = ("conflict", "Conflict")
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
class Outcome:
    """One tool on one scenario. ``why`` is the engine's, hunk by hunk."""

    exit: int
    place: Place
    states: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A scenario made ready: a folder to copy, its files, what is to be applied."""

    scenario: Scenario
    carried: Carried
    base: Tree
    root: Path
    before: Contents


def environment(home: Path) -> dict[str, str]:
    """What a tool sees: no user's configuration, a fixed identity."""
    who = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (
            ("NAME", "A Tester"),
            ("EMAIL", "tester@localhost"),
            ("DATE", "@1700000000 +0000"),
        )
    }
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
    """Run a tool; without a terminal, so that none can ask."""
    done = subprocess.run(
        command,
        cwd=where,
        input=stdin,
        capture_output=True,
        env=environment(where.parent),
        start_new_session=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.returncode


def _must(where: Path, *command: str) -> None:
    if code := _call(where, *command):
        raise RuntimeError(f"{' '.join(command)} exits with {code}")


# The tools. Each works in a copy of its own and returns its exit code.


def _git_apply(root: Path, stage: Stage) -> int:
    return _call(root, "git", "apply", stdin=stage.carried.series.patches[0].data)


def _git_am(root: Path, stage: Stage) -> int:
    return _call(root, "git", "am", "-3", stdin=stage.carried.series.patches[0].data)


def _patch(root: Path, stage: Stage) -> int:
    return _call(root, "patch", "-p1", stdin=stage.carried.series.patches[0].data)


def _quilt(root: Path, stage: Stage) -> int:
    [patch] = stage.carried.series.patches
    folder = root / "patches"
    folder.mkdir()
    (folder / patch.name).write_bytes(patch.data)
    (folder / "series").write_text(f"{patch.name}\n", encoding="utf-8")
    return _call(root, "quilt", "--quiltrc", os.devnull, "push")


def _merge_tree(root: Path, stage: Stage) -> int:
    """By hand: the patch committed on the pin, that and the drift merged."""
    patch = stage.carried.series.patches[0].data
    _must(root, "git", "checkout", "-q", "-b", "patched", "HEAD~1")
    if _call(root, "git", "apply", "--index", stdin=patch):
        raise RuntimeError(f"{stage.scenario.patch} does not fit its own base")
    _must(root, "git", "commit", "-q", "-m", "patch")
    done = subprocess.run(
        ["git", "merge-tree", "--write-tree", "drift", "patched"],
        cwd=root,
        capture_output=True,
        env=environment(root.parent),
        check=False,
    )
    # Nothing of a conflicting tree is anybody's result.
    tree = done.stdout.decode().split("\n")[0] if not done.returncode else "drift"
    _must(root, "git", "checkout", "-q", "drift")
    _must(root, "git", "restore", "--source", tree, "--", ".")
    return done.returncode


def _apply_py(root: Path, stage: Stage) -> int:
    return _call(root, sys.executable, str(ROOT / "scripts/apply.py"), str(root))


Tool = Callable[[Path, Stage], int]
TOOLS: Mapping[str, tuple[str, Tool]] = {
    "git apply": ("git", _git_apply),
    "git am -3": ("git", _git_am),
    "patch -p1": ("patch", _patch),
    "quilt push": ("quilt", _quilt),
    "git merge-tree": ("git", _merge_tree),
    "apply.py": (sys.executable, _apply_py),
}
ENGINE = "engine"


def found_tools() -> dict[str, Tool]:
    """The tools that this machine has."""
    return {n: tool for n, (program, tool) in TOOLS.items() if shutil.which(program)}


def versions() -> dict[str, str]:
    """The first line that each program says of itself."""
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
    """The files of a tree, without what the tools leave for themselves."""
    found = {}
    for place in sorted(root.rglob("*")):
        path = place.relative_to(root).as_posix()
        mine = path.startswith((".git/", ".pc/", "patches/"))
        if place.is_file() and not mine and place.suffix == ".py":
            found[path] = place.read_bytes()
    return found


def stage(scenario: Scenario, carried: Carried, pin: Tree, folder: Path) -> Stage:
    """Lay a scenario out: the pin committed, then the drift."""
    one, base = pick(carried, pin, scenario.patch)
    root = folder / "staged"
    files: Files = {
        path: (base.read(path) or b"").decode() for path in carried.series.paths
    }
    _write(root, files)
    _start(folder if scenario.nested else root)
    _upstream(scenario, one, files)
    scenario.drift(files)
    for place in root.rglob("*.py"):
        place.unlink()
    _write(root, files)
    _must(root, "git", "checkout", "-q", "-b", "drift")
    _must(root, "git", "add", "-A")
    _must(root, "git", "commit", "-q", "--allow-empty", "-m", "drift")
    return Stage(scenario, one, base, root, read_all(root))


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


def _start(root: Path) -> None:
    _must(root, "git", "init", "-q", "-b", "main")
    _must(root, "git", "add", "-A")
    _must(root, "git", "commit", "-q", "-m", "pin")


def run_scenario(
    scenario: Scenario, carried: Carried, pin: Tree, tools: Mapping[str, Tool]
) -> dict[str, Outcome]:
    """Every tool, and the engine, on one scenario."""
    with TemporaryDirectory(prefix="lookalikes-") as name:
        ready = stage(scenario, carried, pin, Path(name))
        outcomes = {ENGINE: _engine(ready)}
        for tool, call in tools.items():
            outcomes[tool] = _run_tool(ready, tool, call)
        return outcomes


def _run_tool(ready: Stage, tool: str, call: Tool) -> Outcome:
    if ready.scenario.nested:
        # The outer repository is the one of the staged folder, and stays.
        root = ready.root
    else:
        root = ready.root.parent / "copy"
        shutil.copytree(ready.root, root, symlinks=True)
    code = call(root, ready)
    place = locate(ready, code, read_all(root))
    if ready.scenario.nested:
        _must(root, "git", "reset", "-q", "--hard", "drift")
        _must(root, "git", "clean", "-q", "-f", "-d", "-x")
    else:
        shutil.rmtree(root)
    return Outcome(code, place)


def _engine(ready: Stage) -> Outcome:
    foreseen = foresee(ready.carried, DirectoryTree(ready.root), ready.base)
    after = dict(ready.before)
    if foreseen.lands:
        after |= foreseen.files
    code = 0 if foreseen.lands else 3
    blocking = [h for h in foreseen.hunks if not h.state.lands]
    said = blocking or foreseen.hunks
    states = tuple(sorted({hunk.state.value for hunk in said}))
    place = locate(ready, code, after)
    if foreseen.lands and place is Place.SILENT:
        place = Place.THERE
    return Outcome(code, place, states, tuple(_why(hunk) for hunk in blocking))


def _why(hunk: HunkPlan) -> str:
    detail = hunk.detail.partition("\n")[0]
    return f"hunk {hunk.number}, {hunk.scope}: {hunk.state.value}: {detail}"


def locate(ready: Stage, code: int, after: Contents) -> Place:
    """Where the edits are, from the files before and after."""
    changed = [p for p in {**ready.before, **after} if ready.before.get(p) != after.get(p)]
    if not changed:
        return Place.REFUSED if code else Place.SILENT
    if any(b"\n<<<<<<< " in after.get(path, b"") for path in changed):
        return Place.MARKERS
    lines = [spot for path in changed for spot in _changes(ready, path, after)]
    if not all(_at_home(ready, *spot) for spot in lines):
        return Place.WRONG
    if any(_in_copy(ready, path, data, line) for path, data, line, *_ in lines):
        return Place.WRONG_BLOCK
    return Place.PARTLY if code else Place.RIGHT


_Spot = tuple[str, bytes, int, str]


def _changes(ready: Stage, path: str, after: Contents) -> Iterator[_Spot]:
    """Every line removed or added: its file, that file's text, number and scope."""
    sides = ready.before.get(path, b""), after.get(path, b"")
    old, new = (split_lines(data) for data in sides)
    match = difflib.SequenceMatcher(None, old, new, False)
    for tag, *spans in match.get_opcodes():
        if tag == "equal":
            continue
        for data, first, last in (
            (sides[0], spans[0], spans[1]),
            (sides[1], spans[2], spans[3]),
        ):
            scopes = map_scopes(data)
            for line in range(first + 1, last + 1):
                yield path, data, line, scopes.at(line) if scopes else MODULE


def _at_home(ready: Stage, path: str, data: bytes, line: int, scope: str) -> bool:
    """Whether a changed line is in a scope that a hunk of the patch belongs in."""
    scenario = ready.scenario
    for patch in ready.carried.lock.patches:
        for file in patch.files:
            home = scenario.moved or file.path
            scopes = {scenario.homes.get(h.scope, h.scope) for h in file.hunks}
            if path == home and scope in scopes - {NOWHERE}:
                return True
    return False


def _in_copy(ready: Stage, path: str, data: bytes, line: int) -> bool:
    """Whether a line lies in a copy, in its scope, of the place that is meant."""
    if ready.scenario.copy is None or path != ready.scenario.path:
        return False
    start, end = (data.find(mark.encode()) for mark in ready.scenario.copy)
    lines = split_lines(data)
    at = sum(map(len, lines[: line - 1]))
    return start <= at < end


Results = dict[str, dict[str, Outcome]]


def run_all(carried: Carried, pin: Tree) -> Results:
    """All scenarios, two at a time: the work is in processes, and short."""
    tools = found_tools()
    with ThreadPoolExecutor(max_workers=2) as pool:
        done = pool.map(lambda s: run_scenario(s, carried, pin, tools), SCENARIOS)
        return {s.name: found for s, found in zip(SCENARIOS, done, strict=True)}
