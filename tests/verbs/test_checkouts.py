"""A clone whose files differ from the commit because git checked them out that way.

The user has changed nothing, so the next step must not be to commit or undo a change.
The tests run the next step that is named, and it works.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import IDENTITY, run_verb
from overlaykit.core import git
from support.bases import FIRST, REVIVED

LAYERS = "python/sglang/srt/layers"
COMMUNICATOR = f"{LAYERS}/communicator.py"
Slim = Callable[..., Path]


def cloned(origin: Path, name: str, **settings: str) -> Path:
    """A clone made with plain git, as a user does."""
    words = [f"--config={key.replace('_', '.')}={value}" for key, value in
             settings.items()]  # fmt: skip
    subprocess.run(["git", "clone", "-q", *words, str(origin), name],
                   cwd=origin.parent, check=True)  # fmt: skip
    return origin.parent / name


def findings(*words: str | Path) -> list[dict[str, Any]]:
    done = run_verb("apply", "--json", *map(str, words))
    assert done.returncode == 3, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


def status(clone: Path) -> str:
    return git.text(clone, "-c", "core.autocrlf=true", "status", "--porcelain")


@pytest.mark.parametrize("target", [FIRST, REVIVED[0]])
@pytest.mark.parametrize("how", ["", "--status"])
def test_crlf(target: str, how: str, slim: Slim) -> None:
    clone = cloned(slim(target), "crlf", core_autocrlf="true")
    assert status(clone) == ""
    found = findings(*filter(None, [how]), clone)
    assert {one["what"] for one in found} == {"has CRLF line endings"}
    for one in found:
        assert one["next_step"].startswith("check it out with core.autocrlf=false: ")
        subprocess.run(one["next_step"].partition(": ")[2], shell=True, check=True)
    done = run_verb("apply", "--json", str(clone))
    assert json.loads(done.stdout)["results"][0]["target"] == target
    assert done.returncode == 0, done.stderr


def test_crlf_and_an_edit(slim: Slim) -> None:
    """An edited file is reported as changed, whatever its line ends are."""
    clone = cloned(slim(), "crlf", core_autocrlf="true")
    file = clone / COMMUNICATOR
    file.write_bytes(file.read_bytes() + b"# edited\r\n")
    by_path = {one["path"]: one for one in findings(clone)}
    assert "commit, stash or undo" in by_path[COMMUNICATOR]["next_step"]


def test_crlf_outside_a_clone(slim: Slim) -> None:
    root = slim(clone=False)
    for path in root.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert {one["what"] for one in findings(root)} == {"has CRLF line endings"}


@pytest.mark.parametrize("cone", [True, False])
@pytest.mark.parametrize("remedy", ["disable", "add"])
@pytest.mark.parametrize("how", ["", "--status", "--commit"])
def test_sparse(cone: bool, remedy: str, how: str, slim: Slim) -> None:
    clone = cloned(slim(), "sparse")
    kept = f"{LAYERS}/quantization" if cone else f"/{LAYERS}/quantization/*"
    mode = "--cone" if cone else "--no-cone"
    # Cone mode keeps the files in parent folders, so it leaves out other files.
    subprocess.run(["git", "sparse-checkout", "init", mode], cwd=clone, check=True)
    subprocess.run(["git", "sparse-checkout", "set", kept], cwd=clone, check=True)
    assert status(clone) == ""
    for _ in range(4):
        done = run_verb("apply", "--json", *filter(None, [how]), str(clone))
        report = json.loads(done.stdout)
        if done.returncode != 3:
            break
        for one in report["findings"]:
            step = one["next_step"]
            assert step.startswith("the checkout is sparse: ")
            disable, add = step.partition(": ")[2].split(", or ")
            subprocess.run(add if remedy == "add" else disable, shell=True, check=True)
    assert done.returncode == (1 if how == "--status" else 0), done.stderr


def test_a_missing_file_is_a_change(slim: Slim) -> None:
    clone = slim()
    (clone / COMMUNICATOR).unlink()
    [one] = [one for one in findings(clone) if one["path"] == COMMUNICATOR]
    assert one["what"] == "has uncommitted changes: it does not exist"
    assert "git diff" in one["next_step"]


def test_skip_worktree_set_by_hand(slim: Slim) -> None:
    clone = slim()
    git.run(clone, "update-index", "--skip-worktree", COMMUNICATOR)
    (clone / COMMUNICATOR).unlink()
    [one] = [one for one in findings(clone) if one["path"] == COMMUNICATOR]
    assert one["what"].endswith("git leaves it out of the work tree")
    first, then = one["next_step"].removesuffix(" if it is missing").split(", then ")
    for step in (first, then):
        subprocess.run(step, shell=True, check=True)
    assert run_verb("apply", str(clone)).returncode == 0


def test_an_edited_release_is_still_recognised(slim: Slim) -> None:
    """Other releases are mentioned unless every existing file belongs to a base."""
    clone = slim()
    file = clone / COMMUNICATOR
    file.write_bytes(file.read_bytes() + b"# edited\n")
    git.run(clone, "commit", "-q", "-a", "-m", "edited", env=IDENTITY)
    assert any("matches no release" in one["what"] for one in findings(clone))


def sparse_clone(clone: Path, kept: str) -> None:
    # Git keeps files that look changed, so it looks at them first.
    git.run(clone, "update-index", "-q", "--refresh")
    git.run(clone, "sparse-checkout", "init", "--cone")
    git.run(clone, "sparse-checkout", "set", kept)


def verified(clone: Path, code: int) -> list[dict[str, Any]]:
    done = run_verb("verify", "--json", str(clone))
    assert done.returncode == code, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


@pytest.mark.parametrize("remedy", ["disable", "add"])
def test_verify_of_a_sparse_clone(remedy: str, slim: Slim) -> None:
    """Only what git did not check out is named, each file once; its calls are not
    reported as gone."""
    clone = slim()
    assert run_verb("apply", "--commit", str(clone)).returncode == 0
    sparse_clone(clone, f"{LAYERS}/quantization")
    found = verified(clone, 1)
    assert {Path(one["path"]).name for one in found} == {
        "forward_mla.py", "forward_mha.py", "test_bpreshuffle_scale.py"
    }  # fmt: skip
    assert len(found) == 3
    for one in found:
        assert one["found"] == "no file: git leaves it out of the work tree"
        assert one["next_step"].startswith("the checkout is sparse: ")
        disable, add = one["next_step"].partition(": ")[2].split(", or ")
        subprocess.run(add if remedy == "add" else disable, shell=True, check=True)
    assert verified(clone, 0) == []


def test_verify_of_a_sparse_clone_with_another_fault(slim: Slim) -> None:
    """What is checked out is judged as ever."""
    clone = slim()
    assert run_verb("apply", "--commit", str(clone)).returncode == 0
    sparse_clone(clone, f"{LAYERS}/quantization")
    file = clone / COMMUNICATOR
    file.write_text(file.read_text().replace("transpose_scale", "transpose"))
    file.write_text(file.read_text() + "# edited\n")
    edited = [one for one in verified(clone, 1) if one["path"] == COMMUNICATOR]
    assert edited and all("sparse" not in one["next_step"] for one in edited)


def test_verify_of_a_clone_that_lost_a_file(slim: Slim) -> None:
    """A file that git did check out is missing: no word of a sparse checkout."""
    clone = slim()
    assert run_verb("apply", str(clone)).returncode == 0
    (clone / COMMUNICATOR).unlink()
    found = verified(clone, 1)
    assert any(one["found"] == "no file" for one in found)
    assert "sparse" not in json.dumps(found)


@pytest.mark.parametrize("how", ["", "--status"])
def test_a_new_file_that_is_not_checked_out(how: str, slim: Slim) -> None:
    """The series is applied; only the overlay's test is in a folder left out."""
    clone = slim()
    assert run_verb("apply", "--commit", str(clone)).returncode == 0
    sparse_clone(clone, "python")
    [one] = findings(*filter(None, [how]), clone)
    assert one["path"].startswith("test/")
    assert one["what"] == (
        "the new file is missing: git leaves it out of the work tree"
    )
    assert one["next_step"].startswith("the checkout is sparse: ")
    add = one["next_step"].rpartition(", or ")[2]
    subprocess.run(add, shell=True, check=True)
    assert run_verb("apply", "--status", str(clone)).returncode == 0


def test_refresh_of_a_sparse_clone(slim: Slim) -> None:
    """A file that is not checked out was not deleted; refresh changes nothing."""
    clone = slim()
    assert run_verb("apply", "--commit", str(clone)).returncode == 0
    sparse_clone(clone, "python")
    done = run_verb("refresh", "--dry-run", "--json", str(clone))
    assert done.returncode == 3, done.stderr
    [one] = json.loads(done.stdout)["findings"]
    assert one["path"].startswith("test/")
    assert one["what"] == "does not exist: git leaves it out of the work tree"
    assert one["next_step"].startswith("the checkout is sparse: ")
