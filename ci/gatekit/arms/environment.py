"""Builds an arm as a virtual environment from the pinned bases.

A package is unpacked by pip; of a commit, the package's folder is copied. Nothing is
compiled: the two arms differ in source files only.

A file in the environment, written last, says that the environment is complete. An
incomplete environment, or one with another recipe, is built again. A non-empty folder
without that file is not ours and is left alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gatekit.arms.differences import InstalledTarget, changed_files
from gatekit.arms.results import PATCHED, Environment, series_of
from overlaykit.applying.inspection import inspect
from overlaykit.applying.targets import find_targets
from overlaykit.cli import Report, progress
from overlaykit.core.documents import from_json, to_json_line
from overlaykit.core.errors import (
    EnvironmentFailure,
    Exit,
    Finding,
    InputError,
    not_started,
)
from overlaykit.core.files import write_whole
from overlaykit.core.wording import quoted
from overlaykit.series.carried import Carried, load_overlay
from overlaykit.series.lock import TreeWithModes
from overlaykit.sources.bases import fetch_base
from overlaykit.sources.laying import write_file
from overlaykit.sources.packages import fetch, pip_command, wheel_tree
from overlaykit.verbs import run_verb

_STATE = "rebuild.json"
_FORMAT = 1

Say = Callable[[str], None]
Source = Path | TreeWithModes


class Recipe(msgspec.Struct, frozen=True):
    """Everything that goes into an environment: equal recipes, equal environments."""

    arm: str
    python: str
    packages: dict[str, str]
    series: str
    format: int = _FORMAT


class Installed(msgspec.Struct, frozen=True):
    """The file in an environment. ``whole`` is false while it is being built."""

    recipe: Recipe
    whole: bool


@dataclass(frozen=True)
class Wanted:
    """An arm to build at ``out`` with the interpreter ``python``."""

    root: Path
    arm: str
    out: Path
    python: str

    @property
    def interpreter(self) -> Path:
        return self.out / "bin" / "python"


def rebuild(wanted: Wanted, say: Say) -> Report:
    """Build the environment unless it is complete; check it in both cases."""
    bases = _bases(wanted.root)
    sources = {name: _source(wanted.root, one) for name, one in bases.items()}
    recipe = _recipe(wanted, bases)
    new = _state(wanted.out) != Installed(recipe, True)
    if new:
        refused = _make(wanted, recipe, sources, bases, say)
        if refused is not None:
            return refused
    site = _site(wanted.interpreter)
    installed = [
        InstalledTarget(one, site, sources[name]) for name, one in bases.items()
    ]
    differs = {one: changed_files(one, progress) for one in installed}
    say("checking what was installed")
    findings = [f for one in installed for f in _unexpected(wanted, one, differs[one])]
    findings += _verified(wanted, site)
    result = Environment(
        target="venv",
        tree=str(wanted.out),
        outcome="made" if new else "as it was made",
        arm=wanted.arm,
        series=recipe.series,
        python=recipe.python,
        packages=recipe.packages,
        digests={
            found.carried.name: inspect(found.carried, found.tree).digest
            for found in find_targets([site], bases)
        },
        differs=tuple(path for paths in differs.values() for path in paths),
        reinstalled=tuple(one.target.release for one in bases.values()),
    )
    return Report(
        verb="rebuild",
        exit_code=Exit.FAILS if findings else Exit.DONE,
        results=(result,),
        findings=tuple(findings),
        message=f"{len(findings)} findings" if findings else "",
    )


def dry_run(wanted: Wanted, _: Say) -> Report:
    """Report what :func:`rebuild` would do, from the lock alone."""
    bases = _bases(wanted.root)
    recipe = _recipe(wanted, bases)
    whole = _state(wanted.out) == Installed(recipe, True)
    result = Environment(
        target="venv",
        tree=str(wanted.out),
        outcome="as it was made" if whole else "would be made",
        arm=wanted.arm,
        series=recipe.series,
        python=recipe.python,
        packages=recipe.packages,
    )
    return Report(verb="rebuild", dry_run=True, results=(result,))


def _bases(root: Path) -> dict[str, Carried]:
    """The targets to install: for a package with several bases, the first one."""
    overlay = load_overlay(root)
    first: dict[str, str] = {}
    for name, one in overlay.items():
        first.setdefault(one.target.package, name)
    return {name: overlay[name] for name in first.values()}


def _recipe(wanted: Wanted, bases: Mapping[str, Carried]) -> Recipe:
    ask = "import sys; print(*sys.version_info[:3], sep='.'); print(sys.executable)"
    version, place = _run([wanted.python, "-I", "-c", ask]).splitlines()
    return Recipe(
        wanted.arm,
        f"{version} at {Path(place).resolve()}",
        dict(_identity(one) for one in bases.values()),
        series_of(wanted.arm, wanted.root),
    )


def _identity(one: Carried) -> tuple[str, str]:
    if one.lock.dist is not None:
        return one.lock.dist.filename, one.lock.dist.sha256
    return one.target.release, f"commit {one.lock.commit}"


def _source(root: Path, one: Carried) -> Source:
    """What the target is installed from: its wheel, or its commit."""
    if one.lock.dist is None:
        return fetch_base(root, one)
    wheel = fetch(root, one.target, one.lock.dist)
    # Checks the wheel's member names before pip unpacks it.
    wheel_tree(wheel, one.target)
    return wheel


def _state(out: Path) -> Installed | None:
    """The environment's state, or None if the folder is empty or missing. Raises
    InputError for any other folder: it may hold somebody's work."""
    try:
        return from_json((out / _STATE).read_bytes(), Installed)
    except (FileNotFoundError, NotADirectoryError):
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return None
    except (OSError, msgspec.DecodeError):
        pass
    finding = Finding(
        "this program did not make this folder",
        path=str(out),
        expected=f"an environment with its {_STATE}, an empty folder, or no folder",
        next_step="move it away, or choose another --out",
    )
    raise InputError(f"{out} is in the way", (finding,))


def _make(
    wanted: Wanted,
    recipe: Recipe,
    sources: Mapping[str, Source],
    bases: Mapping[str, Carried],
    say: Say,
) -> Report | None:
    """Build the environment, or leave nothing. Returns the verb's report if ``apply``
    refused."""
    try:
        if wanted.out.exists():
            say(f"{wanted.out} is incomplete or has another recipe: building it again")
            shutil.rmtree(wanted.out)
        wanted.out.mkdir(parents=True)
        _write_state(wanted.out, Installed(recipe, False))
        say(f"making {wanted.out} with Python {recipe.python}")
        # Without pip: anything added later would make the arms differ.
        _run([wanted.python, "-I", "-m", "venv", "--without-pip", str(wanted.out)])
        site = _site(wanted.interpreter)
        for name, source in sources.items():
            if isinstance(source, Path):
                say(f"installing {source.name}")
                # `python -m` looks for pip in the working directory first: use our own.
                _run(_install(bases[name], source, site), loud=True, cwd=wanted.out)
            else:
                say(f"copying {source.name}")
                _copy(bases[name], source, site)
        # Its scripts start the Python that ran pip, not this environment's.
        shutil.rmtree(site / "bin", ignore_errors=True)
        if wanted.arm == PATCHED:
            say("applying the series")
            done = run_verb(wanted.root, "apply", str(site), kind=Report)
            if done.exit_code is not Exit.DONE:
                shutil.rmtree(wanted.out, ignore_errors=True)
                return msgspec.structs.replace(done, verb="rebuild")
        _write_state(wanted.out, Installed(recipe, True))
    except OSError as error:
        shutil.rmtree(wanted.out, ignore_errors=True)
        step = "free disk space, or make the folder writable"
        finding = Finding(str(error), path=str(wanted.out), next_step=step)
        raise EnvironmentFailure("cannot make the environment", (finding,)) from error
    except BaseException:
        shutil.rmtree(wanted.out, ignore_errors=True)
        raise
    return None


def _copy(carried: Carried, tree: TreeWithModes, site: Path) -> None:
    layout = carried.target.site_layout()
    for path in tree.paths():
        place = site / (layout.inside(path) or path)
        write_file(place, tree.read(path) or b"", tree.mode(path))


def _install(carried: Carried, wheel: Path, site: Path) -> list[str]:
    """Pip's command to unpack a wheel. It ignores the wheel's Python version: the
    sources are the same, and the series changes no compiled file."""
    return [
        *pip_command(carried.target.package_dist, "install"),
        *("--isolated", "--no-deps", "--no-index", "--no-compile", "--quiet"),
        *("--target", str(site), str(wheel)),
    ]


def _write_state(out: Path, state: Installed) -> None:
    write_whole(out / _STATE, to_json_line(state).decode() + "\n")


def _site(interpreter: Path) -> Path:
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(_run([str(interpreter), "-I", "-c", ask]).strip())


def _unexpected(
    wanted: Wanted, one: InstalledTarget, differs: Sequence[str]
) -> list[Finding]:
    """Files that differ from the release but must not, and those that must but do
    not."""
    expected = set(one.expected()) if wanted.arm == PATCHED else set()
    release = one.carried.target.release
    again = f"rm -r {quoted(str(wanted.out))}, then run this again"
    return [
        *(
            Finding(
                "the file differs from the release",
                path=path,
                expected=f"the file of {release}, which the series does not change"
                if wanted.arm == PATCHED
                else f"the file of {release}",
                next_step=again,
            )
            for path in sorted(set(differs) - expected)
        ),
        *(
            Finding(
                "the file is the same as in the release",
                path=path,
                expected="the file as the series leaves it",
                next_step=again,
            )
            for path in sorted(expected - set(differs))
        ),
    ]


def _verified(wanted: Wanted, site: Path) -> list[Finding]:
    if wanted.arm == PATCHED:
        return list(run_verb(wanted.root, "verify", str(site), kind=Report).findings)
    status = run_verb(wanted.root, "apply", "--status", str(site), kind=Report)
    return [
        Finding(
            "the tree is not pristine",
            path=one.tree,
            expected="pristine",
            found=one.outcome,
            next_step=f"rm -r {quoted(str(wanted.out))}, then run this again",
        )
        for one in status.results
        if one.outcome != "pristine"
    ] + list(status.findings)


def _run(
    command: list[str],
    loud: bool = False,
    cwd: Path | None = None,
) -> str:
    """Run a command and return its standard output; with ``loud`` the output goes to
    standard error as it appears."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdout=sys.stderr if loud else subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except OSError as error:
        raise not_started(command[0], error) from error
    if done.returncode:
        step = "read its output above; on Debian, `venv` needs python3-venv"
        finding = Finding(f"exit code {done.returncode}", next_step=step)
        raise EnvironmentFailure(f"command failed: {' '.join(command)}", (finding,))
    return done.stdout or ""
