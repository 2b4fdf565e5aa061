"""Other tools apply the exported series, with the same tree as apply."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import IDENTITY, Pins, run_verb
from overlaykit.core import git
from overlaykit.core.errors import InputError
from overlaykit.export.formats import export_quilt, mailbox
from overlaykit.series.quilt import read_header

# The engine takes every path literally; these are patterns.
_GLOBS = {"GIT_LITERAL_PATHSPECS": "0"}


def tree_of(root: Path) -> str:
    """The git tree id of the work tree, without the tools' own folders."""
    git.run(root, "add", "-A", "-f", "--", ".", ":!patches", ":!.pc", env=_GLOBS)
    return git.text(root, "write-tree")


@pytest.fixture
def clones(slim: Callable[..., Path]) -> Callable[[str, str], Path]:
    def make(target: str, name: str) -> Path:
        clone = slim(target, name)
        git.run(clone, "tag", "pin")
        return clone

    return make


@pytest.mark.parametrize("target", ["sglang", "aiter"])
def test_same_tree_by_quilt_am_and_git_apply(
    target: str, pins: Pins, clones: Callable[[str, str], Path], tmp_path: Path
) -> None:
    carried = pins.overlay[target]
    ours = clones(target, "ours")
    assert run_verb("apply", str(ours)).returncode == 0
    want = tree_of(ours)

    mailed = clones(target, "mailed")
    git.run(mailed, "config", "user.name", "t")
    git.run(mailed, "config", "user.email", "t@localhost")
    git.run(mailed, "am", "-q", stdin=mailbox(carried))
    assert git.text(mailed, "rev-parse", "HEAD^{tree}") == want

    piped = clones(target, "piped")
    git.run(piped, "update-index", "-q", "--refresh")
    names = export_quilt(carried, tmp_path / "patches")
    for name in names[:-1]:
        patch = (tmp_path / "patches" / name).read_bytes()
        git.run(piped, "apply", "--index", "-", stdin=patch)
    assert git.text(piped, "write-tree") == want

    if shutil.which("quilt") is None:
        pytest.skip("quilt is not installed: its part was not run")
    quilted = clones(target, "quilted")
    shutil.copytree(tmp_path / "patches", quilted / "patches")
    subprocess.run(["quilt", "push", "-a", "-q"], cwd=quilted, check=True)
    assert tree_of(quilted) == want


@pytest.mark.parametrize("target", ["sglang", "aiter"])
def test_am_and_commit_agree_on_messages(
    target: str, pins: Pins, clones: Callable[[str, str], Path]
) -> None:
    mailed, ours = clones(target, "mailed"), clones(target, "ours")
    git.run(mailed, "config", "user.name", "t")
    git.run(mailed, "config", "user.email", "t@localhost")
    git.run(mailed, "am", "-q", stdin=mailbox(pins.overlay[target]))
    assert run_verb("apply", "--commit", str(ours)).returncode == 0
    show = ("log", "--format=%an%n%ae%n%at%n%B%n%T", "pin..HEAD")
    assert git.text(mailed, *show) == git.text(ours, *show)


@pytest.mark.parametrize("target", ["sglang", "aiter"])
def test_other_tools_accept_the_exports(
    target: str, clones: Callable[[str, str], Path], tmp_path: Path
) -> None:
    ours = clones(target, "ours")
    assert run_verb("apply", str(ours)).returncode == 0
    want = tree_of(ours)

    box, text = tmp_path / "box", tmp_path / "text.md"
    done = export("--target", target, "--mbox", box, "--pr-body", text)
    assert done == (0, ""), done
    mailed = clones(target, "mailed")
    git.run(mailed, "config", "user.name", "t")
    git.run(mailed, "config", "user.email", "t@localhost")
    git.run(mailed, "am", "-q", str(box))
    assert git.text(mailed, "rev-parse", "HEAD^{tree}") == want

    branched = clones(target, "branched")
    head = git.text(branched, "rev-parse", "HEAD")
    assert export("--branch", "series", "--clone", branched)[0] == 0
    assert git.text(branched, "rev-parse", "series^{tree}") == want
    assert git.text(branched, "rev-parse", "HEAD") == head
    assert git.text(branched, "status", "--porcelain") == ""
    show = ("log", "--format=%an%n%ae%n%at%n%B%n%T")
    mails = git.text(mailed, *show, "pin..HEAD")
    assert mails == git.text(branched, *show, "pin..series")

    quilted = clones(target, "quilted")
    assert export("--target", target, "--quilt", quilted / "patches")[0] == 0
    if shutil.which("quilt") is None:
        pytest.skip("quilt is not installed: its part was not run")
    subprocess.run(["quilt", "push", "-a", "-q"], cwd=quilted, check=True)
    assert tree_of(quilted) == want


def export(*arguments: str | Path) -> tuple[int, str]:
    done = run_verb("export", *map(str, arguments))
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def test_the_text_of_a_pull_request(pins: Pins, tmp_path: Path) -> None:
    for target, names in (
        (
            "sglang",
            "Motivation, Modifications, Accuracy Tests, Speed Tests and Profiling, "
            "Checklist",
        ),
        (
            "aiter",
            "Motivation, Technical Details, Test Plan, Test Result, "
            "Submission Checklist",
        ),
    ):
        text, box = tmp_path / f"{target}.md", tmp_path / target
        assert export("--target", target, "--mbox", box, "--pr-body", text)[0] == 0
        said = text.read_text(encoding="utf-8")
        found = [line[3:] for line in said.splitlines() if line.startswith("## ")]
        assert ", ".join(found) == names
        sections = dict(part.partition("\n")[::2] for part in said.split("\n## ")[1:])
        accuracy, speed = names.split(", ")[2:4]
        assert "Not run" in sections[accuracy]
        assert "Not run" in sections[speed]
        assert "[x]" not in said
        # The fields are for the carrier of the patch, not for upstream.
        for field in ("X-Sites", "X-Drop-When", "Forwarded:"):
            assert field not in said
        for patch in pins.overlay[target].series.patches:
            header = read_header(patch)
            assert f"### {header.subject}\n" in said
            assert header.fields["Forwarded"] in said
        for new in pins.overlay[target].new_files:
            assert f"- `{new.path}`" in said


def test_nothing_is_overwritten(
    clones: Callable[[str, str], Path], tmp_path: Path
) -> None:
    stray = tmp_path / "stray" / "stray.patch"
    stray.parent.mkdir()
    stray.write_text("mine")
    code, said = export("--target", "sglang", "--quilt", stray.parent)
    assert (code, f"{stray.parent}: already exists" in said) == (2, True)
    for option in ("--mbox", "--quilt"):
        code, said = export("--target", "sglang", option, stray)
        assert (code, f"{stray}: already exists" in said) == (2, True)
    box = tmp_path / "box"
    code, _ = export("--target", "sglang", "--mbox", box, "--pr-body", stray)
    assert (code, box.exists()) == (2, False)
    assert [p.name for p in stray.parent.iterdir()] == ["stray.patch"]
    assert stray.read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert export("--target", "sglang", "--quilt", tmp_path / "empty")[0] == 0
    assert (tmp_path / "empty" / "series").is_file()

    clone = clones("aiter", "clone")
    assert export("--branch", "series", "--clone", clone)[0] == 0
    tip = git.text(clone, "rev-parse", "series")
    for _ in range(2):
        code, said = export("--branch", "series", "--clone", clone)
        assert (code, "branch series exists" in said) == (3, True)
        assert git.text(clone, "rev-parse", "series") == tip
        git.run(clone, "update-ref", "refs/heads/series", "pin^{commit}")
        tip = git.text(clone, "rev-parse", "pin^{commit}")


def test_bad_input(clones: Callable[[str, str], Path], tmp_path: Path) -> None:
    clone = clones("aiter", "clone")
    for arguments, named in (
        ((), "required"),
        (("--mbox", tmp_path / "box"), "--target"),
        (
            ("--mbox", tmp_path / "box", "--target", "vllm"),
            "no target vllm",
        ),
        (("--branch", "series"), "--clone PATH"),
        (("--mbox", tmp_path / "box", "--clone", clone), "--clone PATH"),
        (("--branch", "a..b", "--clone", clone), "a..b"),
        (("--branch", "a", "--clone", tmp_path), "contains no target"),
        (("--branch", "a", "--clone", clone / "aiter"), "is not a clone"),
    ):
        code, said = export(*arguments)
        assert (code, named in said) == (2, True), said
    assert not (tmp_path / "box").exists()
    (clone / "aiter" / "ops" / "triton" / "fused_fp8_quant.py").write_text("other = 1")
    git.run(clone, "add", "-A")
    git.run(clone, "commit", "-q", "-m", "other", env=IDENTITY)
    code, said = export("--branch", "series", "--clone", clone)
    assert (code, "does not contain the pinned files" in said) == (3, True)
    assert git.text(clone, "branch", "--list", "series") == ""


def test_quilt_folder_must_be_empty(pins: Pins, tmp_path: Path) -> None:
    (tmp_path / "stray.patch").write_text("")
    with pytest.raises(InputError, match="already exists"):
        export_quilt(pins.overlay["sglang"], tmp_path)
