"""Bad input for apply.py is refused with the file, the reason, the next step and the
shared exit code, and the tree does not change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import ROOT, Pins, run_verb, snapshot
from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure, Exit
from overlaykit.export.formats import all_patches, export_quilt
from overlaykit.sources.packages import cache_folder, fetch
from overlaykit.trees.locking import FOLDER
from overlaykit.trees.tree import WheelTree
from support.forks import forked

FP8 = "python/sglang/srt/layers/quantization/fp8_utils.py"
NEW = "python/sglang/srt/layers/quantization/bpreshuffle_scale.py"
QUANTIZATION = "python/sglang/srt/layers/quantization"
PATCH = "0001-fp8-consumer.patch"
WHO = ("-c", "user.name=t", "-c", "user.email=t@localhost")

Slim = Callable[..., Path]
Edit = Callable[[bytes], bytes]


def run_of(
    overlay: Path, verb: str, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a verb of another copy of the overlay."""
    return forked(overlay / "scripts" / f"{verb}.py", arguments, env=env)


def check_refused(
    *arguments: str | Path,
    code: Exit,
    said: tuple[str, ...],
    trees: tuple[Path, ...] = (),
    overlay: Path = ROOT,
    verb: str = "apply",
    step: bool = True,
    env: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Run a verb with text and with JSON output: both refuse, and nothing is written.

    ``step``: some finding must have a next step. Returns the JSON report.
    """
    before = {tree: snapshot(tree) for tree in trees}
    words = [str(argument) for argument in arguments]
    text, document = (
        run_of(overlay, verb, *more, *words, env=env) for more in ((), ("--json",))
    )
    assert text.returncode == code, text.stdout + text.stderr
    assert "Traceback" not in text.stderr
    assert document.returncode == code, document.stdout + document.stderr
    report: dict[str, Any] = json.loads(document.stdout)
    assert report["exit_code"] == code
    assert report["message"]
    strings = [report["message"]]
    strings += [str(v) for f in report["findings"] for v in f.values() if v is not None]
    for part in said:
        assert part in text.stderr
        assert any(part in string for string in strings), strings
    assert any(f["next_step"] for f in report["findings"]) or not step
    for tree in trees:
        assert snapshot(tree) == before[tree]
        assert not (tree / FOLDER).exists()
    return report


def edit(place: Path, change: Edit) -> None:
    data = place.read_bytes()
    edited = change(data)
    assert edited != data
    place.write_bytes(edited)


# Trees that drifted, one file at a time.

DRIFTS: dict[str, tuple[Edit, str]] = {
    "edited": (lambda d: d + b"# mine\n", "is not the pinned file"),
    "CRLF": (lambda d: d.replace(b"\n", b"\r\n"), "has CRLF line endings"),
    "not UTF-8": (lambda d: d + b"# \xe9t\xe9\n", "is not UTF-8 text"),
    "emptied": (lambda _: b"", "is not the pinned file"),
    "no end of line": (lambda d: d.rstrip(b"\n"), "is not the pinned file"),
}


@pytest.mark.parametrize(("change", "what"), DRIFTS.values(), ids=DRIFTS)
def test_touched_file_is_dirty(slim: Slim, change: Edit, what: str) -> None:
    tree = slim()
    edit(tree / FP8, change)
    said = (FP8, what, PATCH, "nothing was changed")
    for verb in ((), ("--unapply",)) if what == "is not UTF-8 text" else ((),):
        check_refused(*verb, tree, code=Exit.CANNOT_APPLY, said=said, trees=(tree,))


def test_other_files_may_be_dirty(slim: Slim) -> None:
    """Changes to files that the series does not touch are allowed and kept."""
    tree = slim()
    other = tree / QUANTIZATION / "fp8_kernel.py"
    edit(other, lambda data: data + b"# mine\n")
    (tree / "notes.txt").write_text("mine")
    before = snapshot(tree)
    assert run_verb("apply", str(tree)).returncode == Exit.DONE
    assert run_verb("apply", "--unapply", str(tree)).returncode == Exit.DONE
    after = snapshot(tree)
    for path in (f"{QUANTIZATION}/fp8_kernel.py", "notes.txt"):
        assert after[path] == before[path]
    assert {p: v[2] for p, v in after.items()} == {p: v[2] for p, v in before.items()}


def test_touched_file_is_missing(slim: Slim) -> None:
    tree = slim()
    (tree / FP8).unlink()
    said = (FP8, "does not exist", "sglang 0.5.11")
    check_refused(tree, code=Exit.CANNOT_APPLY, said=said, trees=(tree,))


def test_touched_file_is_a_folder(slim: Slim) -> None:
    tree = slim()
    (tree / FP8).unlink()
    (tree / FP8).mkdir()
    said = (FP8, "is not a regular file")
    check_refused(tree, code=Exit.CANNOT_APPLY, said=said, trees=(tree,))


@pytest.mark.parametrize("where", ["inside", "outside", "dangling", "folder"])
def test_links_are_not_followed(slim: Slim, tmp_path: Path, where: str) -> None:
    """A write through a link would change a file outside the tree, or a shared one."""
    tree = slim()
    place = tree / (QUANTIZATION if where == "folder" else FP8)
    kept = (tree if where == "inside" else tmp_path) / "kept"
    place.rename(kept)
    place.symlink_to(tmp_path / "nothing" if where == "dangling" else kept)
    said = (FP8, "is a symbolic link", "replace the link")
    check_refused(tree, code=Exit.CANNOT_APPLY, said=said, trees=(tree,))
    assert place.is_symlink()


@pytest.mark.parametrize("verb", [(), ("--unapply",)], ids=["apply", "unapply"])
def test_another_file_where_a_new_one_goes(slim: Slim, verb: tuple[str]) -> None:
    tree = slim()
    (tree / NEW).write_text("# mine\n")
    said = (NEW, "with other contents", "move it away")
    check_refused(*verb, tree, code=Exit.CANNOT_APPLY, said=said, trees=(tree,))


# Trees half-way between the pin and the series.


def push_with_quilt(pins: Pins, tree: Path) -> None:
    if shutil.which("quilt") is None:
        pytest.skip("quilt is not installed")
    export_quilt(pins.overlay["sglang"], tree / "patches")
    subprocess.run(["quilt", "push", "2"], cwd=tree, check=True, capture_output=True)


def mail_with_git(pins: Pins, tree: Path) -> None:
    mails = [data for _, data in all_patches(pins.overlay["sglang"])][:2]
    subprocess.run(
        ["git", "am"], cwd=tree, input=b"\n".join(mails), check=True,
        capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("other", [push_with_quilt, mail_with_git])
def test_half_applied_by_another_tool(
    pins: Pins, slim: Slim, other: Callable[[Pins, Path], None]
) -> None:
    """Apply refuses and names both ways out; unapply restores the pinned release."""
    tree = slim()
    pristine = {p: v[2] for p, v in snapshot(tree).items()}
    other(pins, tree)
    said = (
        "of its 1 patches are applied",
        FP8,
        PATCH,
        "quilt pop -a",
        "apply.py --unapply",
    )
    check_refused(tree, code=Exit.CANNOT_APPLY, said=said, trees=(tree,))
    status = run_verb("apply", "--status", str(tree))
    assert status.returncode == Exit.CANNOT_APPLY
    assert run_verb("apply", "--unapply", str(tree)).returncode == Exit.DONE
    found = {p: v[2] for p, v in snapshot(tree).items()}
    assert pristine == {p: found.get(p) for p in pristine}


def test_another_release(pins: Pins, slim: Slim) -> None:
    """On the next real release every drifted file is named, with a next step."""
    tree, carried = slim(), pins.overlay["sglang"]
    dist = msgspec.structs.replace(carried.target.package_dist, version="0.5.13")
    target = msgspec.structs.replace(carried.target, dist=dist)
    kept = sorted(cache_folder(ROOT).glob("sglang-0.5.13-*.whl"))
    try:
        wheel = kept[0] if kept else fetch(ROOT, target, None)
    except EnvironmentFailure as error:
        pytest.skip(f"no network: {error}")
    release = WheelTree(wheel, target.site_layout())
    for path in carried.series.paths:
        (tree / path).write_bytes(release.read(path) or b"")
    git.run(tree, *WHO, "commit", "-q", "-a", "-m", "0.5.13")
    said = ("is not the pinned file", "another release", "rebase")
    report = check_refused(tree, code=Exit.CANNOT_APPLY, said=said, trees=(tree,))
    named = {f["path"] for f in report["findings"] if f["path"] is not None}
    changed = {
        p
        for p in carried.series.paths
        if release.read(p) != pins.tree("sglang").read(p)
    }
    assert named == changed != set()


# Paths without a target.


def test_no_target(tmp_path: Path) -> None:
    empty, other, file = tmp_path / "empty", tmp_path / "other", tmp_path / "file"
    empty.mkdir()
    (other / "python").mkdir(parents=True)
    (other / "python" / "setup.py").write_text("")
    file.write_text("")
    for path, what in (
        (empty, "contains no target"),
        (other, "contains no target"),
        (file, "is not a directory"),
        (tmp_path / "missing", "does not exist"),
        (tmp_path / ("long" * 100), "File name too long"),
    ):
        code = Exit.ENVIRONMENT if "long" in path.name else Exit.USAGE
        step = code is Exit.USAGE
        check_refused(path, code=code, said=(str(path), what), step=step)


def test_one_bad_path_among_good_ones(slim: Slim, tmp_path: Path) -> None:
    tree, missing = slim(), tmp_path / "missing"
    said = (str(missing), "does not exist")
    check_refused(tree, missing, code=Exit.USAGE, said=said, trees=(tree,))


@pytest.mark.parametrize("way", ["same", "slash", "link", "relative", "package"])
def test_one_tree_named_twice(slim: Slim, tmp_path: Path, way: str) -> None:
    tree = slim()
    link = tmp_path / "link"
    link.symlink_to(tree)
    again = {
        "same": str(tree),
        "slash": f"{tree}//.",
        "link": str(link),
        "relative": os.path.relpath(tree),
        "package": str(tree / "python" / "sglang"),
    }[way]
    said = ("is named more than once", str(tree))
    check_refused(tree, again, code=Exit.USAGE, said=said, trees=(tree,))


def test_a_link_to_a_tree_is_the_tree(slim: Slim, tmp_path: Path) -> None:
    tree, link = slim(), tmp_path / "link"
    link.symlink_to(tree)
    assert run_verb("apply", str(link)).returncode == Exit.DONE
    assert link.is_symlink()
    assert run_verb("apply", "--status", str(tree)).returncode == Exit.DONE


def test_usage(slim: Slim) -> None:
    tree = slim()
    for arguments in ((), ("--unapply", "--status", tree), ("--unap", tree)):
        done = run_verb("apply", *map(str, arguments))
        assert done.returncode == Exit.USAGE
        assert "usage:" in done.stderr


def test_commit_needs_a_clone(slim: Slim) -> None:
    tree = slim(clone=False)
    said = (str(tree), "--commit needs one")
    check_refused(
        "--commit",
        tree,
        code=Exit.USAGE,
        said=said,
        trees=(tree,),
        step=False,
    )


# Accepted, although it looks wrong.


def test_tree_inside_another_repository(slim: Slim, tmp_path: Path) -> None:
    """``git apply`` in such a directory exits 0 and changes nothing."""
    outer = tmp_path / "outer"
    outer.mkdir()
    tree = slim(name="outer/vendor/sglang", clone=False)
    (outer / "README").write_text("outer")
    git.run(outer, "init", "-q")
    git.run(outer, "add", "README")
    git.run(outer, *WHO, "commit", "-q", "-m", "outer")
    before, files = snapshot(outer / ".git"), snapshot(tree)
    assert run_verb("apply", str(tree)).returncode == Exit.DONE
    assert (tree / NEW).exists()
    assert snapshot(tree)[FP8] != files[FP8]
    said = (str(tree), "--commit needs one")
    check_refused("--commit", tree, code=Exit.USAGE, said=said, step=False)
    assert run_verb("apply", "--unapply", str(tree)).returncode == Exit.DONE
    assert not (tree / NEW).exists()
    assert snapshot(outer / ".git") == before


def test_nothing_to_do(slim: Slim) -> None:
    """Unapply on a pristine tree, apply on an applied one: nothing is written."""
    tree = slim()
    for verb, said in (
        (("--unapply",), "nothing to take off"),
        ((), "applied"),
        ((), "already applied"),
        (("--dry-run",), "already applied"),
    ):
        before = snapshot(tree)
        done = run_verb("apply", "--json", *verb, str(tree))
        assert done.returncode == Exit.DONE, done.stderr
        (result,) = json.loads(done.stdout)["results"]
        assert result["outcome"] == said
        assert (snapshot(tree) == before) == (said != "applied")
    assert not (tree / FOLDER).exists()


# Broken overlays.


def change_line(old: bytes, new: bytes) -> Edit:
    return lambda data: data.replace(old, new, 1)


def before_hunk(text: bytes) -> Edit:
    return change_line(b"@@ -779", text + b"@@ -779")


_INDEX = b"index b39da526705a6472015107adf66905f034bb573d"
PATCHES: dict[str, tuple[Edit, str]] = {
    "parent": (
        lambda d: d.replace(b"python/sglang/srt", b"../sglang/srt"),
        "contains an empty part, `.` or `..`",
    ),
    "absolute": (
        lambda d: d.replace(b"/python/sglang", b"//etc"),
        "is not a relative path",
    ),
    "git": (lambda d: d.replace(b"python/sglang/srt", b".git/hooks"), "git's own"),
    "path bytes": (lambda d: d.replace(b"python/", b"\xff/"), "not UTF-8"),
    "hunk header": (change_line(b"@@ -779,9", b"@@ -779;9"), "corrupt hunk header"),
    "truncated": (lambda d: d[: -len(b"             input_2d,\n")], "ends early"),
    "cut": (lambda d: d[:-1], "ends early"),
    "too long": (lambda d: d + b"+    pass\n", "is longer than its header says"),
    "counts": (change_line(b"@@ -779,9", b"@@ -779,8"), "longer than its header says"),
    "garbage": (before_hunk(b"garbage\n"), "expected a diff header"),
    "empty line": (before_hunk(b"\n"), "expected a diff header"),
    "no change": (lambda d: d[: d.index(b"@@")], "expected a hunk"),
    "binary": (before_hunk(b"GIT binary patch\nliteral 0\n"), "expected a diff header"),
    "binary only": (
        lambda d: d[: d.index(b"--- a/")] + b"GIT binary patch\nliteral 0\n",
        "the file names do not match",
    ),
    "mode": (
        change_line(_INDEX, b"old mode 100644\n" + _INDEX),
        "change binary files or modes",
    ),
    "rename": (change_line(b" b/python", b" b/elsewhere"), "expected a diff header"),
    "creation": (change_line(_INDEX, b"new file mode 100644\n" + _INDEX), "new file"),
    "short ids": (
        change_line(_INDEX, b"index b39da52"),
        "expected an index line with full ids",
    ),
    "two files": (change_line(b"+++ b/python", b"+++ b/other"), "names do not match"),
    "second mail": (lambda d: d + b"-- \n2.39.5\n\n" + d, "text after the signature"),
    "CRLF": (lambda d: d.replace(b"\n", b"\r\n"), ""),
    "empty": (lambda _: b"", "the patch changes no file"),
}  # fmt: skip


_BAD_NAMES = {PATCHES[key][1] for key in ("parent", "absolute", "git", "path bytes")}
_LEAVE_OUT = "leave this file out: a series cannot carry a file with this name"


@pytest.mark.parametrize(("change", "what"), PATCHES.values(), ids=PATCHES)
def test_bad_patch(overlay: Path, slim: Slim, change: Edit, what: str) -> None:
    tree = slim(clone=False)
    edit(overlay / "patches" / "sglang" / PATCH, change)
    step = _LEAVE_OUT if what in _BAD_NAMES else "re-make the patch"
    said = (PATCH, what, step)
    report = check_refused(
        tree, code=Exit.USAGE, said=said, trees=(tree,), overlay=overlay
    )
    assert report["findings"][0]["line"]


def test_same_file_twice_in_a_patch(overlay: Path, slim: Slim) -> None:
    tree = slim()
    patch = overlay / "patches" / "sglang" / PATCH
    edit(patch, lambda data: data + data[data.index(b"diff --git") :])
    said = (PATCH, FP8, "more than once")
    check_refused(
        tree, code=Exit.USAGE, said=said, trees=(tree,), overlay=overlay, step=False
    )


def series(text: str) -> Callable[[Path], None]:
    return lambda overlay: _append(overlay / "patches" / "sglang" / "series", text)


def _append(place: Path, text: str) -> None:
    place.write_text(place.read_text() + text)


OVERLAYS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing patch": (series("0009.patch\n"), ("series:", "0009.patch", "not exist")),
    "twice": (series(f"{PATCH}\n"), ("series:", PATCH, "more than once")),
    "options": (series("x.patch -p0\n"), ("series:", "x.patch -p0", "one file name")),
    "outside": (series("../aiter/series\n"), ("series:", "../aiter", "not the name")),
    "not text": (
        lambda o: (o / "patches/sglang/series").write_bytes(b"\xff"),
        ("series", "utf-8"),
    ),
    "no series": (lambda o: (o / "patches/sglang/series").unlink(), ("not exist",)),
    "stray": (
        lambda o: (o / "patches/sglang/0001.patch.orig").touch(),
        ("0001.patch.orig", "series does not list"),
    ),
    "order": (
        lambda o: edit(
            o / "patches/sglang/series",
            lambda d: b"\n".join(reversed(d.splitlines())) + b"\n",
        ),
        ("overlay.lock is stale", "scripts/lock.py"),
    ),
    "patch edited": (
        lambda o: edit(o / "patches/sglang" / PATCH, change_line(b"fp8:", b"FP8:")),
        ("overlay.lock is stale", PATCH, "scripts/lock.py"),
    ),
    "new file edited": (
        lambda o: edit(o / "overlay/sglang" / NEW, lambda d: d + b"\n"),
        ("overlay.lock is stale", NEW, "scripts/lock.py"),
    ),
    "new file added": (
        lambda o: (o / "overlay/sglang/extra.py").touch(),
        ("overlay.lock is stale", "extra.py", "scripts/lock.py"),
    ),
    "new file is a link": (
        lambda o: (o / "overlay/sglang/extra.py").symlink_to(NEW),
        ("extra.py", "is a symbolic link"),
    ),
    "manifest edited": (
        lambda o: _append(o / "overlay.toml", "# a note\n"),
        ("overlay.lock is stale", "overlay.toml", "scripts/lock.py"),
    ),
    "no lock": (
        lambda o: (o / "overlay.lock").unlink(),
        ("overlay.lock does not exist", "scripts/lock.py"),
    ),
    "lock cut": (
        lambda o: edit(o / "overlay.lock", lambda d: d[:900]),
        ("overlay.lock", "scripts/lock.py"),
    ),
    "lock of another shape": (
        lambda o: (o / "overlay.lock").write_text("[]"),
        ("overlay.lock", "scripts/lock.py"),
    ),
    "lock of the future": (
        lambda o: edit(o / "overlay.lock", change_line(b'"format": 1', b'"format": 2')),
        ("overlay.lock", "format 2, expected 1"),
    ),
}


@pytest.mark.parametrize(("damage", "said"), OVERLAYS.values(), ids=OVERLAYS)
def test_bad_overlay(
    overlay: Path, slim: Slim, damage: Callable[[Path], object], said: tuple[str, ...]
) -> None:
    tree = slim(clone=False)
    damage(overlay)
    check_refused(tree, code=Exit.USAGE, said=said, trees=(tree,), overlay=overlay)


@pytest.mark.parametrize("text", ["name = ", 'name = "x"\n', "\x00", None])
def test_bad_manifest(overlay: Path, slim: Slim, text: str | None) -> None:
    tree = slim()
    manifest = overlay / "overlay.toml"
    manifest.unlink()
    if text is not None:
        manifest.write_text(text)
    check_refused(
        tree, code=Exit.USAGE, said=("overlay.toml",), trees=(tree,), overlay=overlay,
        step=False,
    )  # fmt: skip


# The network and the cache.


def cached_copy(pins: Pins, overlay: Path) -> Path:
    """The real wheel in the broken overlay's cache."""
    cache_folder(overlay).mkdir(parents=True)
    wheel = pins.wheels["sglang"]
    return Path(shutil.copy2(wheel, cache_folder(overlay) / wheel.name))


@pytest.mark.parametrize("change", [lambda d: d[:-1] + b"x", lambda d: d[:1000]])
def test_tampered_package(pins: Pins, overlay: Path, change: Edit) -> None:
    wheel = cached_copy(pins, overlay)
    edit(wheel, change)
    locked = pins.overlay["sglang"].lock.dist
    assert locked is not None
    text = run_of(overlay, "fetch", "--json")
    report = json.loads(text.stdout)
    assert text.returncode == report["exit_code"] == Exit.USAGE
    (finding,) = report["findings"]
    assert finding["path"] == wheel.name
    assert locked.sha256 in finding["expected"]
    assert finding["next_step"]
    assert not wheel.exists()


def test_tampered_package_predicts_no_hunks(
    pins: Pins, overlay: Path, slim: Slim
) -> None:
    """A drifted tree is reported as drifted; a damaged package predicts no hunks."""
    tree = slim(clone=False)
    edit(tree / FP8, lambda data: data + b"# mine\n")
    edit(cached_copy(pins, overlay), lambda data: data[:1000])
    said = (FP8, "is not the pinned file", "nothing was changed")
    check_refused(
        tree, code=Exit.CANNOT_APPLY, said=said, trees=(tree,), overlay=overlay
    )


@pytest.mark.parametrize(
    "env",
    [
        {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"},
        {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
    ],
    ids=["unreachable", "no index"],
)
def test_no_network(overlay: Path, env: dict[str, str]) -> None:
    """Pip's own configuration files are ignored here."""
    shut = {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": ""}
    said = ("could not be fetched", "check the network")
    check_refused(
        verb="fetch", code=Exit.ENVIRONMENT, said=said, overlay=overlay,
        env={**shut, **env},
    )  # fmt: skip
    assert list(cache_folder(overlay).iterdir()) == []
    assert not (overlay / "build" / "sglang").exists()


def test_cache_cannot_be_written(overlay: Path) -> None:
    (overlay / "build").write_text("in the way")
    said = ("could not be saved", "build")
    check_refused(verb="fetch", code=Exit.ENVIRONMENT, said=said, overlay=overlay)


@pytest.fixture
def no_package_index() -> Iterator[None]:
    """Run without a package index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
        patch.setenv("PIP_NO_INDEX", "1")
        yield


@pytest.mark.usefixtures("no_package_index")
def test_apply_needs_no_network(overlay: Path, slim: Slim) -> None:
    """The lock is enough; nothing is fetched or cached."""
    tree = slim()
    for verb in ((), ("--status",), ("--unapply",)):
        done = run_of(overlay, "apply", *verb, str(tree))
        assert done.returncode == Exit.DONE, done.stderr
    assert not (overlay / "build").exists()
