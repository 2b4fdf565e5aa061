"""Full and read-only file systems for test_trouble; run inside ``unshare --mount``.

Other processes do not see the mounts, which end with this process.

    mounts.py full|read-only|bind|commit|mounted TREE ROOM
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parents[1]),
    str(Path(__file__).parents[2] / "scripts"),
]

from faults.harness import FOLDER, KILL, Done, apply, contents, copy, times  # noqa: E402
from support.clone_state import locks, state  # noqa: E402

METHODS = "python/sglang/srt/models/deepseek_common/attention_forward_methods"


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def check(done: Done, tree: Path, was: Path, code: int, *said: str) -> None:
    assert done.code == code, (code, done.text)
    for part in said:
        assert part in done.text, (part, done.text)
    assert contents(tree) == contents(was)
    assert times(tree) == times(was)
    assert not (tree / FOLDER).exists()


def full(was: Path, room: Path) -> None:
    """The disk is full at every possible page: runs fail, until one succeeds."""
    disk = room / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=32m,nr_inodes=0", "none", disk)
    tree = copy(was, disk / "tree")
    failed = 0
    for pages in range(0, 1000, 4):
        fill(disk, pages)
        done = apply(room, tree)
        if done.code == 0:
            break
        check(done, tree, was, 5, "the disk is full; nothing was changed", "make room")
        failed += 1
    assert failed > 10
    print(f"full {failed} times")
    (disk / "ballast").unlink()
    # Killed in the middle, with no free space for the repair.
    for renames in (2, 4, 6):
        tree = copy(was, disk / "tree")
        assert (
            apply(room, tree, at=renames, event="os.rename", mischief=KILL).code == -9
        )
        fill(disk, 0)
        check(apply(room, "--status", tree), tree, was, 1, "was rolled back")
        (disk / "ballast").unlink()


def commit(was: Path, room: Path) -> None:
    """The same with --commit: if git has no space to roll back, the next run does."""
    disk = room / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=48m,nr_inodes=0", "none", disk)
    failed = 0
    for pages in range(0, 4000, 6):
        clone = copy(was, disk / "clone")
        before = state(clone)
        fill(disk, pages)
        done = apply(room, "--json", "--commit", clone)
        if done.code == 0:
            break
        assert done.code == 5, done.text
        said = done.report["message"]
        (disk / "ballast").unlink()
        if "nothing was changed" not in said:
            assert "the next run rolls it back" in said, said
            assert apply(room, "--status", clone).code == 1
        assert (state(clone), locks(clone)) == (before, [])
        failed += 1
    assert failed > 5
    print(f"full {failed} times")


def fill(disk: Path, pages: int) -> None:
    """Leave this many pages of the disk free."""
    (disk / "ballast").unlink(missing_ok=True)
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(4096)):
                pass
        except OSError:
            ballast.truncate(ballast.tell() - 4096 * pages)


def read_only(was: Path, room: Path) -> None:
    tree = copy(was, room / "tree")
    mount("--bind", tree, tree)
    mount("-o", "remount,bind,ro", tree)
    for how in ((), ("--unapply",)):
        done = apply(room, *how, tree)
        check(done, tree, was, 5, "read-only; nothing was changed")
    check(apply(room, "--status", tree), tree, was, 1)
    check(apply(room, "--dry-run", tree), tree, was, 0)


def bind(was: Path, room: Path) -> None:
    """Only the last files' folder is read-only: the first files are rolled back."""
    tree = copy(was, room / "tree")
    mount("--bind", tree / METHODS, tree / METHODS)
    mount("-o", "remount,bind,ro", tree / METHODS)
    check(apply(room, tree), tree, was, 5, "nothing was changed")


def mounted(was: Path, room: Path) -> None:
    """A file and a folder of the tree are mount points, as when a container is given a
    patched file. The error names the mount, and apply works once it is unmounted."""
    tree, other = copy(was, room / "tree"), copy(was, room / "other")
    file, folder = "python/sglang/srt/layers/communicator.py", METHODS
    what = "something is mounted on a file of the tree; nothing was changed"
    mount("--bind", other / file, tree / file)
    check(apply(room, tree), tree, was, 5, what, str(tree / file), "unmount it")
    subprocess.run(["umount", tree / file], check=True)
    disk = room / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "none", disk)
    there = copy(was / folder, disk / "methods")
    mount("--bind", there, tree / folder)
    what = "a folder of the tree is mounted from elsewhere; nothing was changed"
    check(apply(room, tree), tree, was, 5, what, str(tree / folder), "unmount it")
    subprocess.run(["umount", tree / folder], check=True)
    assert apply(room, tree).code == 0
    # The new file, which is to be removed again.
    laid = "python/sglang/srt/layers/quantization/bpreshuffle_scale.py"
    now = copy(tree, room / "now")
    mount("--bind", now / laid, tree / laid)
    check(apply(room, "--unapply", tree), tree, now, 5, str(tree / laid), "unmount it")


if __name__ == "__main__":
    worker = {"full": full, "read-only": read_only, "bind": bind, "commit": commit,
              "mounted": mounted}  # fmt: skip
    worker[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
