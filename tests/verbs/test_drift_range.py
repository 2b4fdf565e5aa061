"""``drift --range`` if the older end is a release tagged on a branch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import IDENTITY, ROOT, Pins, run_verb
from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.sources.releases import obtain
from support.bases import FIRST, REVIVED

COMMUNICATOR = "python/sglang/srt/layers/communicator.py"


def commit(clone: Path, subject: str, change: tuple[str, str]) -> str:
    """Commit a change of the communicator; returns the commit's id."""
    file = clone / COMMUNICATOR
    text = file.read_text()
    assert change[0] in text
    old, new = change
    file.write_text(text.replace(old, new) if old else new + text)
    git.run(clone, "commit", "-q", "-a", "-m", subject, env=IDENTITY)
    return git.text(clone, "rev-parse", "HEAD")


@pytest.fixture
def clone(slim: Callable[..., Path]) -> Path:
    """Two branches from the pin. On main, lines shift and then the producers' calls
    change. ``v1`` is tagged on the other branch, which changes those calls too."""
    root = slim()
    git.run(root, "checkout", "-q", "-b", "release")
    commit(root, "A fix for the release", ("fused_rms_fp8_", "r_"))
    git.run(root, "tag", "v1")
    git.run(root, "checkout", "-q", "main")
    commit(root, "Shift", ("", "# A line more.\n"))
    commit(root, "Change", ("fused_rms_fp8_", "f_"))
    return root


def drift(clone: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run_verb("drift", "--clone", str(clone), *arguments, "--json")
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


def site(result: dict[str, Any], name: str = "S1") -> str:
    return next(
        str(cell["outcome"])
        for cell in result["column"]["sites"]
        if cell["row"] == name
    )


def test_each_column_shows_the_commit_that_it_names(clone: Path) -> None:
    results = drift(clone, "--range", "v1..main")
    base, shift, change = git.text(
        clone, "rev-list", "--reverse", "--first-parent", "main"
    ).split()
    names = ["v1", base[:10], shift[:10], change[:10]]
    assert [result["tree"] for result in results] == names
    for result in results:
        tree = git.text(clone, "rev-parse", f"{result['tree']}^{{tree}}")
        assert result["column"]["version"]["identity"] == tree
    # The release and the merge base have different outcomes.
    assert results[1]["outcome"] == "apply as is"
    assert results[0]["outcome"] != "apply as is"
    [alone] = drift(clone, "--ref", "v1")
    assert results[0]["column"]["sites"] == alone["column"]["sites"]


def test_the_merge_base_is_named(clone: Path) -> None:
    base = git.text(clone, "merge-base", "v1", "main")[:10]
    about = [r["column"]["version"]["about"] for r in
             drift(clone, "--range", "v1..main")]  # fmt: skip
    assert about[0].endswith(
        f"A fix for the release; not on the line of main, which starts at {base}"
    )
    assert about[1].endswith("pin; the merge base of v1 and main")
    shown = run_verb("drift", "--clone", str(clone), "--range", "v1..main").stdout
    assert "the merge base of v1 and main" in shown


def test_a_release_merged_back_is_not_called_the_merge_base(clone: Path) -> None:
    """Git's merge base is then the release itself, but the line starts elsewhere."""
    git.run(clone, "merge", "-q", "-s", "ours", "-m", "Back", "v1", env=IDENTITY)
    results = drift(clone, "--range", "v1..main")
    assert results[0]["tree"] == "v1"
    about = results[1]["column"]["version"]["about"]
    assert about.endswith(
        "pin; the last first-parent commit of main that is also in v1"
    )


def test_a_change_only_on_the_release_branch_is_not_reverted(
    slim: Callable[..., Path],
) -> None:
    """The release has the change on its branch; main never had it."""
    clone = slim()
    assert run_verb("apply", "--commit", str(clone)).returncode == 0
    commit(clone, "And lines shift", ("", "# A line more.\n"))
    git.run(clone, "tag", "v1")
    git.run(clone, "checkout", "-q", "main")
    commit(clone, "Shift", ("", "# A line more.\n"))
    results = drift(clone, "--range", "v1..main")
    assert [site(result) for result in results] == ["upstreamed", "clean", "offset"]


def test_a_release_on_the_line_is_the_first_column(clone: Path) -> None:
    git.run(clone, "tag", "old", "main~2")
    results = drift(clone, "--range", "old..main")
    assert results[0]["tree"] == "old"
    assert len(results) == 3
    assert "merge base" not in results[0]["column"]["version"]["about"]


def test_first_bad_starts_at_the_merge_base(clone: Path) -> None:
    where = ("--clone", str(clone), "--first-bad")
    base = git.text(clone, "merge-base", "v1", "main")
    # The release itself is not good: the message names it, not the merge base.
    done = run_verb("drift", *where, "0002", "--range", "v1..main")
    assert done.returncode == 2
    assert "0002-communicator-producers is not good at v1" in done.stderr
    done = run_verb("drift", *where, "S1", "--range", "v1..main")
    assert done.returncode == 2
    assert f"at {base[:10]}, the merge base of v1 and main" in done.stderr
    assert f"give {base[:10]} as the older end" in done.stderr
    # A row that is good at both is searched from the merge base, which is printed.
    done = run_verb("drift", *where, "0001", "--range", "v1..main")
    assert done.returncode == 0, done.stderr
    assert f"from    {base}: the merge base of v1 and main" in done.stdout


def test_a_commit_named_like_a_release_that_is_not_shown(
    clone: Path, pins: Pins
) -> None:
    """Columns are identified by their trees, not by their names: the release 0.5.12 is
    analyzed for what 0.5.13 reverted, but only the tag 0.5.12 is shown."""
    try:
        for version in ("0.5.12", "0.5.12.post1", "0.5.13"):
            obtain(ROOT, pins.overlay["sglang"].target, version)
    except EnvironmentFailure as error:
        pytest.skip(f"the releases cannot be fetched: {error}")
    git.run(clone, "tag", "0.5.12", "v1")
    results = drift(clone, "--ref", "0.5.12", "--release", "0.5.13")
    assert [result["tree"] for result in results] == ["0.5.13", "0.5.12"]
    tree = git.text(clone, "rev-parse", "v1^{tree}")
    assert results[1]["column"]["version"]["identity"] == tree


def test_a_carried_base_is_recognized(slim: Callable[..., Path]) -> None:
    """A commit with the base's files, and commits with either series applied."""
    other = "sglang-0.5.12.post1"
    clone = slim(other, "carried")
    [result] = drift(clone, "--ref", "HEAD")
    assert result["outcome"] == "carried already"
    assert result["column"]["known"] == {"target": other, "standing": "pristine"}
    [advice] = result["advice"]
    [reason] = advice["reasons"]
    assert f"identical to that of the base {other}" in reason
    assert "scripts/apply.py applies the series of that base" in reason
    for target in (FIRST, REVIVED[0], REVIVED[-1]):
        clone = slim(target, target)
        assert run_verb("apply", "--commit", str(clone)).returncode == 0
        [result] = drift(clone, "--ref", "HEAD")
        assert result["outcome"] == "applied already"
        assert result["column"]["known"] == {"target": target, "standing": "applied"}


def test_commits_at_which_nothing_changes_are_left_out(
    clone: Path, tmp_path: Path
) -> None:
    """A line is added three times: for the merge that is one state. The end of the
    range is one more of them, and JSON has all."""
    git.run(clone, "checkout", "-q", "-b", "long", "main~1")
    for number in range(2):
        commit(clone, f"Shift again {number}", ("", "# A line more.\n"))
    commit(clone, "Change", ("fused_rms_fp8_", "f_"))
    commit(clone, "At the end", ("", "# A line more.\n"))
    page = tmp_path / "page.md"
    where = "--range", f"{git.text(clone, 'merge-base', 'v1', 'main')}..long"
    results = drift(clone, *where, "--markdown", str(page))
    assert len(results) == 6
    plain = run_verb("drift", "--clone", str(clone), *where).stdout
    for shown in (plain, page.read_text(encoding="utf-8")):
        assert " Shift; then 2 more without a change)" in shown
        assert " Change; then 1 more without a change)" in shown
        assert "Shift again" not in shown
        assert "At the end" not in shown
    named = run_verb("drift", "--clone", str(clone), "--ref", "long~2", "long~3").stdout
    assert "Shift again 1)" in named
    assert "Shift again 0)" in named
