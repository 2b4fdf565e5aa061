"""The drift verb on releases, on a clone and with bad input."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conftest import (
    IDENTITY,
    ROOT,
    Pins,
    copy_overlay,
    give_modules,
    give_packages,
    run_verb,
    valid_report,
)
from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.series.ledger import LEDGER, Ledger, encode_ledger, ledger
from overlaykit.sources.releases import known, obtain
from support.forks import forked

COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
FEW = ("0.5.14", "0.5.15", "0.5.18", "0.5.22")
"""Releases that are a dangerous mix, reverted, to be revived and carried already."""


@pytest.fixture(scope="module", autouse=True)
def _releases(pins: Pins) -> None:
    """Fetch every recorded wheel; skip if one cannot be fetched."""
    target = pins.overlay["sglang"].target
    try:
        for release in known(ROOT, target.package_dist.name):
            obtain(ROOT, target, release.version)
    except EnvironmentFailure as error:
        pytest.skip(f"the releases cannot be fetched: {error}")


def run(
    *arguments: str, root: Path = ROOT, **extra: str
) -> subprocess.CompletedProcess[str]:
    return forked(root / "scripts" / "drift.py", arguments, env=extra)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this overlay that has recorded few releases, and keeps their facts for
    the tests of this file."""
    root = give_packages(copy_overlay(tmp_path_factory.mktemp("few") / "overlay"))
    everything = ledger(root).releases
    recorded = {version: everything["sglang"][version] for version in FEW}
    made = Ledger(releases={**everything, "sglang": recorded})
    (root / LEDGER).write_bytes(encode_ledger(made))
    return root


@pytest.fixture
def clone(slim: Callable[..., Path]) -> Path:
    """The pin, and commits that shift lines, touch no carried file, and conflict."""
    root = slim()
    file = root / COMMUNICATOR
    text = file.read_text()
    for subject, changed in (
        ("Shift #1 by @somebody", "# A line more.\n" + text),
        ("Touch nothing of ours", None),
        ("<script>alert(1)</script> | `x`", text.replace("fused_rms_fp8_", "f_")),
    ):
        if changed is None:
            (root / "NOTES").write_text(subject)
        else:
            file.write_text(changed)
        git.run(root, "add", "-A", "-f")
        git.run(root, "commit", "-q", "-m", subject, env=IDENTITY)
    git.run(root, "tag", "old", "HEAD~3")
    return root


@pytest.mark.slow("every recorded release")
def test_every_recorded_release() -> None:
    done = run("--recorded", "--json")
    assert done.returncode == 0, done.stderr
    report = valid_report(done.stdout)
    found = {result["tree"]: result for result in report["results"]}
    assert len(found) == len(known(ROOT, "sglang"))
    assert found["0.5.11"]["outcome"] == "apply as is"
    assert found["0.5.13"]["column"]["dangers"]
    assert {len(r["column"]["sites"]) for r in found.values()} == {9}
    again = run("--recorded", "--json")
    assert again.stdout == done.stdout
    assert "versions" not in again.stderr


@pytest.mark.slow("every recorded release")
@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_matrix_fits(width: int) -> None:
    done = run("--recorded", COLUMNS=str(width))
    assert done.returncode == 0
    matrix, _, rest = done.stdout.partition("\n\n  clean")
    lines = matrix.splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(line for line in lines if line.startswith("  "))
    assert len(shown.split()) == len(known(ROOT, "sglang"))
    assert matrix.count("\n0003 ") == matrix.count("\nS8 ") >= 1
    assert "DANGER" in rest
    assert done.stdout.isascii()


def test_a_second_run_uses_the_cache(few: Path) -> None:
    first, second = (run("--recorded", "--json", root=few) for _ in range(2))
    assert [r["tree"] for r in json.loads(first.stdout)["results"]] == list(FEW)
    assert first.stdout == second.stdout
    assert "versions" not in second.stderr


def test_only_some_releases(few: Path) -> None:
    """Those before them decide what was reverted, and are not shown."""
    some = ("--release", "0.5.18", "--release", "0.5.15")
    done = run(*some, "--json", root=few)
    report = json.loads(done.stdout)
    assert [result["tree"] for result in report["results"]] == ["0.5.15", "0.5.18"]
    sites = report["results"][0]["column"]["sites"]
    assert {s["outcome"] for s in sites} == {"reverted upstream", "superseded"}


def test_without_an_index(few: Path, tmp_path: Path) -> None:
    done = run(root=few, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (
        "only the releases in releases.lock: the package index lists no releases"
        in done.stdout
    )
    # Without the kernels nothing is run, and nothing is revived.
    [advice] = re.findall(r"^0\.5\.18: (.+)$", done.stdout, re.MULTILINE)
    advised = "revive" if importlib.util.find_spec("torch") else "decide by hand"
    assert f"{advised} 0001" in advice
    assert "\n0.5.22: carried already" in done.stdout


class _Page(HTMLParser):
    """A page's ids and tags, and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.blocks: list[str] = []
        self._in_pre = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "popovertarget":
                self.targets.append(value or "")
            if name in ("src", "href") and not (value or "").startswith("#"):
                self.loads.append(value or "")
        if tag == "pre":
            self._in_pre = True
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_pre = self._in_pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._in_pre:
            self.blocks[-1] += data


@pytest.mark.parametrize(
    "every",
    [False, pytest.param(True, marks=pytest.mark.slow("every recorded release"))],
)
def test_the_pages(few: Path, tmp_path: Path, every: bool) -> None:
    html, markdown = tmp_path / "it.html", tmp_path / "it.md"
    pages = ("--html", str(html), "--markdown", str(markdown))
    root = ROOT if every else few
    done = run("--recorded", *pages, "--quote", "3", root=root)
    assert done.returncode == 0, done.stderr
    page = _Page()
    page.feed(html.read_text(encoding="utf-8"))
    assert page.loads == []
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.targets) <= set(page.ids)
    versions = len(known(root, "sglang"))
    assert len({i for i in page.ids if i.startswith("e")}) == versions * 14
    assert len(page.blocks) > versions * 5
    assert max(len(block.splitlines()) for block in page.blocks) == 3
    text = markdown.read_text(encoding="utf-8")
    assert text.count("\n| S8 | ") == 1
    assert "**dangerous mix**" in text
    assert sorted(tmp_path.iterdir()) == [html, markdown]


def test_refs_of_a_clone(clone: Path, tmp_path: Path) -> None:
    html, markdown = tmp_path / "it.html", tmp_path / "it.md"
    pages = ("--html", str(html), "--markdown", str(markdown))
    done = run(
        "--clone", str(clone), "--ref", "old", "HEAD~2", "main", *pages, "--json"
    )
    assert done.returncode == 0, done.stderr
    old, shifted, markup = json.loads(done.stdout)["results"]
    assert old["outcome"] == "apply as is"
    assert shifted["outcome"].startswith("rebase")
    patches = {p["row"]: p["outcome"] for p in shifted["column"]["patches"]}
    assert patches["0002-communicator-producers"] == "offset"
    assert patches["0001-fp8-consumer"] == "clean"
    sites = {s["row"]: s["outcome"] for s in markup["column"]["sites"]}
    assert sites["S1"] == "gone"
    assert sites["S3"] == "clean"
    assert git.text(clone, "status", "--porcelain") == ""
    # A commit's subject is text, on both pages.
    assert "<script" not in html.read_text(encoding="utf-8").lower()
    text = markdown.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "@somebody" not in text and "#1 " not in text


def test_a_range(clone: Path) -> None:
    """A commit that touches no carried file is left out."""
    done = run("--clone", str(clone), "--range", "old..main", "--json")
    assert done.returncode == 0, done.stderr
    about = [
        r["column"]["version"]["about"] for r in json.loads(done.stdout)["results"]
    ]
    assert [re.sub(r"^\S+ \S+ ", "", a) for a in about] == [
        "pin",
        "Shift #1 by @somebody",
        "<script>alert(1)</script> | `x`",
    ]


def test_first_bad(clone: Path) -> None:
    where = ("--clone", str(clone), "--range", "old..main", "--first-bad")
    done = run(*where, "0002")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0002-communicator-producers changes with ")
    assert "<script>alert(1)</script>" in done.stdout
    assert "before  offset" in done.stdout
    removed = [line for line in done.stdout.splitlines() if line.startswith("    -")]
    assert any("fused_rms_fp8_" in line for line in removed)
    report = json.loads(run(*where, "S1", "--json").stdout)
    assert report["results"][0]["change"]["commit"] == git.text(
        clone, "rev-parse", "main"
    )
    same = run(*where, "S8")
    assert same.returncode == 0
    assert same.stdout.startswith("S8 does not change")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--release", "0.5.99"], ["does not have sglang 0.5.99", "0.5.23"]),
        (["--release", "newest"], ["not the version of a release"]),
        (["--target", "vllm"], ["no target vllm", "sglang"]),
        (["--ref", "main"], ["--ref and --range need --clone"]),
        (
            ["--clone", "CLONE"],
            ["--clone needs --ref or --range"],
        ),
        (["--clone", "CLONE", "--ref", "nope"], ["no commit 'nope'", "main", "old"]),
        (["--clone", "CLONE", "--ref", "--all"], ["expected at least one argument"]),
        (["--clone", "CLONE", "--range", "main"], ["is not A..B"]),
        (["--clone", "CLONE", "--range", "main..old"], ["give the older one first"]),
        (["--clone", "CLONE", "--range", "a...b"], ["is not A..B"]),
        (["--clone", "/nowhere", "--ref", "main"], ["does not exist", "git clone"]),
        (["--clone", "CLONE/python", "--ref", "main"], ["is not a clone"]),
        (["--target", "aiter", "--clone", "CLONE", "--ref", "main"], ["is not aiter"]),
        (["--first-bad", "S1"], ["--first-bad needs"]),
        (
            ["--clone", "CLONE", "--range", "old..main", "--first-bad", "S9"],
            ["no patch or site 'S9'", "0001-fp8-consumer"],
        ),
        (["--recorded", "--quote", "-1"], ["a whole number from 0"]),
        (["--recorded", "--quote", "many"], ["a whole number from 0"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_input(clone: Path, arguments: list[str], said: list[str]) -> None:
    done = run(*(a.replace("CLONE", str(clone)) for a in arguments))
    assert done.returncode == 2, done.stdout
    for text in said:
        assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_shallow_clone(clone: Path, tmp_path: Path) -> None:
    """The message says that the clone is shallow, and how to deepen it."""
    shallow = tmp_path / "shallow"
    git.run(tmp_path, "clone", "-q", "--depth", "2", f"file://{clone}", str(shallow))
    assert run("--clone", str(shallow), "--ref", "main").returncode == 0
    missing = run("--clone", str(shallow), "--ref", "old")
    assert missing.returncode == 2
    assert "fetch --unshallow" in missing.stderr
    git.run(shallow, "fetch", "-q", "--depth", "1", "origin", "tag", "old")
    cut = run("--clone", str(shallow), "--range", "old..main")
    assert cut.returncode == 2
    assert "does not reach old" in cut.stderr
    assert "fetch --unshallow" in cut.stderr


def test_a_partial_clone(clone: Path, tmp_path: Path) -> None:
    """A clone like that of the nightly workflow: drift reads the commit that was
    checked out, and fetches nothing for other commits."""
    file = clone / COMMUNICATOR
    text = file.read_text()
    # The path makes the tree unique, so that the cache has no facts about it.
    for changed in (f"# {tmp_path}\n{text}", text):
        file.write_text(changed)
        git.run(clone, "commit", "-q", "-a", "-m", "change", env=IDENTITY)
    git.run(clone, "config", "uploadpack.allowFilter", "true")
    git.run(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{clone}", "partial")
    partial = str(tmp_path / "partial")
    assert run("--clone", partial, "--ref", "main").returncode == 0
    older = run("--clone", partial, "--ref", "main~1")
    assert older.returncode == 5
    assert f"git does not have {COMMUNICATOR} locally" in older.stderr
    assert "fetch --refetch --no-filter" in older.stderr


def test_a_base_that_cannot_be_fetched(
    overlay: Path, slim: Callable[..., Path], tmp_path: Path
) -> None:
    """No cached package, no index, and a clone without the pinned files."""
    give_modules(overlay)
    root = slim()
    file = root / COMMUNICATOR
    file.write_text("# A line more.\n" + file.read_text())
    shutil.rmtree(root / ".git")
    git.run(root, "init", "-q")
    git.run(root, "add", "-A", "-f")
    git.run(root, "commit", "-q", "-m", "later", env=IDENTITY)
    done = forked(
        overlay / "scripts" / "drift.py",
        ["--clone", str(root), "--ref", "main"],
        env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)},
    )
    assert done.returncode == 5, done.stdout
    assert "run scripts/fetch.py" in done.stderr
    assert "fetch --depth 1 origin tag v0.5.11" in done.stderr


def test_pages_that_cannot_be_written(tmp_path: Path) -> None:
    there = tmp_path / "no" / "such" / "folder.md"
    done = run("--recorded", "--markdown", str(there))
    assert done.returncode == 5
    assert "cannot write" in done.stderr


@pytest.mark.slow("every recorded release")
def test_the_evidence_is_current(tmp_path: Path, kernels: None) -> None:
    """Without the kernels nothing is run, and the page differs in what is live."""
    page = tmp_path / "drift.md"
    assert run("--recorded", "--markdown", str(page)).returncode == 0
    made, kept = (
        re.sub(r"^Made by .*$", "", path.read_text(encoding="utf-8"), flags=re.M)
        for path in (page, ROOT / "docs" / "evidence" / "drift.md")
    )
    assert made == kept


def test_help_shows_examples_and_codes() -> None:
    done = run_verb("drift", "--help")
    assert done.returncode == 0
    assert "scripts/drift.py --clone" in done.stdout
    assert "exit codes:" in done.stdout
