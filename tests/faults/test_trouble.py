"""Faults in the middle of a run that do not kill it: it rolls back and exits 3 or 5."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.conftest import Pair
from faults.harness import (
    APPLY,
    FOLDER,
    KILL,
    VERBS,
    Done,
    Mischief,
    apply,
    contents,
    copy,
    times,
)
from faults.test_kill import BOTH, check_whole, verb
from overlaykit.core.errors import Exit

NOBODY = 65534
METHODS = "python/sglang/srt/models/deepseek_common/attention_forward_methods"


def check_untouched(tree: Path, pair: Pair) -> None:
    """Assert that a tree is unchanged, including times."""
    assert check_whole(tree, pair.before, pair.after, pair.old)
    assert times(tree) == times(pair.old)


def check_environment(done: Done, *said: str) -> None:
    """Assert exit 5, a finding and a next step."""
    assert done.code == Exit.ENVIRONMENT, done.text
    report = done.report
    assert report["exit_code"] == Exit.ENVIRONMENT
    assert report["findings"][0]["next_step"]
    for part in said:
        assert part in report["message"]


def replace_folder(tree: Path) -> Mischief:
    """Another process moves a touched file's folder and puts a file in its place."""

    def mischief() -> None:
        (tree / METHODS).rename(tree / "moved")
        (tree / METHODS).write_text("mine now")

    return mischief


def edit(place: Path, text: str = "# mine\n") -> Mischief:
    """An editor, which takes no lock, saves a file."""

    def mischief() -> None:
        place.chmod(0o644)
        place.write_text(text)

    return mischief


@pytest.mark.parametrize("write", [1, 8, 20, 28])
def test_edited_while_it_is_staged(pair: Pair, room: Path, write: int) -> None:
    """A file that an editor saved after planning is not overwritten; files that were
    swapped before are restored."""
    tree = copy(pair.old, room / "tree")
    path = f"{METHODS}/forward_mla.py"
    done = apply(room, "--json", tree, at=write, mischief=edit(tree / path))
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert done.report["findings"][0]["path"] == path
    found = contents(tree)
    assert found.pop(path)[1] == b"# mine\n"
    assert found == {p: v for p, v in pair.before.items() if p != path}


def test_new_file_appears_meanwhile(pair: Pair, room: Path) -> None:
    """A new file does not replace one that was created meanwhile."""
    tree = copy(pair.old, room / "tree")
    path = "python/sglang/srt/layers/quantization/bpreshuffle_scale.py"
    mischief = edit_new(tree / path)
    done = apply(room, "--json", tree, at=1, event="os.rename", mischief=mischief)
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert done.report["findings"][0]["path"] == path
    found = contents(tree)
    assert found.pop(path)[1] == b"# mine\n"
    assert found == pair.before


def edit_new(place: Path) -> Mischief:
    return lambda: place.write_text("# mine\n")


def test_folder_replaced_in_the_middle(pair: Pair, room: Path) -> None:
    """The first files are in place when a later one's folder is gone."""
    tree = copy(pair.old, room / "tree")
    done = apply(
        room, "--json", tree, at=2, event="os.rename", mischief=replace_folder(tree)
    )
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert METHODS in done.report["findings"][0]["path"]
    assert not (tree / FOLDER).exists()
    (tree / METHODS).unlink()
    (tree / "moved").rename(tree / METHODS)
    assert contents(tree) == pair.before


@pytest.mark.parametrize("swapped", [False, True])
def test_second_tree_fails(
    slim: Callable[..., Path], pair: Pair, room: Path, swapped: bool
) -> None:
    """Several PATHs are one transaction: the first tree is restored, whether or not it
    was swapped when the second failed."""
    names = ("a-aiter", "b-sglang")
    aiter = copy(slim("aiter", "aiter", clone=False), room / names[0])
    sglang = copy(pair.old, room / names[1])
    was = copy(aiter, room / "was")
    renames = 2 if not swapped else 4
    done = apply(
        room, "--json", aiter, sglang, at=renames, event="os.rename",
        mischief=replace_folder(sglang),
    )  # fmt: skip
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert contents(aiter) == contents(was)
    assert times(aiter) == times(was)
    assert not (sglang / FOLDER).exists()
    (sglang / METHODS).unlink()
    (sglang / "moved").rename(sglang / METHODS)
    assert contents(sglang) == pair.before


def test_second_tree_refused(slim: Callable[..., Path], pair: Pair, room: Path) -> None:
    """If the second tree has drifted, the first is not begun."""
    sglang = copy(pair.old, room / "tree")
    aiter = slim("aiter", "aiter", clone=False)
    drifted = next(aiter.rglob("fused_fp8_quant.py"))
    drifted.write_text("# drifted\n")
    done = apply(room, "--json", sglang, aiter)
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert "fused_fp8_quant.py" in done.report["findings"][0]["path"]
    check_untouched(sglang, pair)
    assert not (aiter / FOLDER).exists()


@BOTH
@pytest.mark.parametrize("limit", [4096, 20_000, 40_000, 60_000])
def test_file_size_limit(pair: Pair, room: Path, unapply: bool, limit: int) -> None:
    """EFBIG, at one file or another."""
    was, before, after = pair.ends(unapply)
    tree = copy(was, room / "tree")

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = apply(room, "--json", *verb(unapply), tree, first=lower)
    check_environment(done, "exceed the size limit; nothing was changed")
    assert check_whole(tree, before, after, was)
    assert times(tree) == times(was)


def drop_rights() -> None:
    """Become the user nobody, because root may write anywhere. Not before the first
    write: nobody may be unable to read the interpreter's and the overlay's files."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def test_no_permission(pair: Pair, room: Path) -> None:
    tree = copy(pair.old, room / "tree")
    tree.chmod(0o555)
    done = apply(room, "--json", tree, at=1, mischief=drop_rights)
    tree.chmod(0o755)
    check_environment(done, "no permission to write", "nothing was changed")
    check_untouched(tree, pair)


def test_no_permission_for_one_folder(pair: Pair, room: Path) -> None:
    """It fails in the middle, after the first files, and is rolled back."""
    tree = copy(pair.old, room / "tree")
    if os.geteuid() == 0:
        for place in (tree, *tree.rglob("*")):
            os.chown(place, NOBODY, NOBODY)
    (tree / METHODS).chmod(0o555)
    done = apply(room, "--json", tree, at=1, mischief=drop_rights)
    (tree / METHODS).chmod(0o755)
    check_environment(done, "no permission to write", "nothing was changed")
    check_untouched(tree, pair)


def test_another_owners_files_stay_his(pair: Pair, room: Path) -> None:
    """Root applies to another user's tree: the files keep their owner."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    tree = copy(pair.old, room / "tree")
    for place in (tree, *tree.rglob("*")):
        os.chown(place, NOBODY, NOBODY)
    for how in ((), ("--unapply",)):
        done = apply(room, *how, tree)
        assert done.code == 0, done.text
        owners = {p: (tree / p).stat().st_uid for p in pair.before}
        assert set(owners.values()) == {NOBODY}
    check_whole(tree, pair.before, pair.after, pair.old)


@BOTH
@pytest.mark.parametrize("how", VERBS, ids=lambda how: (*how, "apply")[0].strip("-"))
def test_changed_between_crash_and_recovery(
    pair: Pair, room: Path, unapply: bool, how: tuple[str, ...]
) -> None:
    """It is refused by name and the journal stays; after the next step in the error, it
    continues."""
    was, before, after = pair.ends(unapply)
    tree = copy(was, room / "tree")
    killed = apply(room, *verb(unapply), tree, at=4, event="os.rename", mischief=KILL)
    assert killed.code == -9
    path = "python/sglang/srt/layers/quantization/fp8_utils.py"
    edit(tree / path)()
    left = contents(tree)
    done = apply(room, "--json", *how, tree)
    assert done.code == Exit.CANNOT_APPLY, done.text
    (finding,) = done.report["findings"]
    assert finding["path"] == path
    assert (
        contents(tree).items()
        >= {p: v for p, v in left.items() if not p.endswith("/lock")}.items()
    )
    old = finding["next_step"].partition("(cp ")[2].partition(")")[0]
    shutil.copy2(old, tree / path)
    done = apply(room, *how, tree)
    assert done.code in (Exit.DONE, Exit.FAILS), done.text
    assert "rolled back" in done.out
    check_whole(tree, before, after, was)


@pytest.mark.parametrize(
    "journal", [b"", b"{}", b"\xff", b'[{"place": "../x", "before": null, '
                b'"after": null, "folders": []}]'],
    ids=["empty", "no list", "no text", "outside"],
)  # fmt: skip
def test_a_forged_journal_is_refused(pair: Pair, room: Path, journal: bytes) -> None:
    """A journal that this program did not write is refused."""
    tree = copy(pair.old, room / "tree")
    (tree / FOLDER).mkdir()
    (tree / FOLDER / "journal.json").write_bytes(journal)
    (room / "x").write_text("outside")
    done = apply(room, "--json", tree)
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert done.report["findings"][0]["path"] == f"{FOLDER}/journal.json"
    assert (tree / FOLDER / "journal.json").read_bytes() == journal
    assert (room / "x").read_text() == "outside"


def test_transaction_folder_is_a_link(pair: Pair, room: Path) -> None:
    """Otherwise cleaning up would empty a folder outside the tree."""
    tree = copy(pair.old, room / "tree")
    (room / "precious").mkdir()
    (room / "precious" / "file").write_text("precious")
    (tree / FOLDER).symlink_to(room / "precious")
    done = apply(room, "--json", tree)
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert done.report["findings"][0]["path"] == FOLDER
    assert (room / "precious" / "file").read_text() == "precious"


@pytest.mark.parametrize("what", ["full", "read-only", "bind", "mounted"])
def test_real_file_systems(pair: Pair, room: Path, what: str) -> None:
    """Real full and read-only file systems; see ``mounts.py``."""
    in_a_mount(what, pair.old, room)


def in_a_mount(what: str, old: Path, room: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare(1) is not installed")
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    probe = subprocess.run(
        [*unshare, "mount", "-t", "tmpfs", "none", str(room)],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip(f"no mounts for us here: {probe.stderr.strip()}")
    worker = APPLY.parents[1] / "tests" / "faults" / "mounts.py"
    done = subprocess.run(
        [*unshare, sys.executable, str(worker), what, str(old), str(room)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


def test_everything_is_synced_before_the_journal_relies_on_it(
    pair: Pair, room: Path
) -> None:
    """A power failure can lose what a kill cannot: everything is fsynced before the
    journal, or its end, relies on it. Read from the system calls of real runs."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    tree = copy(pair.old, room / "tree")
    calls = _trace(room, tree)
    journal = _first(calls, "rename", f"{FOLDER}/journal.json")
    commit = _first(calls, "rename", f"{FOLDER}/done.json")
    staged = {a for n, a in calls[:journal] if n == "openat" and "O_CREAT" in a}
    written = {_path(a) for a in staged if "/new-" in a or "/old-" in a}
    assert len(written) >= 8
    assert written <= {_path(a) for n, a in calls[:journal] if n == "fsync"}
    _check_folders_synced(calls[journal + 1 : commit])

    tree = copy(pair.old, room / "tree")
    killed = apply(room, tree, at=7, event="os.rename", mischief=KILL)
    assert killed.code == -9
    calls = _trace(room, "--status", tree, code=1)
    _check_folders_synced(calls[: _first(calls, "unlink", f"{FOLDER}/journal.json")])


Calls = list[tuple[str, str]]


def _trace(room: Path, *arguments: str | Path, code: int = 0) -> Calls:
    """System calls that change files, with paths for file descriptors."""
    log = room / "log"
    strace = ["strace", "-y", "-s", "4096", "-o", str(log)]
    strace += ["-e", "trace=openat,fsync,?rename,?renameat,?unlink,?unlinkat"]
    done = subprocess.run(
        [*strace, sys.executable, "-B", str(APPLY), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != code:
        pytest.skip(f"strace cannot trace here: {done.stderr}")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    calls = [line.partition("(") for line in lines if str(room) in line]
    return [(name.removesuffix("at") if name != "openat" else name, args)
            for name, _, args in calls]  # fmt: skip


def _path(arguments: str) -> str:
    """The path of a traced call."""
    return (
        arguments.partition(str(FOLDER))[2]
        .strip("/")
        .partition('"')[0]
        .partition(">")[0]
    )


def _first(calls: Calls, name: str, target: str) -> int:
    return next(i for i, (n, a) in enumerate(calls) if n == name and f'{target}"' in a)


def _check_folders_synced(calls: Calls) -> None:
    """Every folder is fsynced after the last change of its entries."""
    changed = 0
    for number, (name, arguments) in enumerate(calls):
        if name not in ("rename", "unlink"):
            continue
        target = arguments.split('"')[-2]
        if FOLDER in target:
            continue
        changed += 1
        folder = os.path.dirname(target)  # noqa: PTH120
        assert any(n == "fsync" and f"<{folder}>" in a for n, a in calls[number:]), (
            target
        )
    assert changed >= 4
