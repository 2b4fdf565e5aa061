"""The nightly run, end to end: a real history, a local remote, a stand-in for gh."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import IDENTITY, give_modules, valid_report
from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure, Finding
from support.edits import commit, edit
from support.one_base import without_others
from upstream.nightly.forge import Forge
from upstream.nightly.night import Check, Night, Outcome
from verbs.test_rebase import CALL, MHA, REWORDED, call

GH = Path(__file__).resolve().parents[1] / "support" / "gh_stand_in.py"
BRANCH = "nightly/sglang-main"
FOUND = Night(
    Outcome.CARRIED,
    "0123456789abcdef0123456789abcdef01234567",
    "0123456, 2026-01-01, a subject with $(touch here) and `touch there`",
    "sglang-main",
    "sglang",
    (Check("verify", True, "holds"),),
    changed=("overlay.toml",),
)
STOPPED = replace(
    FOUND,
    outcome=Outcome.STOPPED,
    checks=(Check("rebase", False, "stopped at a conflict"),),
    findings=(Finding("conflict", path="a.py", line=7, site="S1"),),
    changed=(),
)


@dataclass(frozen=True)
class Hosted:
    """A clone of an overlay, the remote that it came from, and the forge."""

    clone: Path
    remote: Path
    forge: Path

    def listed(self, kind: str) -> list[dict[str, Any]]:
        place = self.forge / f"{kind}s.json"
        found: list[dict[str, Any]] = []
        if place.exists():
            found = json.loads(place.read_bytes())
        return found

    def branch(self) -> str:
        """The commit of the branch on the remote; empty if there is none."""
        name = f"refs/heads/{BRANCH}"
        return git.text(self.remote, "for-each-ref", "--format=%(objectname)", name)


def host(overlay: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Hosted:
    """Make an overlay the clone of a remote, and put gh on PATH."""
    git.run(overlay, "init", "-q", "-b", "main")
    (overlay / ".gitignore").write_text("build/\n__pycache__/\n")
    commit_own(overlay)
    git.run(folder, "clone", "-q", "--bare", str(overlay), "remote.git")
    git.run(overlay, "remote", "add", "origin", str(folder / "remote.git"))
    programs, forge = folder / "programs", folder / "forge"
    programs.mkdir()
    forge.mkdir()
    shutil.copy2(GH, programs / "gh")
    (programs / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FORGE", str(forge))
    return Hosted(overlay, folder / "remote.git", forge)


def commit_own(overlay: Path) -> None:
    git.run(overlay, "add", "-A")
    git.run(overlay, "commit", "-q", "-m", "an overlay", env=IDENTITY)


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosted:
    """A small repository with the names of an overlay's files."""
    overlay = tmp_path / "overlay"
    for name in ("patches", "overlay"):
        (overlay / name).mkdir(parents=True)
        (overlay / name / "file").write_text("one\n")
    for name in ("overlay.toml", "overlay.lock", "releases.lock"):
        (overlay / name).write_text("one\n")
    return host(overlay, tmp_path, monkeypatch)


def publish(hosted: Hosted, found: Night, dry_run: bool = False) -> str:
    out = hosted.forge.parent / "out"
    out.mkdir(exist_ok=True)
    (hosted.clone / "overlay.toml").write_text(found.commit)
    forge = Forge(hosted.clone, out, lambda _: None, dry_run)
    return forge.publish(found)


def test_one_pull_request_is_opened_and_then_updated(hosted: Hosted) -> None:
    assert publish(hosted, FOUND) == f"opened a pull request for {BRANCH}"
    first = hosted.branch()
    [opened] = hosted.listed("pr")
    assert opened["head"] == BRANCH
    assert opened["title"] == "Carry the series to upstream's main at 0123456789ab"
    assert "| `verify` | holds | holds |" in opened["body"]
    assert "| on an MI355X | not run | |" in opened["body"]
    assert FOUND.about in opened["body"]

    later = replace(FOUND, commit="f" * 40)
    git.run(hosted.clone, "reset", "-q", "--hard", "HEAD^")
    assert publish(hosted, later) == "updated pull request 1"
    [updated] = hosted.listed("pr")
    assert updated["title"].endswith("f" * 12)
    assert hosted.branch() not in ("", first)
    assert git.text(hosted.remote, "rev-list", "--count", f"main..{BRANCH}") == "1"
    assert not (hosted.clone / "here").exists()
    assert not (hosted.clone / "there").exists()


def test_one_issue_is_opened_updated_and_closed(hosted: Hosted) -> None:
    assert publish(hosted, STOPPED) == "opened an issue"
    [opened] = hosted.listed("issue")
    assert opened["title"] == "The series does not carry to upstream's main"
    assert "a.py:7: conflict\n  site      S1" in opened["body"]
    assert f"scripts/rebase.py --from sglang --onto {STOPPED.commit}" in opened["body"]
    assert (hosted.branch(), hosted.listed("pr")) == ("", [])

    again = replace(STOPPED, findings=(Finding("another conflict"),))
    assert publish(hosted, again) == "updated issue 1"
    [updated] = hosted.listed("issue")
    assert updated["open"] and "another conflict" in updated["body"]

    publish(hosted, FOUND)
    [closed] = hosted.listed("issue")
    assert not closed["open"]
    assert closed["comment"] == f"It carries: opened a pull request for {BRANCH}."


def test_an_issue_of_another_title_is_left_alone(hosted: Hosted) -> None:
    other = {"number": 1, "title": "x", "label": "upstream-drift", "open": True}
    (hosted.forge / "issues.json").write_text(json.dumps([other]))
    assert publish(hosted, STOPPED) == "opened an issue"
    publish(hosted, FOUND)
    assert [one["open"] for one in hosted.listed("issue")] == [True, False]


@pytest.mark.parametrize("found", [FOUND, STOPPED])
def test_a_dry_run_changes_nothing(hosted: Hosted, found: Night) -> None:
    before = git.text(hosted.clone, "rev-parse", "HEAD")
    publish(hosted, found, dry_run=True)
    assert (hosted.branch(), list(hosted.forge.iterdir())) == ("", [])
    assert git.text(hosted.clone, "rev-parse", "HEAD") == before


def test_a_forge_that_refuses(hosted: Hosted) -> None:
    (hosted.forge / "refuse").touch()
    with pytest.raises(EnvironmentFailure, match="not published") as raised:
        publish(hosted, STOPPED)
    [finding] = raised.value.findings
    assert finding.what == "gh issue failed"
    assert finding.found is not None and finding.found.startswith("HTTP 403")


def test_no_gh(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"].split(os.pathsep, 1)[1])
    if shutil.which("gh"):
        pytest.skip("gh is installed here")
    with pytest.raises(EnvironmentFailure, match="gh"):
        publish(hosted, STOPPED)


@pytest.fixture
def upstream(laid_out: dict[str, Path], tmp_path: Path) -> Path:
    """The whole release, whose kernels can be run, with a history after it."""
    shutil.copytree(laid_out["sglang"], tmp_path / "history", symlinks=True)
    return tmp_path / "history"


@pytest.fixture
def maintained(
    carrier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Hosted:
    give_modules(carrier)
    without_others(carrier, "sglang", "aiter")
    return host(carrier, tmp_path, monkeypatch)


def night(hosted: Hosted, upstream: Path, *more: str) -> dict[str, Any]:
    done = call(
        hosted.clone, "nightly", "--json", "--clone", upstream, "--onto", "HEAD",
        *more,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    report = valid_report(done.stdout)
    assert report["exit_code"] == done.returncode, done.stderr
    return report


def clean(hosted: Hosted) -> bool:
    return not git.text(hosted.clone, "status", "--porcelain")


@pytest.mark.slow("two whole nights, with the numeric proof")
def test_a_week(maintained: Hosted, upstream: Path, kernels: None) -> None:
    """A conflict, its end, and the pull request that a maintainer merges."""
    edit(upstream, MHA, CALL, REWORDED)
    commit(upstream, "reworded")
    report = night(maintained, upstream, "--publish")
    assert report["exit_code"] == 1
    [result] = report["results"]
    assert (result["outcome"], result["published"]) == ("stopped", "opened an issue")
    [issue] = maintained.listed("issue")
    assert "0004-forward-mha-producers.patch" in issue["body"]
    assert f"{MHA}:" in issue["body"]
    assert (maintained.branch(), clean(maintained)) == ("", True)

    edit(upstream, MHA, REWORDED, CALL)
    commit(upstream, "reworded back")
    report = night(maintained, upstream, "--publish")
    assert report["exit_code"] == 0, report
    [result] = report["results"]
    assert result["outcome"] == "carried and proven"
    said = {check["verb"]: check for check in result["checks"]}
    assert said["verify --numeric"]["holds"] and said["verify"]["holds"]
    [request] = maintained.listed("pr")
    assert "`patches/sglang-main/series`" in request["body"]
    assert [one["open"] for one in maintained.listed("issue")] == [False]
    assert clean(maintained), "the night works in a tree of its own"
    assert len(git.text(maintained.clone, "worktree", "list").splitlines()) == 1

    # Merged: the overlay has the base, and the next night has nothing to do.
    git.run(maintained.clone, "pull", "-q", "--ff-only", "origin", BRANCH)
    report = night(maintained, upstream, "--publish")
    [result] = report["results"]
    assert (report["exit_code"], result["published"]) == (0, "nothing to do")
    assert result["outcome"] == "the base is that commit already"


def test_a_folder_in_its_place_is_left_alone(
    maintained: Hosted, slim: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "out" / "overlay").mkdir(parents=True)
    (tmp_path / "out" / "overlay" / "mine").write_text("mine\n")
    clone = slim(name="history")
    (clone / "x").write_text("x\n")
    commit(clone, "x")
    report = night(maintained, clone, "--out", str(tmp_path / "out"))
    assert report["exit_code"] == 2
    assert "is not a work tree of a night" in report["message"]
    assert (tmp_path / "out" / "overlay" / "mine").read_text() == "mine\n"


def test_a_history_without_a_base(maintained: Hosted, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git.run(other, "init", "-q")
    (other / "file").write_text("x\n")
    commit(other, "x")
    report = night(maintained, other)
    assert report["exit_code"] == 2
    assert "no base of sglang is in the history of" in report["message"]
    assert "--from" in report["findings"][0]["next_step"]
