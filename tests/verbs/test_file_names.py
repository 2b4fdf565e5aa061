"""File names that git quotes: every verb carries them, or refuses them.

The patches are made by real git. The first name is one of SGLang's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import IDENTITY, ROOT, Pins, give_modules
from overlaykit.core import git
from overlaykit.core.errors import InputError
from overlaykit.series.patches import parse_patch
from support.edits import commit
from support.forks import forked
from support.one_base import keep_first
from verbs.test_export import tree_of

CONFIG = (
    "python/sglang/srt/layers/moe/moe_runner/triton_utils/configs/triton_3_1_0/"
    "E=256,N=128,device_name=NVIDIA_H20,block_shape=[128, 128].json"
)
VERSION = "0.5.99"
FOLDER = "python/sglang/configs"
CARRIED = {
    "space": "E=256, N=128.json",
    "brackets": "block_shape=[128,128].py",
    "a pattern": "*?[a-z].py",
    "quotation marks": 'the "best" one.py',
    "not ASCII": "größe=256 ✓.py",
    "space at its end": "name.py ",
    "spaces around": " b/name  a/x ",
    "dash before it": "--force.py",
    "colon before it": ":(glob)x.py",
    "only a quote": '"',
    "dollar and quote": "it's $HOME `x`.py",
}
REFUSED = {
    "tab": "a\tb.py",
    "backslash": "a\\b.py",
    "line end": "a\nb.py",
    "escape": "a\x1bb.py",
    "not UTF-8": os.fsdecode(b"a\xffb.py"),
}
QUOTEPATH = ("true", "false")
HEADER = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A Tester <tester@localhost>
Date: Sun, 22 Nov 2026 00:00:00 +0000
Subject: [PATCH] Change a file

Why.

Forwarded: no
X-Drop-When: never.
X-Sites:
---

"""


def format_patch(clone: Path, *more: str, quotepath: str = "true") -> bytes:
    """The last commit, written by git format-patch."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-c", f"core.quotePath={quotepath}", "format-patch", "--stdout",
         "--full-index", *more, "-1"],
        cwd=clone, env=env, capture_output=True, check=True,
    )  # fmt: skip
    _, mark, diff = done.stdout.partition(b"\ndiff --git ")
    assert mark
    return HEADER.encode() + mark[1:] + diff


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    (place / FOLDER).mkdir(parents=True)
    git.run(place, "init", "-q")
    return place


def changed(repository: Path, name: str, quotepath: str) -> bytes:
    """A patch, made by real git, that changes a file with this name."""
    place = repository / FOLDER / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("x = 1\n")
    commit(repository)
    place.write_text("x = 2\n")
    commit(repository)
    return format_patch(repository, quotepath=quotepath)


@pytest.mark.parametrize("quotepath", QUOTEPATH)
@pytest.mark.parametrize("name", CARRIED.values(), ids=CARRIED)
def test_gits_quoting_is_read(repository: Path, name: str, quotepath: str) -> None:
    patch = changed(repository, name, quotepath)
    [file] = parse_patch("0001-x.patch", patch).files
    assert file.path == f"{FOLDER}/{name}"
    if b"\t\n" in patch:
        [without] = parse_patch("0001-x.patch", patch.replace(b"\t\n", b"\n")).files
        assert without.path == file.path


@pytest.mark.parametrize("quotepath", QUOTEPATH)
@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_an_unsupported_name_is_refused_with_the_reason(
    repository: Path, name: str, quotepath: str
) -> None:
    patch = changed(repository, name, quotepath)
    at = patch.splitlines().index(next(
        line for line in patch.splitlines() if line.startswith(b"diff --git ")
    )) + 1  # fmt: skip
    with pytest.raises(InputError) as refused:
        parse_patch("0001-x.patch", patch)
    [finding] = refused.value.findings
    assert finding.line == at
    assert "invisible character" in finding.what or "not UTF-8" in finding.what
    assert finding.next_step and "leave this file out" in finding.next_step


@pytest.mark.parametrize(
    "old, new",
    [
        (b"--- a/", b"--- b/"),
        (b"+++ b/", b"+++ b/x"),
        (b".json\t\n", b".json\t2026-01-01\n"),
        (b".json\t\n", b".json \n"),
        (b"diff --git a/", b"diff --git a/x"),
    ],
)
def test_names_that_differ_are_refused(
    repository: Path, old: bytes, new: bytes
) -> None:
    patch = changed(repository, CARRIED["space"], "true")
    assert old in patch
    with pytest.raises(InputError):
        parse_patch("0001-x.patch", patch.replace(old, new, 1))


@pytest.mark.parametrize(
    "spelt",
    [rb'"a/\400.py"', rb'"a/\q.py"', rb'"a/x.py', rb'"a/x"y.py"', rb'"a/"', rb'"x.py"'],
)
def test_quoting_that_git_does_not_write(spelt: bytes) -> None:
    other = spelt.replace(b'"a/', b'"b/', 1)
    patch = b"diff --git " + spelt + b" " + other + b"\nindex "
    with pytest.raises(InputError, match="expected a diff header"):
        parse_patch("0001-x.patch", HEADER.encode() + patch)


@dataclass(frozen=True)
class Overlay:
    """A separate overlay and its tree."""

    root: Path

    @property
    def tree(self) -> Path:
        return self.root / "build" / "sglang"

    def run(self, verb: str, *arguments: object, code: int = 0) -> str:
        script = self.root / "scripts" / f"{verb}.py"
        done = forked(script, [*map(str, arguments)], self.root)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def contents(self, end: str = "") -> set[str]:
        """The contents of the files with all names."""
        places = [self.tree / FOLDER / f"{name}{end}" for name in CARRIED.values()]
        return {p.read_text() if p.exists() else "none" for p in places}


def make_wheel(folder: Path) -> None:
    about = f"sglang-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: sglang\nVersion: {VERSION}\n"
    tag = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
    with zipfile.ZipFile(folder / f"sglang-{VERSION}-py3-none-any.whl", "w") as file:
        file.writestr("sglang/__init__.py", "x = 1\n")
        for name in CARRIED.values():
            file.writestr(f"sglang/configs/{name}", "x = 1\n")
        file.writestr(f"{about}/METADATA", metadata)
        file.writestr(f"{about}/WHEEL", f"{tag}Tag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Overlay:
    """A package with files of all these names, a patch that changes them, and new files
    with similar names."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    make_wheel(tmp_path)
    one = Overlay(tmp_path / "overlay")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "scripts", one.root / "scripts", ignore=ignored)
    (one.root / "overlay.toml").write_text(
        'name = "odd"\n[targets.sglang]\n'
        'repository = "https://github.com/sgl-project/sglang"\n'
        'package = "sglang"\npackage_root = "python/sglang"\n'
        f'dist = {{ name = "sglang", version = "{VERSION}" }}\n'
    )
    series = one.root / "patches" / "sglang" / "series"
    series.parent.mkdir(parents=True)
    series.touch()
    for name in CARRIED.values():
        new = one.root / "overlay" / "sglang" / FOLDER / f"{name}new"
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text("y = 1\n")
    one.run("lock")
    one.run("fetch")
    write_all(one, "x = 2\n")
    commit(one.tree)
    series.with_name("0001-x.patch").write_bytes(format_patch(one.tree))
    git.run(one.tree, "reset", "-q", "--hard", "HEAD~1")
    series.write_text("0001-x.patch\n")
    one.run("lock")
    return one


def write_all(one: Overlay, text: str) -> None:
    for name in CARRIED.values():
        (one.tree / FOLDER / name).write_text(text)


def test_every_verb_supports_them(odd: Overlay) -> None:
    odd.run("lock", "--check")
    odd.run("apply", odd.tree)
    assert (odd.contents(), odd.contents("new")) == ({"x = 2\n"}, {"y = 1\n"})
    odd.run("apply", "--status", odd.tree)
    # This series' promises do not hold for such a package; its file checks do.
    said = json.loads(odd.run("verify", "--json", odd.tree))
    assert not [f for f in said["findings"] if FOLDER in str(f["path"])], said
    odd.run("apply", "--unapply", odd.tree)
    assert (odd.contents(), odd.contents("new")) == ({"x = 1\n"}, {"none"})
    odd.run("apply", "--commit", odd.tree)
    assert git.text(odd.tree, "status", "--porcelain") == ""
    names = git.run(odd.tree, "show", "--format=", "--name-only", "-z", "HEAD").stdout
    assert set(names.decode().split("\0")) == {
        "", *(f"{FOLDER}/{name}" for name in CARRIED.values())
    }  # fmt: skip
    assert "already applied" in odd.run("apply", "--commit", odd.tree)


def test_they_are_exported(odd: Overlay, tmp_path: Path) -> None:
    """As a mailbox that git am accepts, a branch, and a folder for quilt."""
    box, folder = tmp_path / "box", tmp_path / "out" / "patches"
    odd.run("export", "--target", "sglang", "--mbox", box)
    odd.run("export", "--target", "sglang", "--branch", "b", "--clone", odd.tree)
    git.run(odd.tree, "am", "-q", str(box), env=IDENTITY)
    trees = {git.text(odd.tree, "rev-parse", f"{at}^{{tree}}") for at in ("HEAD", "b")}
    assert len(trees) == 1
    odd.run("export", "--target", "sglang", "--quilt", folder)
    assert (folder / "0001-x.patch").is_file()


def test_an_edit_is_refreshed(odd: Overlay) -> None:
    """Refresh and lock write names that they can read."""
    odd.run("apply", odd.tree)
    write_all(odd, "x = 3\n")
    odd.run("refresh", odd.tree)
    patch = (odd.root / "patches" / "sglang" / "0001-x.patch").read_bytes()
    assert patch.count(b"+x = 3\n") == len(CARRIED)
    odd.run("lock", "--check")
    odd.run("apply", "--status", odd.tree)


def test_drift_of_commits(odd: Overlay) -> None:
    """Git lists the commits that touch them, by name and not by pattern."""
    base = git.text(odd.tree, "rev-parse", "HEAD")
    write_all(odd, "# new\nx = 1\n")
    commit(odd.tree)
    span = f"{base}..HEAD"
    said = odd.run("drift", "--json", "--clone", odd.tree, "--range", span)
    assert json.loads(said)["exit_code"] == 0


def test_a_step_to_take_can_be_pasted(odd: Overlay) -> None:
    """A staged file with such a name is refused, and its name is quoted for a shell."""
    name = CARRIED["dollar and quote"]
    (odd.tree / FOLDER / name).write_text("mine = 1\n")
    git.run(odd.tree, "add", "-A")
    (odd.tree / FOLDER / name).write_text("x = 1\n")
    said = json.loads(odd.run("apply", "--json", "--commit", odd.tree, code=3))
    [finding] = said["findings"]
    command = re.search(r"git restore --staged -- .*?(?=\); )", finding["next_step"])
    assert command
    subprocess.run(command[0], shell=True, cwd=odd.tree, check=True)
    odd.run("apply", "--commit", odd.tree)


@pytest.fixture
def own(
    carrier: Path, slim: Callable[..., Path], pins: Pins
) -> tuple[Overlay, Path, bytes]:
    """This overlay with one more patch, for a kernel's configuration file of SGLang's
    own; a clone of the release; and the file as released."""
    keep_first(carrier)
    clone = slim()
    place = clone / CONFIG
    place.parent.mkdir(parents=True)
    before = pins.tree("sglang").read(CONFIG)
    assert before is not None
    place.write_bytes(before)
    commit(clone)
    place.write_bytes(before.replace(b'"num_warps": 4', b'"num_warps": 8', 1))
    commit(clone)
    patches = carrier / "patches" / "sglang"
    (patches / "0006-x.patch").write_bytes(format_patch(clone, "-U40"))
    git.run(clone, "reset", "-q", "--hard", "HEAD~1")
    with (patches / "series").open("a") as series:
        series.write("0006-x.patch\n")
    one = Overlay(carrier)
    one.run("lock")
    return one, clone, before


def test_a_name_of_sglangs_own(own: tuple[Overlay, Path, bytes]) -> None:
    one, clone, before = own
    place = clone / CONFIG
    one.run("apply", clone)
    assert place.read_bytes() != before
    one.run("apply", "--status", clone)
    one.run("verify", clone)
    place.write_bytes(before)
    said = json.loads(one.run("verify", "--json", clone, code=1))
    assert {finding["path"] for finding in said["findings"]} == {CONFIG}
    one.run("apply", "--unapply", clone)
    assert place.read_bytes() == before


def test_a_name_of_sglangs_own_is_exported(
    own: tuple[Overlay, Path, bytes], tmp_path: Path
) -> None:
    """git am, git apply and quilt read the exports, with the tree of apply."""
    one, clone, _ = own
    copies = {
        name: shutil.copytree(clone, tmp_path / name, symlinks=True)
        for name in ("mailed", "piped", "quilted")
    }
    one.run("apply", clone)
    want = tree_of(clone)

    one.run("export", "--target", "sglang", "--mbox", tmp_path / "box")
    git.run(copies["mailed"], "am", "-q", str(tmp_path / "box"), env=IDENTITY)
    assert git.text(copies["mailed"], "rev-parse", "HEAD^{tree}") == want

    patches = copies["quilted"] / "patches"
    one.run("export", "--target", "sglang", "--quilt", patches)
    git.run(copies["piped"], "update-index", "-q", "--refresh")
    for name in (patches / "series").read_text().split():
        git.run(copies["piped"], "apply", "--index", str(patches / name))
    assert git.text(copies["piped"], "write-tree") == want

    if shutil.which("quilt") is None:
        pytest.skip("quilt is not installed: its part was not run")
    push = ["quilt", "push", "-a", "-q"]
    subprocess.run(push, cwd=copies["quilted"], check=True, stdout=subprocess.DEVNULL)
    assert tree_of(copies["quilted"]) == want


def test_drift_of_a_name_of_sglangs_own(own: tuple[Overlay, Path, bytes]) -> None:
    """A commit that touches only this file is in the range, and its patch is judged.
    No site is run for that."""
    one, clone, before = own
    give_modules(one.root)
    for wheel in (one.root / "build" / "cache").glob("amd_aiter*"):
        wheel.unlink()
    base = git.text(clone, "rev-parse", "HEAD")
    other = before.replace(b'"num_warps": 4', b'"num_warps": 2', 1)
    (clone / CONFIG).write_bytes(other)
    commit(clone)
    words = ("drift", "--json", "--clone", clone, "--range", f"{base}..HEAD")
    said = json.loads(one.run(*words))
    cells = [result["column"]["patches"][-1] for result in said["results"]]
    assert {cell["row"] for cell in cells} == {"0006-x"}
    assert [cell["outcome"] for cell in cells] == ["clean", "conflict"]
