"""Running git in a user's clone: which settings are used and which are ignored."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from overlaykit.core import git
from overlaykit.core.errors import CannotApply, EnvironmentFailure, InputError
from overlaykit.repository import clones
from overlaykit.repository.batch import Batch
from overlaykit.repository.places import RefusedClone
from overlaykit.trees.tree import GitTree
from support.edits import commit
from support.hostile_clones import STRANGER, give_away, lose

NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give a clone to another user"
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    (root / "folder").mkdir(parents=True)
    (root / "file").write_text("one\n")
    (root / "folder" / "file").write_text("two\n")
    git.run(root, "init", "-q")
    commit(root, "first")
    return root


def test_only_reviewed_commands_run(clone: Path) -> None:
    with pytest.raises(AssertionError, match="checkout"):
        clones.run(clone, "checkout", "HEAD")


def test_few_modules_run_git_directly() -> None:
    """All other modules use :mod:`overlaykit.repository.clones`."""
    # mail.py runs git outside any repository; laying.py, commits.py and remotes.py in
    # repositories that this project made; night.py in the maintainer's own.
    own = {"git.py", "gitversion.py", "clones.py", "places.py", "mail.py", "merge.py",
           "merge_checkout.py", "laying.py", "commits.py", "remotes.py",
           "night.py"}  # fmt: skip
    for folder in ("scripts", "ci"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            found = re.findall(r'\bgit\.(?:run|text|call|start)\(|\["git"', text)
            assert not found or path.name in own, path


def test_sealed_folders_are_unchanged() -> None:
    sealed = ROOT / "scripts" / "overlaykit" / "repository" / "sealed"
    files = {p.relative_to(sealed).as_posix() for p in sealed.rglob("*") if p.is_file()}
    kinds = ("files", "files-sha256", "reftable", "reftable-sha256")
    settings = {f"{kind}/config" for kind in kinds[1:]}
    assert files == {*settings, *(f"{kind}/refs/.keep" for kind in kinds)}


def test_kinds_of_clones(clone: Path, tmp_path: Path) -> None:
    """A linked work tree, a bare repository, a submodule and a shallow clone."""
    git.run(clone, "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    git.run(tmp_path, "clone", "-q", "--bare", str(clone), "bare")
    git.run(clone, "commit", "-q", "--allow-empty", "-m", "second", env=_who())
    git.run(tmp_path, "clone", "-q", "--depth", "1", f"file://{clone}", "shallow")
    (tmp_path / "super").mkdir()
    git.run(tmp_path / "super", "init", "-q")
    git.run(tmp_path / "super", "-c", "protocol.file.allow=always", "submodule",
            "--quiet", "add", str(clone), "sub")  # fmt: skip
    for name in ("linked", "bare", "shallow", "super/sub"):
        where = tmp_path / name
        with GitTree(where, "HEAD") as tree:
            assert sorted(tree.paths()) == ["file", "folder/file"]
            assert tree.read("folder/file") == b"two\n"
        tip = clones.text(where, "rev-parse", "HEAD")
        clones.run(where, "update-ref", "refs/heads/made", tip, "0" * 40)
        assert git.text(where, "rev-parse", "refs/heads/made") == tip
    shallow = tmp_path / "shallow"
    assert clones.text(shallow, "rev-parse", "--is-shallow-repository") == "true"
    assert len(clones.text(shallow, "rev-list", "HEAD").split()) == 1
    assert (
        clones.text(tmp_path / "linked", "symbolic-ref", "HEAD") == "refs/heads/other"
    )


def test_writes_use_the_clones_settings(clone: Path) -> None:
    """The clone's own reflog, index and file permissions are used."""
    git.run(clone, "config", "core.sharedRepository", "0660")
    oid = clones.text(clone, "hash-object", "-w", "--stdin")
    made = clone / ".git" / "objects" / oid[:2] / oid[2:]
    assert made.stat().st_mode & 0o777 == 0o440
    tip = clones.text(clone, "rev-parse", "HEAD")
    clones.run(clone, "update-ref", "refs/heads/made", tip, "0" * 40)
    assert (clone / ".git" / "logs" / "refs" / "heads" / "made").exists()
    rows = f"100644 {oid}\tnew\0".encode()
    clones.run(clone, "update-index", "-z", "--add", "--index-info", stdin=rows)
    assert git.text(clone, "ls-files", "new") == "new"


def test_excluded_files_are_not_listed(clone: Path) -> None:
    (clone / ".git" / "info" / "exclude").write_text("*.log\n")
    for name in ("x.log", "x.py"):
        (clone / name).touch()
    listed = clones.text(clone, "ls-files", "-o", "--exclude-standard")
    assert listed == "x.py"


def test_not_a_clone(clone: Path, tmp_path: Path) -> None:
    """A folder in a clone is not a clone, though git would use the clone around it."""
    for where, what in ((clone / "folder", "is not a clone"),
                        (tmp_path / "nothing", "does not exist")):  # fmt: skip
        with pytest.raises(InputError, match=what):
            clones.run(where, "rev-parse", "HEAD")


def test_a_broken_clone_is_refused(clone: Path) -> None:
    (clone / ".git" / "config").write_text("[core\n")
    with pytest.raises(RefusedClone) as refused:
        clones.run(clone, "rev-parse", "HEAD")
    assert "git refuses to use it" in str(refused.value)


def test_a_work_tree_elsewhere_is_refused(clone: Path, tmp_path: Path) -> None:
    git.run(clone, "config", "core.worktree", str(tmp_path))
    with pytest.raises(CannotApply, match="is not the work tree of its clone"):
        clones.run(clone, "rev-parse", "HEAD")


def test_sha256_ids(tmp_path: Path) -> None:
    git.run(tmp_path, "init", "-q", "--object-format=sha256")
    (tmp_path / "file").write_text("one\n")
    commit(tmp_path, "one")
    assert len(clones.text(tmp_path, "rev-parse", "HEAD")) == 64
    with GitTree(tmp_path, "HEAD") as tree:
        assert tree.read("file") == b"one\n"


def test_reftable(tmp_path: Path) -> None:
    made = subprocess.run(
        ["git", "init", "-q", "--ref-format=reftable"],
        cwd=tmp_path,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("this git has no reftable")
    (tmp_path / "file").touch()
    commit(tmp_path, "first")
    tip = clones.text(tmp_path, "rev-parse", "HEAD")
    clones.run(tmp_path, "update-ref", "refs/heads/made", tip, "0" * 40)
    clones.run(tmp_path, "symbolic-ref", "HEAD", "refs/heads/made")
    assert git.text(tmp_path, "rev-parse", "made") == tip
    assert git.text(tmp_path, "symbolic-ref", "HEAD") == "refs/heads/made"


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("directories", "accepted"),
    [
        (["CLONE"], True),
        (["*"], True),
        (["~/clone"], True),
        (["CLONE", ""], False),
        (["", "CLONE"], True),
        (["/elsewhere"], False),
        ([], False),
    ],
)
def test_the_users_git_decides_about_owners(
    directories: list[str], accepted: bool, clone: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """For a clone of another owner, the user's own configuration decides."""
    config = tmp_path / "gitconfig"
    lines = (f'\tdirectory = "{d.replace("CLONE", str(clone))}"\n' for d in directories)
    config.write_text("[safe]\n" + "".join(lines))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    give_away(clone)
    plain = subprocess.run(["git", "rev-parse"], cwd=clone, capture_output=True)
    assert (plain.returncode == 0) is accepted
    if accepted:
        assert len(clones.text(clone, "rev-parse", "HEAD")) == 40
        return
    with pytest.raises(RefusedClone) as refused:
        clones.run(clone, "rev-parse", "HEAD")
    said = str(refused.value)
    assert "root (uid 0)" in said and f"uid {STRANGER}" in said
    assert f"git config --global --add safe.directory {clone}" in said


@NEEDS_ROOT
def test_sudo_user_counts_as_owner(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_away(clone)
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert len(clones.text(clone, "rev-parse", "HEAD")) == 40


@NEEDS_ROOT
def test_a_change_of_owner_is_noticed(clone: Path) -> None:
    clones.run(clone, "rev-parse", "HEAD")
    give_away(clone)
    with pytest.raises(RefusedClone):
        clones.run(clone, "rev-parse", "HEAD")


@NEEDS_ROOT
def test_own_repositories_skip_the_owner_check(clone: Path, tmp_path: Path) -> None:
    """Some file systems report another owner for every file."""
    git.run(tmp_path, "clone", "-q", "--bare", str(clone), "bare")
    for where in (clone, tmp_path / "bare"):
        give_away(where)
        assert len(git.text(where, "rev-parse", "HEAD")) == 40


def test_a_missing_object_is_not_a_missing_file(clone: Path) -> None:
    oid = lose(clone, "folder/file")
    with GitTree(clone, "HEAD") as tree:
        assert tree.read("folder/none") is None
        assert tree.read("none/file") is None
        assert tree.read("file/none") is None
        assert tree.read("folder") is None
        assert tree.read("file") == b"one\n"
        assert tree.read_object(oid) is None
        with pytest.raises(EnvironmentFailure) as lacking:
            tree.read("folder/file")
    assert oid in str(lacking.value)
    assert "git does not have folder/file locally" in str(lacking.value)


def test_a_missing_tree_object(clone: Path) -> None:
    oid = git.text(clone, "rev-parse", "HEAD:folder")
    (clone / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    with GitTree(clone, "HEAD") as tree:
        assert tree.read("file") == b"one\n"
        for ask in (lambda: tree.read("folder/file"), lambda: list(tree.paths())):
            with pytest.raises(EnvironmentFailure, match="does not have folder/"):
                ask()
    root = git.text(clone, "rev-parse", "HEAD^{tree}")
    (clone / ".git" / "objects" / root[:2] / root[2:]).unlink()
    with pytest.raises(EnvironmentFailure, match="the tree of HEAD"):
        GitTree(clone, "HEAD")


def test_names_with_special_characters(clone: Path) -> None:
    """A name with a line end would be read as two requests, and every later answer
    would belong to the wrong one."""
    names = [" ", "-x", "q\"'"]
    for name in names:
        (clone / name).write_text(repr(name))
    commit(clone, "names")
    with GitTree(clone, "HEAD") as tree:
        assert set(names) < set(tree.paths())
        for name in names:
            assert tree.read(name) == repr(name).encode()
        assert tree.read("file") == b"one\n"
        for name in ("a\nfile", "\udcff.py"):
            with pytest.raises(InputError, match="invisible character"):
                tree.read(name)


def test_a_dead_process_is_not_a_missing_file(clone: Path) -> None:
    oid = git.text(clone, "rev-parse", "HEAD:file")
    batch = Batch(clone)
    try:
        assert batch.read(oid) == ("blob", b"one\n")
        batch._git.kill()
        batch._git.wait()
        with pytest.raises(EnvironmentFailure, match="git cannot read"):
            batch.read(oid)
    finally:
        batch.close()


def test_a_damaged_object_is_not_a_missing_file(clone: Path) -> None:
    oid = git.text(clone, "rev-parse", "HEAD:file")
    place = clone / ".git" / "objects" / oid[:2] / oid[2:]
    place.chmod(0o644)
    place.write_bytes(b"no zlib")
    with GitTree(clone, "HEAD") as tree, pytest.raises(EnvironmentFailure) as failed:
        tree.read("file")
    assert oid in str(failed.value)


def test_a_git_that_does_not_start(clone: Path) -> None:
    """'Not installed' is reported only if git was not found."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom overlaykit.core import git\n"
        "from overlaykit.core.errors import EnvironmentFailure\n"
        "try:\n    git.run(Path(sys.argv[2]), 'version')\n"
        "except EnvironmentFailure as error:\n    print(error)\n"
    )
    ask = [sys.executable, "-c", code, str(ROOT / "scripts"), str(clone)]

    def said(command: list[str], **env: str) -> str:
        done = subprocess.run(
            command,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "git is not installed" in said(ask, PATH="/nowhere")
    few = said(["bash", "-c", 'ulimit -n 7; exec "$@"', "bash", *ask])
    assert "Too many open files" in few and "ulimit -n" in few
    assert "not installed" not in few
    gone = said([*ask[:-1], str(clone / "gone")])
    assert "No such file or directory" in gone and "not installed" not in gone


def _who() -> dict[str, str]:
    return git.identity("A Tester", "tester@localhost", "@1700000000 +0000")


def test_a_partial_clone(clone: Path, tmp_path: Path) -> None:
    """Nothing is fetched, even if upstream is reachable; missing objects are named."""
    upstream = tmp_path / "upstream"
    git.run(tmp_path, "clone", "-q", "--bare", str(clone), "upstream")
    git.run(upstream, "config", "uploadpack.allowFilter", "true")
    git.run(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout",
            f"file://{upstream}", "partial")  # fmt: skip
    partial = tmp_path / "partial"
    for there in (True, False):
        if not there:
            upstream.rename(tmp_path / "gone")
        with GitTree(partial, "HEAD") as tree:
            assert sorted(tree.paths()) == ["file", "folder/file"]
            with pytest.raises(EnvironmentFailure) as lacking:
                tree.read("file")
        assert "fetch --refetch" in str(lacking.value)
    (tmp_path / "gone").rename(upstream)
    # The next step in the message works.
    oid = git.text(upstream, "rev-parse", "HEAD:file")
    assert f"cat-file -e {oid}" in str(lacking.value)
    subprocess.run(["git", "cat-file", "-e", oid], cwd=partial, check=True)
    with GitTree(partial, "HEAD") as tree:
        assert tree.read("file") == b"one\n"
    refetch = ["git", "fetch", "-q", "--refetch", "--no-filter"]
    if subprocess.run(refetch, cwd=partial, capture_output=True).returncode == 129:
        pytest.skip("this git has no --refetch")
    with GitTree(partial, "HEAD") as tree:
        assert tree.read("folder/file") == b"two\n"
