"""rebase: real releases, real conflicts, and killed processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Pins, give_modules, lay, neighbours, snapshot, valid_report
from overlaykit.core import git
from overlaykit.export.formats import mailbox
from overlaykit.series.carried import load_overlay
from overlaykit.series.quilt import load_series, read_header
from overlaykit.sources.releases import release_tree
from support.edits import commit, edit
from support.forks import forked
from support.kill_at_write import kill_at_write
from support.one_base import keep_first
from verbs.test_aiter_moves import ALLOCATED, PARAMETER

Slim = Callable[..., Path]

METHODS = "python/sglang/srt/models/deepseek_common/attention_forward_methods"
MHA, MLA = f"{METHODS}/forward_mha.py", f"{METHODS}/forward_mla.py"
CALL = "                q, _, _, _ = fused_rms_fp8_group_quant(\n"
REWORDED = "                q, _, _, _unused = fused_rms_fp8_group_quant(\n"
RESOLVED = (
    "                q, _, _, _unused = quant_pretransposed_scale(\n"
    "                    fused_rms_fp8_group_quant,\n"
)
PATCH = "0004-forward-mha-producers.patch"


def call(
    overlay: Path, verb: str, *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    script = overlay / "scripts" / f"{verb}.py"
    return forked(script, [*map(str, arguments)], env=env)


def rebase(overlay: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run rebase and check its report against the schema."""
    done = call(overlay, "rebase", "--json", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    report = valid_report(done.stdout)
    assert report["exit_code"] == done.returncode
    return report


def rebased_hunks(report: dict[str, Any]) -> list[dict[str, Any]]:
    return list(result_of(report)["fates"])


def result_of(report: dict[str, Any]) -> dict[str, Any]:
    [result] = report["results"]
    return dict(result)


def finding(report: dict[str, Any]) -> dict[str, Any]:
    return dict(report["findings"][0])


def own(overlay: Path) -> dict[str, bytes]:
    """The files of an overlay, without active rebases."""
    parts = snapshot(overlay)
    return {p: data for p, (_, _, data) in parts.items() if not p.startswith("build/")}


@pytest.fixture
def reworded(slim: Slim) -> Path:
    """A clone whose next commit changes a line that a hunk changes too."""
    clone = slim()
    edit(clone, MHA, CALL, REWORDED)
    commit(clone, "reworded")
    return clone


def lay_release(pins: Pins, version: str, folder: Path) -> Path:
    """The touched files of a release and their neighbours."""
    carried = pins.overlay["sglang"]
    tree = release_tree(ROOT, carried.target, version)
    lay(tree, neighbours(tree, carried), folder)
    return folder


@pytest.mark.slow("a whole rebase, with the numeric proof")
def test_a_release_rebased_adopted_and_used(
    carrier: Path, pins: Pins, tmp_path: Path
) -> None:
    before = own(carrier)
    report = rebase(carrier, "--onto", "0.5.12")
    assert report["exit_code"] == 0
    assert {hunk["outcome"] for hunk in rebased_hunks(report)} == {"carried"}
    assert own(carrier) == before, "nothing is touched before --adopt"
    folder = carrier / "build" / "rebase" / "sglang-0.5.12"
    new = load_series(folder / "patches")
    old = pins.overlay["sglang"].series
    assert [p.header for p in new.patches] == [p.header for p in old.patches]

    adopted = rebase(carrier, "--adopt")
    assert adopted["exit_code"] == 0
    assert not (carrier / "build" / "rebase").exists()
    after = own(carrier)
    changed = {p for p in {*before, *after} if before.get(p) != after.get(p)}
    assert {p for p in changed if not p.startswith("patches/sglang-0.5.12/")} == {
        "overlay.toml",
        "overlay.lock",
    }
    assert after["overlay.toml"].startswith(before["overlay.toml"])
    check = call(carrier, "lock", "--check")
    assert check.returncode == 0, check.stdout + check.stderr

    tree = lay_release(pins, "0.5.12", tmp_path / "image")
    applied = call(carrier, "apply", tree)
    assert applied.returncode == 0, applied.stderr
    assert "sglang-0.5.12: applied" in applied.stdout
    verified = call(carrier, "verify", tree)
    assert verified.returncode == 0, verified.stderr
    assert rebase(carrier, "--status")["message"] == "no rebase is active"


@pytest.mark.slow("a whole rebase")
def test_rebase_reproduces_the_second_base(carrier: Path) -> None:
    """And adopting it again changes nothing, byte for byte."""
    before = own(carrier)
    assert rebase(carrier, "--onto", "0.5.12.post1")["exit_code"] == 0
    result = result_of(rebase(carrier, "--adopt"))
    assert result["outcome"] == "adopted already"
    assert own(carrier) == before


def test_git_am_of_the_second_base_leaves_the_tree_that_apply_leaves(
    slim: Slim, pins: Pins, tmp_path: Path
) -> None:
    name = "sglang-0.5.12.post1"
    mailed, applied = slim(name, "mailed"), slim(name, "applied")
    carried = pins.overlay[name]
    box = tmp_path / "series.mbox"
    box.write_bytes(mailbox(carried))
    who = ("-c", "user.name=A Tester", "-c", "user.email=tester@localhost")
    git.run(mailed, *who, "am", "-q", "--keep-cr", str(box))
    assert call(ROOT, "apply", applied).returncode == 0
    git.run(applied, "add", "-A", "-f")
    assert git.text(mailed, "rev-parse", "HEAD^{tree}") == git.text(
        applied, "write-tree"
    )


def test_a_series_that_opens_upstreams_own_layout(carrier: Path, slim: Slim) -> None:
    """Its base has every site already: that is no reason to drop a hunk. A hunk that is
    not at the site that it names stays in its function."""
    base = "sglang-0.5.23"
    clone = slim(base)
    for path in sorted(load_overlay(ROOT)[base].series.paths):
        place = clone / path
        place.write_text("# upstream goes on\n" + place.read_text())
    commit(clone, "upstream goes on")
    report = rebase(carrier, "--from", base, "--onto", "main", "--clone", clone)
    assert report["exit_code"] == 0, report
    assert {hunk["outcome"] for hunk in rebased_hunks(report)} == {"carried"}
    assert "notes" not in result_of(report), "no site is said to be wrong"
    [folder] = (carrier / "build" / "rebase").iterdir()
    new, old = load_series(folder / "patches"), load_overlay(ROOT)[base].series
    assert [p.header for p in new.patches] == [p.header for p in old.patches]


@pytest.mark.slow("a whole rebase, with three resolutions")
def test_rebase_reproduces_the_base_of_0_5_22(carrier: Path, pins: Pins) -> None:
    """The GEMM of few rows is not there: its patch is left out whole. Two conflicts are
    resolved as they were by hand."""
    base = "sglang-0.5.22"
    asked = ("--from", "sglang-0.5.23", "--onto", "0.5.22")
    report = rebase(carrier, *asked)
    said = finding(report)
    assert report["exit_code"] == 3
    assert said["patch"] == "0008-small-m-gemm.patch"
    assert "--skip-patch" in said["next_step"]
    resolved = pins.patched(base)
    report = rebase(carrier, "--skip-patch")
    [folder] = (carrier / "build" / "rebase").iterdir()
    for _ in range(2):
        assert report["exit_code"] == 3
        said = finding(report)
        assert said["patch"] == "0009-open-for-native.patch"
        (folder / "conflict" / "merged.py").write_bytes(
            resolved.read(said["path"]) or b""
        )
        report = rebase(carrier, "--continue")
    assert report["exit_code"] == 0, report
    left_out = [h for h in rebased_hunks(report) if h["outcome"] == "dropped"]
    assert {hunk["patch"] for hunk in left_out} == {"0008-small-m-gemm.patch"}
    assert {hunk["detail"] for hunk in left_out} == {"left out with its whole patch"}
    made, carried = load_series(folder / "patches"), pins.overlay[base].series
    for one, other in zip(made.patches, carried.patches, strict=True):
        assert (one.name, one.files) == (other.name, other.files)
    # It shares no new files: the series that it comes from has none.
    assert "overlay" not in (folder / "target.toml").read_text()


@pytest.mark.slow("three rebases of 25 hunks")
def test_an_import_that_the_new_base_lacks_is_refused(
    carrier: Path, slim: Slim
) -> None:
    """Left out hunk by hunk, the rest of a patch merges, and imports what is not
    there."""
    base, name = "sglang-0.5.23", "smallm_fp8_blockscale_gfx950"
    clone = slim(base)
    shutil.rmtree(clone / "python/sglang/kernels/ops/gemm" / name)
    commit(clone, "without the GEMM of few rows")
    report = rebase(carrier, "--from", base, "--onto", "main", "--clone", clone)
    for _ in range(2):
        assert finding(report)["patch"] == "0008-small-m-gemm.patch"
        assert "--skip-patch" in finding(report)["next_step"]
        report = rebase(carrier, "--skip")
    assert report["exit_code"] == 3
    said = finding(report)
    assert said["what"] == (
        f"sglang.kernels.ops.gemm.{name} is imported, and the new base does not have it"
    )
    assert said["patch"] == "0008-small-m-gemm.patch"


def test_skip_patch_leaves_the_whole_patch_out(carrier: Path, reworded: Path) -> None:
    rebase(carrier, "--onto", "main", "--clone", reworded)
    report = rebase(carrier, "--skip-patch")
    left = [f for f in rebased_hunks(report) if f["outcome"] == "dropped"]
    assert {f["patch"] for f in left} == {PATCH}
    assert [s for f in left for s in f["sites"]] == ["S5", "S6", "S7"]
    [folder] = (carrier / "build" / "rebase").iterdir()
    names = [patch.name for patch in load_series(folder / "patches").patches]
    assert PATCH not in names and len(names) == 4
    assert rebase(carrier, "--status")["exit_code"] == report["exit_code"]


def test_nothing_is_left_to_carry_on_the_newest_release(carrier: Path) -> None:
    """The newest release has every site, in other words: nothing is left to carry."""
    report = rebase(carrier, "--onto", "0.5.23")
    assert report["exit_code"] == 0
    result = result_of(report)
    assert result["outcome"] == "retired: nothing is left to carry"
    assert all(hunk["outcome"] == "dropped" for hunk in rebased_hunks(report))
    assert {
        site
        for hunk in rebased_hunks(report)
        for site in hunk["sites"]
        if f"upstream has {site}" in hunk["detail"]
    } >= {f"S{n}" for n in range(1, 9)}
    assert not (carrier / "build" / "rebase").exists()


def test_a_clean_merge_into_a_dangerous_mix_is_refused(carrier: Path) -> None:
    """On 0.5.13 upstream has seven producers, and one of two calls of the eighth would
    be left behind: every hunk that remains merges, and the result is wrong."""
    report = rebase(carrier, "--onto", "0.5.13")
    assert report["exit_code"] == 3
    kept = [hunk for hunk in rebased_hunks(report) if hunk["outcome"] == "carried"]
    assert {site for f in kept for site in f["sites"]} == {"S8"}
    assert "dangerous mix" in finding(report)["what"]
    adopted = rebase(carrier, "--adopt")
    assert adopted["exit_code"] == 3
    assert "not what the series promises" in str(adopted["message"])


def test_a_conflict_resolved_by_hand(carrier: Path, reworded: Path) -> None:
    before = own(carrier)
    report = rebase(carrier, "--onto", "main", "--clone", reworded)
    assert report["exit_code"] == 3
    said = finding(report)
    assert (said["patch"], said["hunk"], said["site"]) == (PATCH, 3, "S6")
    assert said["path"] == MHA and said["line"] and "--continue" in said["next_step"]
    [folder] = (carrier / "build" / "rebase").iterdir()
    views = {p.name: p.read_text() for p in (folder / "conflict").iterdir()}
    assert CALL in views["base.py"] and CALL not in views["ours.py"]
    assert REWORDED in views["upstream.py"]
    merged = views["merged.py"]
    for marker in ("<<<<<<< upstream", "||||||| base", f">>>>>>> {PATCH} hunk 3"):
        assert marker in merged

    place = folder / "conflict" / "merged.py"
    right = views["upstream.py"].replace(REWORDED, RESOLVED)
    for wrong, what in (
        (merged, "has conflict markers"),
        (right.replace(RESOLVED, RESOLVED + " (\n"), "does not parse"),
        (right + "\n\ndef more():\n    pass\n", "changes more than the patch may"),
    ):
        place.write_text(wrong)
        refused = rebase(carrier, "--continue")
        assert refused["exit_code"] == 3
        assert what in finding(refused)["what"]
        assert finding(refused)["line"]
        assert place.read_text() == wrong, "the maintainer's edit is not touched"
    place.write_text(right)
    assert rebase(carrier, "--status")["exit_code"] == 3
    done = rebase(carrier, "--continue")
    assert done["exit_code"] == 0
    resolved = [f for f in rebased_hunks(done) if f["outcome"] == "resolved by hand"]
    assert [f["sites"] for f in resolved] == [["S6"]]
    assert not (folder / "conflict").exists()
    series = load_series(folder / "patches")
    assert len(series.patches) == 5
    assert own(carrier) == before
    # The commit is in the cache: the clone is not needed any more.
    commit = git.text(reworded, "rev-parse", "main")
    shutil.rmtree(reworded)
    assert rebase(carrier, "--adopt")["exit_code"] == 0
    made = load_overlay(carrier)[f"sglang-{commit[:12]}"]
    assert (made.target.dist, made.lock.dist, made.lock.commit) == (None, None, commit)
    assert call(carrier, "lock", "--check").returncode == 0


def test_skip_leaves_the_hunk_out(carrier: Path, reworded: Path) -> None:
    rebase(carrier, "--onto", "main", "--clone", reworded)
    report = rebase(carrier, "--skip")
    [left] = [f for f in rebased_hunks(report) if f["outcome"] == "dropped"]
    assert (left["sites"], left["detail"]) == (["S6"], "left out by the maintainer")
    [folder] = (carrier / "build" / "rebase").iterdir()
    header = read_header(load_series(folder / "patches").patches[3])
    assert list(header.sites.values()) == [("S5", "S7")]


def test_abort_leaves_no_trace(carrier: Path, reworded: Path) -> None:
    before, clone = own(carrier), snapshot(reworded)
    refs = git.text(reworded, "for-each-ref")
    rebase(carrier, "--onto", "main", "--clone", reworded)
    assert rebase(carrier, "--abort")["exit_code"] == 0
    assert own(carrier) == before
    assert {p.name for p in (carrier / "build").iterdir()} == {"cache"}
    assert snapshot(reworded) == clone
    assert git.text(reworded, "for-each-ref") == refs
    assert rebase(carrier, "--abort")["exit_code"] == 2


def test_regenerated_where_the_text_cannot_be_merged(
    carrier: Path, reworded: Path
) -> None:
    """The very lines that a maintainer would have written."""
    pytest.importorskip("libcst")
    asked = ("--onto", "main", "--clone", reworded, "--regenerate")
    report = rebase(carrier, *asked)
    assert report["exit_code"] == 0, report
    made = [f for f in rebased_hunks(report) if f["outcome"] == "regenerated"]
    assert [f["sites"] for f in made] == [["S6"]]
    assert "regenerated, not merged" in json.dumps(report["results"])
    [folder] = (carrier / "build" / "rebase").iterdir()
    patch = (folder / "patches" / PATCH).read_text()
    assert "".join(f"+{line}\n" for line in RESOLVED.splitlines()) in patch
    other = rebase(carrier, "--onto", "main", "--clone", reworded)
    assert other["exit_code"] == 2
    assert "was begun with other options" in finding(other)["what"]


@pytest.mark.parametrize("to", ["grown", "elsewhere"])
def test_a_renamed_file_is_followed(carrier: Path, slim: Slim, to: str) -> None:
    clone = slim()
    there = MHA.replace("forward_mha", "forward_mha_rocm")
    if to == "elsewhere":
        there = MHA.replace("attention_forward_methods", "methods")
    (clone / there).parent.mkdir(exist_ok=True)
    (clone / MHA).rename(clone / there)
    commit(clone, "renamed")
    report = rebase(carrier, "--onto", "main", "--clone", clone)
    assert report["exit_code"] == 0, report
    moved = [f for f in rebased_hunks(report) if f["outcome"] == "moved"]
    assert {f["path"] for f in moved} == {there}
    assert [s for f in moved for s in f["sites"]] == ["S5", "S6", "S7"]
    [folder] = (carrier / "build" / "rebase").iterdir()
    assert there in (folder / "patches" / PATCH).read_text()


def split(clone: Path) -> str:
    """As upstream did in 0.5.18: move a method to a new class in a new file and rename
    it. The new file needs the imports too."""
    lines = (clone / MLA).read_text().splitlines(keepends=True)
    at = next(n for n, t in enumerate(lines) if t.startswith("class Deepseek"))
    first = next(
        n for n, t in enumerate(lines) if t.startswith("    def forward_absorb_core(")
    )
    last = next(
        n for n in range(first + 1, len(lines)) if lines[n].startswith("    def ")
    )
    method = "".join(lines[first:last]).rstrip("\n") + "\n"
    new = MLA.replace("forward_mla", "forward_mla_rocm")
    (clone / new).write_text(
        "".join(lines[:at])
        + "class DeepseekMLARocmForwardMixin:\n\n"
        + method.replace("forward_absorb_core", "forward_absorb_rocm_core", 1)
    )
    (clone / MLA).write_text("".join([*lines[:first], *lines[last:]]))
    commit(clone, "split")
    return new


def test_a_method_that_moved_and_was_renamed_is_followed(
    carrier: Path, slim: Slim
) -> None:
    clone = slim()
    new = split(clone)
    report = rebase(carrier, "--onto", "main", "--clone", clone)
    assert report["exit_code"] == 0, report
    [moved] = [f for f in rebased_hunks(report) if f["sites"] == ["S8"]]
    scope = "DeepseekMLARocmForwardMixin.forward_absorb_rocm_core"
    assert (moved["path"], moved["scope"], moved["outcome"]) == (new, scope, "moved")
    [folder] = (carrier / "build" / "rebase").iterdir()
    series = load_series(folder / "patches")
    header = read_header(series.patches[4])
    assert header.sites == {scope: ("S8",)}
    imports = [diff.path for diff in series.patches[2].files]
    assert imports == [MLA, new], "the import goes to both files that use it"
    assert {
        f["path"] for f in rebased_hunks(report) if f["sites"] in (["S3"], ["S4"])
    } == {MLA}


def test_aiters_module_that_moved(carrier: Path, slim: Slim) -> None:
    """From v0.1.10 it is in quant/; from v0.1.16 the function has the parameter."""
    clone = slim("aiter")
    [old] = load_overlay(ROOT)["aiter"].series.paths
    new = old.replace("fused_fp8_quant", "quant/fused_fp8_quant")
    (clone / new).parent.mkdir(exist_ok=True)
    (clone / old).rename(clone / new)
    commit(clone, "moved")
    asked = ("--target", "aiter", "--onto", "main", "--clone", clone)
    report = rebase(carrier, *asked)
    assert report["exit_code"] == 0, report
    assert {(f["path"], f["outcome"]) for f in rebased_hunks(report)} == {
        (new, "moved")
    }
    assert rebase(carrier, "--abort")["exit_code"] == 0
    for old_text, new_text in (PARAMETER, ALLOCATED):
        edit(clone, new, old_text, new_text)
    commit(clone, "upstream's own")
    report = rebase(carrier, *asked)
    result = result_of(report)
    assert result["outcome"] == "retired: nothing is left to carry"


# --- killed ---------------------------------------------------------------------------


def killed(overlay: Path, at: int, *arguments: str | Path) -> int | None:
    """Run rebase and kill it at write number ``at``. Returns the number of writes if it
    ended before that, else None."""
    log = overlay.parent / "writes"
    code = kill_at_write(overlay, at, log, "rebase", *map(str, arguments))
    return None if code == -9 else int(log.read_text())


def points(writes: int, number: int = 6) -> list[int]:
    """Some of the writes, including the first and the last."""
    return sorted({1 + (writes - 1) * n // (number - 1) for n in range(number)})


def work(overlay: Path) -> dict[str, bytes]:
    found = snapshot(overlay / "build" / "rebase")
    return {path: data for path, (_, _, data) in found.items()}


@pytest.mark.slow("killed at every write")
def test_killed_and_resumed(carrier: Path, reworded: Path, tmp_path: Path) -> None:
    """Kill at writes from the first to the last, of the first run and of --continue."""
    give_modules(carrier)
    asked = ("--onto", "main", "--clone", reworded)
    rebases = carrier / "build" / "rebase"
    # The first run keeps its census, which the others find.
    assert killed(carrier, 0, *asked) is not None
    shutil.rmtree(rebases)
    writes = killed(carrier, 0, *asked)
    assert writes is not None and writes > 20
    stopped = work(carrier)
    [folder] = rebases.iterdir()
    place = folder / "conflict" / "merged.py"
    right = (folder / "conflict" / "upstream.py").read_text()
    right = right.replace(REWORDED, RESOLVED)
    for at in points(writes):
        shutil.rmtree(folder.parent)
        assert killed(carrier, at, *asked) is None
        assert rebase(carrier, *asked)["exit_code"] == 3
        assert work(carrier) == stopped, at

    kept = tmp_path / "kept"
    place.write_text(right)
    shutil.copytree(folder.parent, kept)
    assert killed(carrier, 0, "--continue") is not None
    shutil.rmtree(rebases)
    shutil.copytree(kept, rebases)
    writes = killed(carrier, 0, "--continue")
    assert writes is not None and writes > 20
    finished = work(carrier)
    for at in points(writes):
        shutil.rmtree(folder.parent)
        shutil.copytree(kept, folder.parent)
        assert killed(carrier, at, "--continue") is None
        assert rebase(carrier, "--continue")["exit_code"] == 0
        assert work(carrier) == finished, at


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("request.json", "name", "../../../elsewhere"),
        ("request.json", "name", "sglang-0.5.99"),
        ("request.json", "commit", "--output=x"),
        ("request.json", "onto", None),
        ("conflict/about.json", "merged", "/etc/hostname"),
        ("conflict/about.json", "merged", "../../../../overlay.toml"),
        ("conflict/about.json", "merged", ".git/config"),
    ],
)
def test_a_folder_with_names_outside_it(
    carrier: Path, reworded: Path, file: str, key: str, value: str | None
) -> None:
    """Refused, and nothing is read or written there."""
    asked = ("--onto", "main", "--clone", reworded)
    assert rebase(carrier, *asked)["exit_code"] == 3
    [folder] = (carrier / "build" / "rebase").iterdir()
    said = json.loads((folder / file).read_bytes())
    (folder / file).write_text(json.dumps({**said, key: value}))
    before = (own(carrier), work(carrier))
    report = rebase(carrier, "--continue")
    assert report["exit_code"] == 2
    assert report["findings"][0]["next_step"]
    assert (own(carrier), work(carrier)) == before


@pytest.mark.slow("killed at every write")
def test_an_adoption_that_is_killed(carrier: Path, tmp_path: Path) -> None:
    """The new base is complete or absent, whichever verb runs next."""
    keep_first(give_modules(carrier))
    assert rebase(carrier, "--onto", "0.5.12")["exit_code"] == 0
    kept = tmp_path / "kept"
    shutil.copytree(carrier, kept, symlinks=True)
    before = own(carrier)
    writes = killed(carrier, 0, "--adopt")
    assert writes is not None and writes > 20
    after = own(carrier)
    assert after != before
    for at in points(writes):
        shutil.rmtree(carrier)
        shutil.copytree(kept, carrier, symlinks=True)
        assert killed(carrier, at, "--adopt") is None
        rebase(carrier, "--status")
        assert own(carrier) in (before, after), at
        # The adoption is complete if the kill came after the overlay's last file.
        rebase(carrier, "--adopt")
        assert own(carrier) == after, at


# --- bad input ------------------------------------------------------------------------


def test_an_unknown_ref(carrier: Path, slim: Slim) -> None:
    report = rebase(carrier, "--onto", "nowhere", "--clone", slim())
    assert report["exit_code"] == 2
    assert finding(report)["found"] == "nowhere"
    assert not (carrier / "build" / "rebase").exists()


def test_a_shallow_clone(carrier: Path, reworded: Path, tmp_path: Path) -> None:
    """A missing ref is an error with a next step. A missing base is read from the
    cache; if it is nowhere, the error says what to fetch."""
    git.run(reworded, "tag", "old", "HEAD~1")
    shallow = tmp_path / "shallow"
    git.run(
        tmp_path, "clone", "-q", "--depth=1", "--no-tags", f"file://{reworded}",
        str(shallow),
    )  # fmt: skip
    report = rebase(carrier, "--onto", "old", "--clone", shallow)
    assert report["exit_code"] == 2
    assert "fetch --unshallow" in finding(report)["next_step"]
    assert rebase(carrier, "--onto", "HEAD", "--clone", shallow)["exit_code"] == 3
    assert rebase(carrier, "--abort")["exit_code"] == 0
    shutil.rmtree(carrier / "build" / "cache")
    off = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    done = call(carrier, "rebase", "--onto", "HEAD", "--clone", shallow, env=off)
    assert done.returncode == 5
    for said in ("sglang 0.5.11", "scripts/fetch.py", "fetch --unshallow"):
        assert said in done.stderr
    # The whole clone has the base's files in its objects, and needs no package.
    whole = call(carrier, "rebase", "--onto", "main", "--clone", reworded, env=off)
    assert whole.returncode == 3, whole.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--onto"),
        (("--onto", "newest"), 2, "not the version of a release"),
        (("--onto", "0.5.11"), 2, "0.5.11 already is the base of sglang"),
        (("--onto", "0.5.12", "--from", "other"), 2, "no target other"),
        (("--onto", "0.5.12", "--from", "aiter"), 2, "not a base of sglang"),
        (("--continue",), 2, "no rebase is active"),
        (("--adopt",), 2, "no rebase is active"),
        (("--status",), 0, "no rebase is active"),
    ],
)
def test_usage(carrier: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = call(carrier, "rebase", *arguments)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert not (carrier / "build" / "rebase").exists()
