"""New files in a tree have the owner, group and mode of the files beside them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Pins
from faults.harness import FOLDER, KILL, Done, apply, copy
from overlaykit.core.access import access_beside
from overlaykit.core.errors import Exit
from overlaykit.core.files import write_file

ALICE, SERVERS, BOB = 54321, 54322, 54323
QUANTIZATION = "python/sglang/srt/layers/quantization"
MODULE = f"{QUANTIZATION}/bpreshuffle_scale.py"
LAID = "test/registered/unit/layers/quantization/test_bpreshuffle_scale.py"

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give files away"
)


@pytest.fixture
def tree(slim: Callable[..., Path], room: Path) -> Path:
    """A tree in a folder that every user may enter. Not a clone."""
    return copy(slim(clone=False), room / "tree")


def settle(tree: Path, uid: int, gid: int, files: int, folders: int) -> None:
    """Set owner and modes of a whole tree."""
    for place in (tree, *tree.rglob("*")):
        os.chown(place, uid, gid)
        place.chmod(folders if place.is_dir() else files)


def seen(tree: Path) -> set[tuple[int, int, int]]:
    """All owners, groups and modes of the files and folders."""
    found = {(p.lstat(), p.is_dir()) for p in (tree, *tree.rglob("*"))}
    return {(s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) for s, _ in found}


def private() -> None:
    os.umask(0o077)


def become_bob() -> None:
    os.setgroups([])
    os.setresgid(BOB, BOB, BOB)
    os.setresuid(BOB, BOB, BOB)


def check(done: Done) -> None:
    assert done.code == Exit.DONE, done.text


@pytest.mark.parametrize("files, folders", [(0o644, 0o755), (0o664, 0o775)])
def test_umask(tree: Path, room: Path, files: int, folders: int) -> None:
    """The umask affects neither new files and folders nor rewritten ones."""
    uid, gid = os.geteuid(), os.getegid()
    settle(tree, uid, gid, files, folders)
    before = seen(tree)
    for how in ((), ("--unapply",), ()):
        check(apply(room, *how, tree, first=private))
        assert seen(tree) == before == {(uid, gid, files), (uid, gid, folders)}
    assert (tree / LAID).is_file()


def test_an_executable_new_file(tmp_path: Path) -> None:
    for name, mode in (("a.py", 0o640), ("b.py", 0o750), ("c.so", 0o777)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    place = tmp_path / "none" / "new.py"
    assert access_beside(place).mode == 0o640
    assert access_beside(place, executable=True).mode == 0o750


def test_the_most_common_access_is_used(tmp_path: Path) -> None:
    """Not the first file, nor one with another suffix, nor a link out of the tree."""
    for name, mode in (("a.py", 0o600), ("b.py", 0o644), ("c.py", 0o644), ("d", 0o6)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link.py").symlink_to("/dev/null")
    assert access_beside(tmp_path / "new.py").mode == 0o644
    (tmp_path / "empty").mkdir(mode=0o700)
    assert access_beside(tmp_path / "empty" / "new.py").mode == 0o600


@needs_root
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_root_leaves_no_files_of_its_own(tree: Path, room: Path, umask: int) -> None:
    """Root applies to another user's tree, which only he and a group can read."""
    settle(tree, ALICE, SERVERS, 0o640, 0o750)
    before = seen(tree)
    for how in ((), ("--unapply",), ()):
        check(apply(room, *how, tree, first=lambda: os.umask(umask)))
        assert seen(tree) == before
    assert (tree / LAID).is_file()


@needs_root
def test_a_setgid_folder(tree: Path, room: Path) -> None:
    """The kernel sets the folder's group for new files; existing files keep theirs."""
    settle(tree, ALICE, ALICE, 0o664, 0o2775)
    for place in (tree, *tree.rglob("*")):
        if place.is_dir():
            os.chown(place, ALICE, SERVERS)
            place.chmod(0o2775)
    check(apply(room, tree, first=private))
    for new in (MODULE, LAID):
        status = (tree / new).stat()
        assert (status.st_uid, status.st_gid) == (ALICE, SERVERS)
        assert stat.S_IMODE(status.st_mode) == 0o664
    assert (tree / QUANTIZATION / "fp8_utils.py").stat().st_gid == ALICE
    made = (tree / LAID).parent.stat()
    assert (made.st_uid, made.st_gid) == (ALICE, SERVERS)
    assert stat.S_IMODE(made.st_mode) == 0o2775


@needs_root
def test_an_interrupted_run_by_root(tree: Path, room: Path) -> None:
    """After a kill, the tree's owner can roll back what root left."""
    settle(tree, ALICE, SERVERS, 0o640, 0o750)
    before = seen(tree)
    killed = apply(
        room, tree, at=6, event="os.rename", mischief=KILL, first=private
    )  # fmt: skip
    assert killed.code == -9
    assert seen(tree) <= {*before, (ALICE, SERVERS, 0o644)}

    def become_alice() -> None:
        os.setgroups([])
        os.setresgid(SERVERS, SERVERS, SERVERS)
        os.setresuid(ALICE, ALICE, ALICE)

    # Only after its modules are loaded: Alice may not be able to read them.
    done = apply(room, "--status", tree, at=1, event="open", mischief=become_alice)
    assert done.code == Exit.FAILS, done.text
    assert "rolled back" in done.out
    assert not (tree / FOLDER).exists()
    assert seen(tree) == before


@pytest.fixture
def shared(tree: Path, pins: Pins) -> Callable[[int], Path]:
    """Alice's tree, in which the files that the series rewrites are Bob's."""

    def make(files: int) -> Path:
        settle(tree, ALICE, SERVERS, files, 0o777)
        for path in pins.overlay["sglang"].series.paths:
            os.chown(tree / path, BOB, BOB)
        return tree

    return make


@needs_root
def test_an_owner_that_cannot_be_set(shared: Callable[[int], Path], room: Path) -> None:
    """Bob adds files beside Alice's: he owns them, and all users can read them."""
    tree = shared(0o644)
    check(apply(room, tree, at=1, mischief=become_bob, first=private))
    for new in (MODULE, LAID):
        status = (tree / new).stat()
        assert (status.st_uid, status.st_mode & 0o444) == (BOB, 0o444)


@needs_root
def test_a_file_that_others_could_not_read_is_refused(
    shared: Callable[[int], Path], room: Path
) -> None:
    """Only a group can read the files beside it, and Bob is not a member."""
    tree = shared(0o640)
    before = seen(tree)
    done = apply(room, "--json", tree, at=1, mischief=become_bob)
    assert done.code == Exit.ENVIRONMENT, done.text
    assert "nothing was changed" in done.report["message"]
    [finding] = done.report["findings"]
    assert finding["path"] == str(tree / MODULE)
    assert finding["next_step"] and str(SERVERS) in finding["found"]
    assert not (tree / FOLDER).exists()
    assert seen(tree) == before


@needs_root
def test_a_rewritten_report_keeps_its_owner(tmp_path: Path) -> None:
    """Root replaces Alice's report, or writes a new one in her folder."""
    os.chown(tmp_path, ALICE, SERVERS)
    place = tmp_path / "page.md"
    place.write_text("one\n")
    place.chmod(0o640)
    os.chown(place, ALICE, BOB)
    write_file(place, "two\n")
    write_file(tmp_path / "new.md", "three\n")
    assert (place.stat().st_uid, place.stat().st_gid) == (ALICE, BOB)
    assert stat.S_IMODE(place.stat().st_mode) == 0o640
    assert (tmp_path / "new.md").stat().st_uid == ALICE
