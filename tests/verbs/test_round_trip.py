"""apply, verify, unapply: byte for byte, on every kind of tree a user has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Pins, run_verb, snapshot
from overlaykit.core import git
from support.bases import BASES

pytestmark = pytest.mark.slow("every base in every form, through every verb")

AITER = "aiter"
Names = tuple[str, ...]


def clone(
    laid_out: dict[str, Path], names: Names, pins: Pins, folder: Path
) -> list[Path]:
    """Whole clones of the upstream repositories."""
    for name in names:
        shutil.copytree(laid_out[name], folder / name, symlinks=True)
    return [folder / name for name in names]


def plain(
    laid_out: dict[str, Path], names: Names, pins: Pins, folder: Path
) -> list[Path]:
    """Unpacked source trees: the same without git."""
    for name in names:
        without = shutil.ignore_patterns(".git")
        shutil.copytree(laid_out[name], folder / name, ignore=without)
    return [folder / name for name in names]


def installed(
    laid_out: dict[str, Path], names: Names, pins: Pins, folder: Path, *more: str
) -> list[Path]:
    """The packages as pip installs them, in one site-packages directory."""
    site = folder / "site-packages"
    for name in names:
        dist = pins.overlay[name].target.package_dist
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--no-index", "--only-binary=:all:", "--target", str(site)]
        command += ["--platform", dist.platform] if dist.platform else []
        command += ["--python-version", dist.python] if dist.python else []
        subprocess.run([*command, *more, str(pins.wheels[name])], check=True)
    return [site]


def package(
    laid_out: dict[str, Path], names: Names, pins: Pins, folder: Path
) -> list[Path]:
    """The installed packages' own directories. Their modules are not compiled, which
    takes longer than the rest."""
    [site] = installed(laid_out, names, pins, folder, "--no-compile")
    return [site / pins.overlay[name].target.package for name in names]


Kind = Callable[[dict[str, Path], Names, Pins, Path], list[Path]]
# AITER's tree is the same beside every base.
BOTH = (BASES[0], AITER)


def test_every_base_is_tested(pins: Pins) -> None:
    assert set(pins.overlay) == {*BASES, AITER}


@pytest.mark.parametrize(
    ("bases", "kind"),
    [
        *((BOTH, kind) for kind in (clone, plain, installed, package)),
        *(((base,), kind) for base in BASES[1:] for kind in (clone, package)),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, tuple) else given.__name__,
)
def test_round_trip(
    bases: Names, kind: Kind, laid_out: dict[str, Path], pins: Pins, tmp_path: Path
) -> None:
    paths = kind(laid_out, bases, pins, tmp_path)
    names = [str(path) for path in paths]
    pristine = snapshot(tmp_path)

    dry = run_verb("apply", "--dry-run", *names)
    assert dry.returncode == 0, dry.stderr
    assert snapshot(tmp_path) == pristine
    assert run_verb("apply", "--status", *names).returncode == 1

    done = run_verb("apply", *names)
    assert done.returncode == 0, done.stderr
    applied = snapshot(tmp_path)
    assert run_verb("apply", "--status", *names).returncode == 0
    changed = {path for path in applied if applied[path] != pristine.get(path)}
    assert {path.rpartition("/")[2] for path in changed} == {
        Path(path).name
        for name in bases
        for path in pins.overlay[name].paths
        if kind in (clone, plain) or not path.startswith("test/")
    }
    for path in changed & pristine.keys():
        assert applied[path][0] == pristine[path][0], f"{path}: mode"

    verified = run_verb("verify", *names)
    assert verified.returncode == 0, verified.stderr

    again = run_verb("apply", *names)
    assert again.returncode == 0
    assert again.stdout.count("already applied") == len(bases)
    assert snapshot(tmp_path) == applied

    undone = run_verb("apply", "--unapply", *names)
    assert undone.returncode == 0, undone.stderr
    restored = snapshot(tmp_path)
    assert {p: (m, d) for p, (m, _, d) in restored.items()} == {
        p: (m, d) for p, (m, _, d) in pristine.items()
    }
    for path in restored.keys() - changed:
        assert restored[path][1] == pristine[path][1], f"{path}: mtime"
    assert {p.name for p in tmp_path.rglob(".overlay*")} == set()
    assert run_verb("apply", "--unapply", *names).returncode == 0
    assert run_verb("verify", *names).returncode == 1


@pytest.mark.parametrize("name", [*BASES, AITER])
def test_the_locks_tree_id_equals_gits(
    name: str, laid_out: dict[str, Path], pins: Pins, tmp_path: Path
) -> None:
    """Compare the lock's tree digest with git's, for the applied files."""
    [path] = clone(laid_out, (name,), pins, tmp_path)
    carried = pins.overlay[name]
    assert run_verb("apply", str(path)).returncode == 0
    git.run(path, "read-tree", "--empty")
    git.run(path, "add", "-f", *carried.paths)
    assert git.text(path, "write-tree") == carried.lock.tree


def test_json_report(slim: Callable[..., Path]) -> None:
    root = slim()
    done = run_verb("apply", "--json", str(root))
    report = json.loads(done.stdout)
    assert report["verb"] == "apply"
    assert report["exit_code"] == done.returncode == 0
    [result] = report["results"]
    assert result["outcome"] == "applied"
    sites = [site for hunk in result["hunks"] for site in hunk["sites"]]
    assert sorted(sites) == ["C", *(f"S{n}" for n in range(1, 9))]


def test_works_from_any_directory(slim: Callable[..., Path], tmp_path: Path) -> None:
    root = slim()
    assert run_verb("apply", root.name, cwd=root.parent).returncode == 0
    assert run_verb("verify", ".", cwd=root).returncode == 0


def test_commit(slim: Callable[..., Path], pins: Pins) -> None:
    """One commit per patch on a new branch, with the same ids every time."""
    root, carried = slim(), pins.overlay["sglang"]
    (root / "unrelated.txt").write_text("not committed\n")
    base = git.text(root, "rev-parse", "HEAD")
    done = run_verb("apply", "--commit", str(root))
    assert done.returncode == 0, done.stderr
    tip = git.text(root, "rev-parse", "HEAD")
    assert git.text(root, "branch", "--show-current") == f"overlay/{carried.overlay}"
    subjects = git.text(root, "log", "--reverse", "--format=%s", f"{base}..").split(
        "\n"
    )
    assert len(subjects) == len(carried.series.patches) + 1
    assert subjects[1].startswith("fp8: ")
    assert git.text(root, "status", "--porcelain") == "?? unrelated.txt"
    assert run_verb("verify", str(root)).returncode == 0

    again = run_verb("apply", "--commit", str(root))
    assert again.returncode == 0, again.stderr
    assert git.text(root, "rev-parse", "HEAD") == tip

    other = slim(name="other")
    assert run_verb("apply", str(other)).returncode == 0
    assert run_verb("apply", "--commit", str(other)).returncode == 0
    assert git.text(other, "rev-parse", "HEAD") == tip


def test_commit_on_a_partial_clone(
    slim: Callable[..., Path], pins: Pins, tmp_path: Path
) -> None:
    """Other files of the clone are absent and need not be fetched."""
    upstream, partial = slim(), tmp_path / "partial"
    git.run(upstream, "config", "uploadpack.allowFilter", "true")
    git.run(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout",
            f"file://{upstream}", "partial")  # fmt: skip
    names = "".join(f"/{path}\n" for path in pins.overlay["sglang"].series.paths)
    git.run(partial, "sparse-checkout", "set", "--no-cone", "--stdin",
            stdin=names.encode())  # fmt: skip
    git.run(partial, "checkout", "-q")
    upstream.rename(tmp_path / "gone")
    done = run_verb("apply", "--commit", str(partial))
    assert done.returncode == 0, done.stderr
    whole = slim()
    assert run_verb("apply", "--commit", str(whole)).returncode == 0
    tips = [git.text(root, "rev-parse", "HEAD") for root in (partial, whole)]
    assert tips[0] == tips[1]
    assert git.text(partial, "diff", "--cached", "--name-only") == ""


def test_commit_refuses_a_branch_with_other_commits(
    slim: Callable[..., Path], pins: Pins
) -> None:
    root = slim()
    branch = f"overlay/{pins.overlay['sglang'].overlay}"
    git.run(root, "branch", branch)
    before = snapshot(root)
    done = run_verb("apply", "--commit", str(root))
    assert done.returncode == 3
    assert branch in done.stderr
    assert snapshot(root) == before


def test_commit_needs_a_clone(slim: Callable[..., Path]) -> None:
    root = slim(clone=False)
    before = snapshot(root)
    done = run_verb("apply", "--commit", str(root))
    assert done.returncode == 2
    assert "clone" in done.stderr
    assert snapshot(root) == before


def test_unchecked_bytecode_is_refused(slim: Callable[..., Path], pins: Pins) -> None:
    """A .pyc that Python never checks against its source would hide the change."""
    root, touched = slim(), pins.overlay["sglang"].series.paths[0]
    command = [sys.executable, "-m", "compileall", "-q"]
    for mode, code in (("unchecked-hash", 3), ("checked-hash", 0)):
        subprocess.run(
            [*command, "-f", "--invalidation-mode", mode, str(root / touched)],
            check=True,
        )
        done = run_verb("apply", "--dry-run", str(root))
        assert done.returncode == code, done.stderr
        assert ("rm " in done.stderr) == bool(code)


def test_a_clone_and_the_package_in_it_are_one_tree(
    slim: Callable[..., Path], pins: Pins
) -> None:
    """One lock and one journal, by either name of the tree."""
    root = slim()
    package = root / pins.overlay["sglang"].target.package_root
    both = run_verb("apply", str(root), str(package))
    assert both.returncode == 2
    assert "more than once" in both.stderr
    assert run_verb("apply", str(package)).returncode == 0
    assert run_verb("verify", str(root)).returncode == 0


def test_a_report_that_cannot_be_written(slim: Callable[..., Path]) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "apply.py"), "--status", "."]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=slim(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 5
    assert "Traceback" not in done.stderr


def test_a_python_without_the_dependency_gets_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", empty], check=True)
    for verb in ("apply", "verify", "lock", "fetch"):
        script = str(ROOT / "scripts" / f"{verb}.py")
        command = [str(empty / "bin" / "python"), script, "--help"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 5
        assert "pip install -r" in done.stderr
        assert "Traceback" not in done.stderr
