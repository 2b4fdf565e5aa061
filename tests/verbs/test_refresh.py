"""refresh: edits of an applied tree go back into this overlay, or nothing changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, give_modules, snapshot, valid_report
from overlaykit.applying.transaction import hold
from overlaykit.core import git
from overlaykit.series.carried import load_overlay
from overlaykit.trees.tree import DirectoryTree
from support.edits import edit
from support.forks import forked
from support.kill_at_write import kill_at_write
from support.one_base import keep_first

COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
LAID = "python/sglang/srt/layers/quantization/bpreshuffle_scale.py"
GATHER = (
    "                # The gather moves raw bytes; a pre-transposed scale is strided.\n"
)

Made = dict[str, tuple[int, bytes]]


def run(overlay: Path, verb: str, *arguments: str | Path) -> tuple[int, str]:
    """Run a verb of a copy of this overlay."""
    script = overlay / "scripts" / f"{verb}.py"
    done = forked(script, [*map(str, arguments)])
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def parts(overlay: Path) -> Made:
    """The files that a refresh may change; it must leave no other files behind."""
    found = snapshot(overlay)
    assert not [path for path in found if path.startswith(".overlay-transaction")]
    names = ("patches/", "overlay/", "overlay.lock")
    return {p: (v[0], v[2]) for p, v in found.items() if p.startswith(names)}


def tree_id(root: Path) -> str:
    """The git tree id of the work tree."""
    git.run(root, "add", "-A", "-f")
    return git.text(root, "write-tree")


@pytest.fixture
def applied(carrier: Path, slim: Callable[..., Path]) -> Path:
    """A clone with the series on it."""
    root = slim(name="applied")
    assert run(carrier, "apply", root)[0] == 0
    return root


@pytest.mark.parametrize("target", ["sglang", "aiter"])
def test_nothing_to_do(carrier: Path, slim: Callable[..., Path], target: str) -> None:
    root = slim(target)
    assert run(carrier, "apply", root)[0] == 0
    before = snapshot(carrier)
    code, said = run(carrier, "refresh", root)
    assert (code, "nothing to do" in said) == (0, True), said
    assert snapshot(carrier) == before


@pytest.mark.parametrize("committed", [False, True])
def test_round_trip_on_a_clone(
    carrier: Path, slim: Callable[..., Path], committed: bool
) -> None:
    """An edit of each patch, of a laid file, and new files: applied to the release,
    the new series gives the edited tree."""
    # Another base has the laid file too.
    keep_first(carrier, 2)
    root, pristine = slim(name="edited"), slim(name="pristine")
    assert run(carrier, "apply", *["--commit"][:committed], root)[0] == 0
    before = parts(carrier)
    for patch in load_overlay(carrier)["sglang"].series.patches:
        hunk = patch.files[0].hunks[-1]
        [line, *_] = hunk.changes[-1].added
        text = (root / hunk.path).read_bytes()
        at = text.rindex(b"".join(hunk.changes[-1].added)) + len(line)
        (root / hunk.path).write_bytes(text[:at] + b"# edited\n" + text[at:])
    (root / LAID).write_bytes(b"# edited\n" + (root / LAID).read_bytes())
    (root / "python" / "sglang" / "more").mkdir()
    (root / "python" / "sglang" / "more" / "one.py").write_text("ONE = 1\n")
    (root / "test" / "test_more.sh").write_text("true\n")
    (root / "test" / "test_more.sh").chmod(0o755)
    (root / ".gitignore").write_text("*.log\n")
    git.run(root, "add", ".gitignore")
    (root / "test" / "run.log").write_text("not this one")
    if committed:
        git.run(root, "add", "python")
        who = git.identity("A", "a@localhost", "@0 +0000")
        git.run(root, "commit", "-q", "-m", "edits", env=who)

    code, said = run(carrier, "refresh", "--dry-run", root)
    assert (code, "would be refreshed" in said) == (0, True), said
    assert parts(carrier) == before
    code, said = run(carrier, "refresh", "--json", root)
    assert code == 0, said
    [result] = valid_report(said)["results"]
    assert [e["patch"][:4] for e in result["edits"]].count("0001") == 1
    assert {e["patch"] for e in result["edits"]} == {
        Path(p).name for p in before if p.startswith("patches/sglang/0")
    }
    now = parts(carrier)
    assert {p for p in now if now[p] != before.get(p)} == set(result["changed"])
    new = now.keys() - before.keys()
    home = "overlay/sglang"
    assert new == {
        f"{home}/python/sglang/more/one.py",
        f"{home}/test/test_more.sh",
        f"{home}/.gitignore",
    }
    assert now[f"{home}/test/test_more.sh"][0] & 0o111
    assert run(carrier, "lock", "--check")[0] == 0
    assert run(carrier, "refresh", root)[1].count("nothing to do") == 1

    assert run(carrier, "apply", pristine)[0] == 0
    (root / "test" / "run.log").unlink()
    assert tree_id(pristine) == tree_id(root)


def test_installed_and_unpacked_trees(
    carrier: Path, laid_out: dict[str, Path], tmp_path: Path
) -> None:
    """Without git, the release's package shows which files were edited or added."""
    ignore = shutil.ignore_patterns(".git")
    site = tmp_path / "site-packages" / "sglang"
    plain = tmp_path / "plain"
    shutil.copytree(laid_out["sglang"] / "python" / "sglang", site, ignore=ignore)
    shutil.copytree(laid_out["sglang"], plain, ignore=ignore)
    before = parts(carrier)
    for root, package in ((site, site), (plain, plain / "python" / "sglang")):
        assert run(carrier, "apply", root)[0] == 0
        assert "nothing to do" in run(carrier, "refresh", root)[1]
        (package / "new.py").write_text("NEW = 1\n")
        (package / "built.so").write_bytes(b"\x7fELF\0")
        code, said = run(carrier, "refresh", root)
        assert code == 0, said
        assert "left alone: python/sglang/built.so: not text" in said
        added = parts(carrier).keys() - before.keys()
        assert added == {"overlay/sglang/python/sglang/new.py"}
        (package / "built.so").unlink()
        # Not in the series: found only by comparison with the package.
        with (package / "version.py").open("a") as file:
            file.write("# edited\n")
        code, said = run(carrier, "refresh", root)
        assert code == 3
        assert "python/sglang/version.py:" in said and "<module>" in said
        shutil.rmtree(carrier / "overlay")
        shutil.rmtree(carrier / "patches")
        for name in ("overlay", "patches"):
            shutil.copytree(ROOT / name, carrier / name)
        shutil.copy2(ROOT / "overlay.lock", carrier / "overlay.lock")


def test_into(carrier: Path, applied: Path, slim: Callable[..., Path]) -> None:
    before = parts(carrier)
    edit(applied, COMMUNICATOR, "    def prepare_mlp(\n", "    def prepare_mlp(  #\n")
    code, said = run(carrier, "refresh", applied)
    assert code == 3
    assert f"{COMMUNICATOR}:" in said
    assert "LayerCommunicator.prepare_mlp" in said
    assert "--into PATCH" in said
    assert run(carrier, "refresh", "--into", "no.patch", applied)[0] == 2
    assert parts(carrier) == before
    patch = "0005-o-proj-flatten.patch"
    code, said = run(carrier, "refresh", "--into", patch, applied)
    assert code == 0, said
    now = parts(carrier)
    assert {p for p in now if now[p] != before[p]} == {
        f"patches/sglang/{patch}",
        "overlay.lock",
    }
    other = slim(name="other")
    assert run(carrier, "apply", other)[0] == 0
    assert tree_id(other) == tree_id(applied)


def test_another_base(carrier: Path, slim: Callable[..., Path]) -> None:
    """If every touched file is edited, no blob id identifies the base."""
    overlay = load_overlay(carrier)
    for name in overlay:
        if overlay[name].target.package != "sglang":
            continue
        root = slim(name, name)
        assert run(carrier, "apply", root)[0] == 0
        for path in overlay[name].series.paths:
            data = (root / path).read_bytes()
            # A later patch of the series may have changed a block again.
            block = next(
                block
                for _, diff in overlay[name].series.diffs(path)
                for hunk in diff.hunks
                if data.count(block := b"".join(hunk.new)) == 1
            )
            (root / path).write_bytes(data.replace(block, block + b"# edited\n"))
        # Where several patches change a scope, somebody must name one.
        last = overlay[name].series.patches[-1].name
        code, said = run(carrier, "refresh", "--json", "--into", last, root)
        assert code == 0, said
        [result] = json.loads(said)["results"]
        assert result["target"] == name
        assert all(
            path.startswith((f"patches/{name}/", "overlay.lock"))
            for path in result["changed"]
        )


def test_new_files_that_two_bases_share(carrier: Path, applied: Path) -> None:
    (applied / LAID).write_bytes(b"# edited\n" + (applied / LAID).read_bytes())
    code, said = run(carrier, "refresh", applied)
    assert code == 0, said
    assert run(carrier, "lock", "--check")[0] == 0
    for carried in load_overlay(carrier).values():
        if carried.target.package == "sglang" and carried.new_files:
            assert carried.new_files[0].data.startswith(b"# edited\n")


def _syntax(root: Path) -> None:
    edit(root, COMMUNICATOR, GATHER, GATHER + "    if (:\n")


def _crlf(root: Path) -> None:
    data = (root / COMMUNICATOR).read_bytes()
    (root / COMMUNICATOR).write_bytes(data.replace(b"\n", b"\r\n"))


def _deleted(root: Path) -> None:
    (root / COMMUNICATOR).unlink()


def _laid_deleted(root: Path) -> None:
    (root / LAID).unlink()


def _laid_mode(root: Path) -> None:
    (root / LAID).chmod(0o755)


def _upstream_deleted(root: Path) -> None:
    (root / COMMUNICATOR).with_name("layernorm.py").unlink()


def _not_of_the_package(root: Path) -> None:
    (root / "README.md").write_text("upstream's")
    git.run(root, "add", "README.md")
    who = git.identity("A", "a@localhost", "@0 +0000")
    git.run(root, "commit", "-q", "-m", "as upstream", env=who)
    (root / "README.md").write_text("edited")


def _reverted(root: Path) -> None:
    git.run(root, "checkout", "-q", "--", COMMUNICATOR)


def _link(root: Path) -> None:
    (root / "python" / "link.py").symlink_to("sglang")


def _gutted(root: Path) -> None:
    data = git.run(root, "show", f"HEAD:{COMMUNICATOR}").stdout
    (root / COMMUNICATOR).write_bytes(data + b"\n")


@pytest.mark.parametrize(
    ("trouble", "named"),
    [
        (_syntax, [f"{COMMUNICATOR}:845: does not parse"]),
        (_crlf, [f"{COMMUNICATOR}:1: has a carriage return"]),
        (_deleted, [f"{COMMUNICATOR}: was deleted"]),
        (_laid_deleted, [f"{LAID}: was deleted"]),
        (_laid_mode, [f"{LAID}: has another mode", "100644", "100755"]),
        (_upstream_deleted, ["layernorm.py: was deleted"]),
        (
            _not_of_the_package,
            ["README.md: was edited", "differs from the pinned base"],
        ),
        (_reverted, ["the series is not applied", COMMUNICATOR, "0 of its 1 patches"]),
        (_link, ["symbolic link", "python/link.py"]),
        (_gutted, ["X-Sites names LayerCommunicator.prepare_attn", "next"]),
    ],
)
def test_refused(
    carrier: Path,
    applied: Path,
    trouble: Callable[[Path], None],
    named: list[str],
) -> None:
    trouble(applied)
    before, tree = parts(carrier), snapshot(applied)
    found, said = run(carrier, "refresh", applied)
    assert found == 3, said
    for name in named:
        assert name in said
    assert parts(carrier) == before
    assert snapshot(applied) == tree


def test_not_applied(carrier: Path, slim: Callable[..., Path]) -> None:
    code, said = run(carrier, "refresh", slim())
    assert code == 3
    assert "apply the series first" in said


@pytest.mark.slow("killed at every write")
def test_killed_at_every_write(carrier: Path, applied: Path, tmp_path: Path) -> None:
    """kill -9 anywhere leaves the old overlay or the new one, and verbs report it."""
    keep_first(give_modules(carrier))
    edit(applied, COMMUNICATOR, GATHER, GATHER + "                # edited\n")
    (applied / "python" / "sglang" / "more").mkdir()
    (applied / "python" / "sglang" / "more" / "one.py").write_text("ONE = 1\n")
    log, root = tmp_path / "writes", tmp_path / "killed"

    def refresh(at: int) -> int:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(carrier, root, symlinks=True)
        return kill_at_write(root, at, log, "refresh", str(applied))

    assert refresh(0) == 0
    old, new, points = parts(carrier), parts(root), int(log.read_text())
    assert old != new
    assert points > 15
    seen = set()
    for at in range(1, points + 1):
        assert refresh(at) == -9
        journal = root / ".overlay-transaction" / "journal.json"
        if unfinished := journal.exists():
            code, said = run(root, "lock", "--check")
            assert (code, "a change to the overlay is unfinished" in said) == (3, True)
        with hold(DirectoryTree(root)) as transaction:
            assert transaction.repaired == unfinished
        assert parts(root) in (old, new)
        seen.add((parts(root) == new, unfinished))
    # Before the journal, while it exists, and after the commit.
    assert seen == {(False, False), (False, True), (True, False)}
    assert refresh(points // 2) == -9
    code, said = run(root, "refresh", applied)
    assert code == 0, said
    assert parts(root) == new
