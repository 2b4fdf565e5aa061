"""A base is a commit: fetched from a repository or read from a clone."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import IDENTITY, Pins, give_modules
from overlaykit.core import git
from overlaykit.series.carried import load_overlay
from overlaykit.series.lock import LOCK
from overlaykit.series.manifest import MANIFEST
from support.edits import commit
from support.histories import OUTSIDE, Upstream, repin, serve
from support.one_base import without_others
from support.other_git import older_than, on_path
from verbs.test_rebase import call

Slim = Callable[..., Path]
COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
ABSENT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def upstream(slim: Slim, tmp_path: Path) -> Upstream:
    return serve(slim(name="history"), tmp_path)


@pytest.fixture
def small(carrier: Path, upstream: Upstream) -> Path:
    """An overlay of one base, 0.5.11, whose repository is served from a folder; no
    commit is kept."""
    without_others(carrier, "sglang")
    for kept in (carrier / "build" / "cache").glob("*.git"):
        kept.unlink()
    repin(carrier, "sglang", repository=upstream.url, tag=None, image=None)
    return carrier


def pin(overlay: Path, **fields: str | None) -> None:
    repin(overlay, "sglang", **fields)


def said(overlay: Path, verb: str, *words: str | Path) -> tuple[int, dict[str, Any]]:
    """Run a verb: its exit code and its report."""
    done = call(overlay, verb, "--json", *words)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def holds(overlay: Path, verb: str, *words: str | Path) -> dict[str, Any]:
    code, report = said(overlay, verb, *words)
    assert code == 0, report
    return report


def locked(overlay: Path, name: str = "sglang") -> dict[str, Any]:
    lock: dict[str, Any] = json.loads((overlay / LOCK).read_bytes())["targets"][name]
    return lock


def store(overlay: Path, commit_id: str) -> Path:
    return overlay / "build" / "cache" / f"sglang-{commit_id}.git"


def lacks(repository: Path, spec: str) -> bool:
    done = git.run(repository, "cat-file", "-e", spec, ok=(0, 1, 128))
    return done.returncode != 0


def test_a_commit_is_a_base_for_every_verb(
    small: Path, upstream: Upstream, tmp_path: Path
) -> None:
    pin(give_modules(small), commit=upstream.second, dist=None)
    assert said(small, "fetch")[0] == 2, "the lock is stale"
    holds(small, "lock")
    assert (locked(small)["commit"], locked(small)["dist"]) == (upstream.second, None)
    assert said(small, "lock", "--check")[0] == 0
    shutil.rmtree(store(small, upstream.second))

    [result] = holds(small, "fetch")["results"]
    [brought] = result["notes"]
    assert brought.startswith("fetched ") and upstream.url in brought
    assert "objects" in brought and "MiB" in brought
    kept = store(small, upstream.second)
    assert not lacks(kept, f"{upstream.second}:python/sglang/other.py")
    assert lacks(kept, f"{upstream.second}:{OUTSIDE}"), "only the package's contents"
    assert lacks(kept, upstream.first), "only that commit"

    # From now on the repository is not needed.
    shutil.rmtree(upstream.bare)
    tree = small / "build" / "sglang"
    assert (tree / "python" / "sglang" / "other.py").is_file()
    assert not (tree / OUTSIDE).exists()
    [again] = holds(small, "fetch")["results"]
    assert again["outcome"] == "already laid out" and "notes" not in again
    holds(small, "apply", tree)
    holds(small, "verify", tree)
    holds(small, "lock")
    line = "                            qkv_a_projection(self.qkv_latent_func),\n"
    old = f"fused_rms_fp8_group_quant,\n{line}"
    text = (tree / COMMUNICATOR).read_text()
    (tree / COMMUNICATOR).write_text(text.replace(old, f"{old[:-1]}  # x\n", 1))
    assert said(small, "verify", tree)[0] == 1
    [refreshed] = holds(small, "refresh", tree)["results"]
    assert "overlay.lock" in refreshed["changed"]
    assert locked(small)["commit"] == upstream.second
    holds(small, "verify", tree)
    holds(small, "export", "--target", "sglang", "--branch", "x", "--clone",
          upstream.work)  # fmt: skip
    assert git.text(upstream.work, "merge-base", "x", "HEAD") == upstream.second
    drifted = holds(small, "drift", "--clone", upstream.work, "--ref", "HEAD")
    assert "clean" in str(drifted["results"])
    body = tmp_path / "pr.md"
    holds(small, "export", "--target", "sglang", "--mbox", tmp_path / "m", "--pr-body",
          body)  # fmt: skip
    assert f"commit {upstream.second}" in body.read_text()


def test_from_a_clone_without_a_network(small: Path, upstream: Upstream) -> None:
    """The same bytes, the same laid-out commit; and a clone comes before a network."""
    pin(small, commit=upstream.second, dist=None)
    holds(small, "lock")
    holds(small, "fetch", "--out", small / "one")
    shutil.rmtree(store(small, upstream.second))
    shutil.rmtree(upstream.bare)
    [result] = holds(small, "fetch", "--out", small / "two", "--clone", upstream.work)[
        "results"
    ]
    assert str(upstream.work) in result["notes"][0]
    heads = [git.text(small / n / "sglang", "rev-parse", "pin") for n in ("one", "two")]
    assert heads[0] == heads[1]


@pytest.mark.slow("with another git")
def test_an_older_git_fetches_the_same(small: Path, upstream: Upstream) -> None:
    old = {"PATH": on_path(older_than((2, 39)))}
    pin(small, commit=upstream.second, dist=None)
    heads = []
    for folder, words in (("one", ()), ("two", ("--clone", upstream.work))):
        for verb in (("lock", *words), ("fetch", "--out", small / folder, *words)):
            done = call(small, *map(str, verb), env=old)
            assert done.returncode == 0, done.stderr
        heads.append(git.text(small / folder / "sglang", "rev-parse", "pin"))
        shutil.rmtree(store(small, upstream.second))
    assert heads[0] == heads[1]


def test_any_commit_beside_the_bases(small: Path, upstream: Upstream) -> None:
    holds(small, "lock")
    words = ("fetch", "--commit", upstream.second)
    [result] = holds(small, *words)["results"]
    assert result["tree"].endswith(f"build/sglang-{upstream.second[:12]}")


def test_a_server_that_filters_nothing(small: Path, upstream: Upstream) -> None:
    git.run(upstream.bare, "config", "uploadpack.allowFilter", "false")
    pin(small, commit=upstream.second, dist=None)
    holds(small, "lock")
    holds(small, "fetch")


# --- a commit and its package ---------------------------------------------------------


def test_a_commit_and_the_package_built_from_it(
    small: Path, upstream: Upstream
) -> None:
    pin(small, commit=upstream.first)
    holds(small, "lock")
    made = locked(small)
    assert made["commit"] == upstream.first
    assert made["dist"]["filename"].startswith("sglang-0.5.11-")
    # The proof is in the lock: it is not repeated.
    shutil.rmtree(store(small, upstream.first))
    shutil.rmtree(upstream.bare)
    holds(small, "lock")
    [result] = holds(small, "fetch")["results"]
    assert "notes" not in result, "the package is laid out"


def test_a_commit_that_is_not_the_packages(small: Path, upstream: Upstream) -> None:
    before = (small / LOCK).read_bytes()
    place = upstream.work / COMMUNICATOR
    place.write_text(place.read_text() + "# more\n")
    new = upstream.work / "python/sglang/srt/layers/quantization/bpreshuffle_scale.py"
    new.write_text("# upstream's own\n")
    commit(upstream.work, "another state")
    upstream.push()
    pin(small, commit=git.text(upstream.work, "rev-parse", "HEAD"))
    code, report = said(small, "lock")
    assert code == 2
    assert "differ in files that the series touches" in report["message"]
    assert [f["path"] for f in report["findings"]] == [
        COMMUNICATOR, str(new.relative_to(upstream.work)),
    ]  # fmt: skip
    first = report["findings"][0]
    assert "as in sglang 0.5.11" in first["expected"]
    assert first["found"].startswith("blob ")
    assert (small / LOCK).read_bytes() == before


# --- tags -----------------------------------------------------------------------------


def test_a_tag_and_the_lock_records_its_commit(small: Path, upstream: Upstream) -> None:
    """An annotated tag is an object of its own; the commit counts."""
    pin(small, tag="v9", dist=None)
    holds(small, "lock")
    assert (locked(small)["tag"], locked(small)["commit"]) == ("v9", upstream.second)
    shutil.rmtree(upstream.bare)
    holds(small, "lock")


def test_a_tag_that_moved(small: Path, upstream: Upstream) -> None:
    """The recorded commit stays, whoever asks; a new one is a person's decision."""
    pin(small, tag="v9", dist=None)
    holds(small, "lock")
    before = (small / LOCK).read_bytes()
    shutil.rmtree(store(small, upstream.second))
    commit_on(upstream, "moved")
    git.run(upstream.work, "tag", "-f", "-a", "-m", "x", "v9", env=IDENTITY)
    upstream.push()
    now = git.text(upstream.work, "rev-parse", "HEAD")
    for words in (("fetch",), ("lock",), ("lock", "--clone", upstream.work)):
        code, report = said(small, *map(str, words))
        assert code == 2, report
        assert report["message"] == "the tag v9 of sglang moved"
        [finding] = report["findings"]
        assert finding["expected"] == f"commit {upstream.second}, as pinned"
        assert finding["found"] == f"commit {now}"
        assert f'commit = "{now}"' in finding["next_step"]
        assert (small / LOCK).read_bytes() == before
    pin(small, tag=None, commit=upstream.second)
    holds(small, "lock")
    holds(small, "fetch")


def test_a_packages_tag_that_moved(small: Path, upstream: Upstream) -> None:
    """The lock has the tag's commit from a clone; the same clone cannot change it."""
    git.run(upstream.work, "tag", "v0.5.11", upstream.first)
    pin(small, tag="v0.5.11")
    holds(small, "lock", "--clone", upstream.work)
    assert locked(small)["commit"] == upstream.first
    git.run(upstream.work, "tag", "-f", "v0.5.11", upstream.second)
    before = (small / LOCK).read_bytes()
    code, report = said(small, "lock", "--clone", upstream.work)
    assert (code, report["message"]) == (2, "the tag v0.5.11 of sglang moved")
    assert (small / LOCK).read_bytes() == before
    holds(small, "lock")


def test_a_tag_that_nobody_has(small: Path, upstream: Upstream) -> None:
    pin(small, tag="v10", dist=None)
    code, report = said(small, "lock")
    assert code == 2 and "has no tag v10" in report["message"]
    assert "ls-remote --tags" in report["findings"][0]["next_step"]


def commit_on(upstream: Upstream, subject: str) -> str:
    place = upstream.work / "python" / "sglang" / "other.py"
    place.write_text(place.read_text() + f"# {subject}\n")
    commit(upstream.work, subject)
    return git.text(upstream.work, "rev-parse", "HEAD")


# --- what a remote or a clone does not give -------------------------------------------


def test_no_network(small: Path, upstream: Upstream) -> None:
    pin(small, commit=upstream.second, dist=None)
    shutil.rmtree(upstream.bare)
    code, report = said(small, "lock")
    assert code == 5
    assert "cannot be fetched" in report["message"]
    [finding] = report["findings"]
    assert finding["what"] == "the repository does not answer"
    assert "--clone PATH" in finding["next_step"]
    assert list((small / "build" / "cache").glob("*.git")) == []
    assert list((small / "build" / "cache").glob(".sglang-*")) == []


def test_a_commit_that_the_remote_does_not_have(
    small: Path, upstream: Upstream
) -> None:
    pin(small, commit=ABSENT, dist=None)
    code, report = said(small, "lock")
    assert code == 2
    [finding] = report["findings"]
    assert "answers, but does not serve this commit" in finding["what"]
    assert finding["expected"] == f"commit {ABSENT}"
    assert "force-push" in finding["next_step"] and "--clone" in finding["next_step"]


def test_a_commit_that_the_remote_refuses(
    small: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With git's older protocol a server gives only what it advertises."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.version")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "0")
    pin(small, commit=upstream.first, dist=None)
    code, report = said(small, "lock")
    assert code == 2
    assert "answers, but does not serve" in report["findings"][0]["what"]
    assert said(small, "lock", "--clone", upstream.work)[0] == 0


def test_a_main_that_was_rewritten(small: Path, upstream: Upstream) -> None:
    """The commit is gone from the remote. Who has it goes on; who has a clone too."""
    pin(small, commit=upstream.second, dist=None)
    holds(small, "lock")
    clone = small / "old"
    git.run(small, "clone", "-q", "--bare", str(upstream.work), str(clone))
    git.run(upstream.work, "tag", "-d", "v9")
    git.run(upstream.work, "commit", "-q", "--amend", "-m", "rewritten", env=IDENTITY)
    shutil.rmtree(upstream.bare)
    git.run(small, "init", "-q", "--bare", str(upstream.bare))
    upstream.push()
    holds(small, "fetch")
    shutil.rmtree(store(small, upstream.second))
    code, report = said(small, "fetch")
    assert code == 2 and "force-push" in report["findings"][0]["next_step"]
    holds(small, "fetch", "--clone", clone)


def test_a_shallow_clone(small: Path, upstream: Upstream, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git.run(tmp_path, "clone", "-q", "--depth=1", upstream.url, str(shallow))
    pin(small, commit=upstream.second, dist=None)
    shutil.rmtree(upstream.bare)
    assert said(small, "lock", "--clone", shallow)[0] == 0, "its last commit is whole"
    pin(small, commit=upstream.first)
    code, report = said(small, "lock", "--clone", shallow)
    assert code == 5
    [unreachable, lacking] = report["findings"]
    assert unreachable["what"] == "the repository does not answer"
    assert lacking["path"] == str(shallow)
    assert "fetch --unshallow" in lacking["next_step"]


def test_a_clone_whose_objects_are_missing(
    small: Path, upstream: Upstream, tmp_path: Path
) -> None:
    """A partial clone: nothing is fetched, and the error names the file."""
    partial = tmp_path / "partial"
    git.run(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout",
            upstream.url, str(partial))  # fmt: skip
    pin(small, commit=upstream.second, dist=None)
    code, report = said(small, "lock", "--clone", partial)
    assert code == 5
    assert "python/sglang/" in report["message"] and "more files" in report["message"]
    assert "partial clone" in report["findings"][0]["found"]
    assert f"fetch.py --commit {upstream.second}" in report["findings"][1]["next_step"]
    assert list((small / "build" / "cache").glob("*.git")) == []


def test_a_clone_whose_objects_lie(small: Path, upstream: Upstream) -> None:
    """A loose object with another file's contents: git computes the id again."""
    clone = upstream.work
    good, bad = (
        git.text(clone, "rev-parse", f"HEAD:python/sglang/{name}")
        for name in ("srt/layers/communicator.py", "other.py")
    )
    objects = clone / ".git" / "objects"
    place = objects / good[:2] / good[2:]
    place.chmod(0o644)
    shutil.copyfile(objects / bad[:2] / bad[2:], place)
    pin(small, commit=upstream.second, dist=None)
    code, report = said(small, "lock", "--clone", clone)
    assert code == 5, report
    assert "damaged" in report["message"] or "damaged" in str(report["findings"])
    assert list((small / "build" / "cache").glob("*.git")) == []


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"commit": "83bf5d6869c3"}, "is not a full commit id"),
        ({"commit": "HEAD"}, "is not a full commit id"),
        ({"commit": "-" * 40}, "is not a full commit id"),
        ({"tag": "--upload-pack=touch x"}, "is not the name of a tag"),
        ({"tag": "v1..v2"}, "is not the name of a tag"),
        ({"repository": "ext::sh -c id"}, "is not an address"),
        ({"repository": "--upload-pack=id"}, "is not an address"),
        ({"repository": "ssh://-oProxyCommand=id/x"}, "is not an address"),
        ({"repository": "https://me:secret@localhost/x"}, "is not an address"),
        ({"repository": "git@localhost:x"}, "is not an address"),
    ],
)
def test_what_git_would_misread(
    overlay: Path, fields: dict[str, str | None], what: str
) -> None:
    repin(overlay, "sglang", **fields)
    code, report = said(overlay, "lock")
    assert code == 2 and what in report["message"], report
    assert report["findings"][0]["path"] == MANIFEST
    assert report["findings"][0]["next_step"]


def test_a_base_of_no_kind(overlay: Path) -> None:
    repin(overlay, "sglang", dist=None, tag=None)
    code, report = said(overlay, "lock")
    assert code == 2 and "sglang names no base" in report["message"]


def test_an_id_that_is_not_full(small: Path) -> None:
    holds(small, "lock")
    for words in (("fetch", "--commit", "83bf5d6"), ("rebase", "--onto", "83bf5d6")):
        code, report = said(small, *words)
        assert code == 2
        assert "40" in report["findings"][0]["next_step"]


# --- several bases in one overlay -----------------------------------------------------


@pytest.mark.slow("three bases, each rebased, applied and verified")
def test_the_whole_way_on_main(
    small: Path, upstream: Upstream, pins: Pins, tmp_path: Path
) -> None:
    """Rebase onto a commit, adopt it, move it on under its name, use it, drop it."""
    give_modules(small)
    holds(small, "lock")
    text = (small / MANIFEST).read_bytes()
    holds(small, "rebase", "--onto", "main", "--clone", upstream.work)
    name = "sglang-main"
    holds(small, "rebase", "--adopt", "--as", name)
    assert (small / MANIFEST).read_bytes().startswith(text)

    third = commit_on(upstream, "third")
    upstream.push()
    # Without a clone, by its full id.
    holds(small, "rebase", "--from", name, "--onto", third)
    adopted = holds(small, "rebase", "--adopt", "--replace", name)
    assert adopted["results"][0]["target"] == name
    known = load_overlay(small)
    assert list(known) == ["sglang", name]
    assert (known[name].lock.commit, known[name].target.commit) == (third, third)
    assert known[name].target.overlay == "sglang"
    assert said(small, "lock", "--check")[0] == 0

    fourth = commit_on(upstream, "fourth")
    holds(small, "rebase", "--onto", "main", "--clone", upstream.work)
    holds(small, "rebase", "--adopt")
    trees = [small / "build" / one for one in load_overlay(small)]
    holds(small, "fetch", "--clone", upstream.work)
    applied = holds(small, "apply", *trees)["results"]
    assert len(applied) == 3
    holds(small, "verify", *trees)

    holds(small, "export", "--target", f"sglang-{fourth[:12]}", "--branch", "ours",
          "--clone", upstream.work)  # fmt: skip
    holds(small, "export", "--target", f"sglang-{fourth[:12]}", "--mbox",
          tmp_path / "mbox")  # fmt: skip
    git.run(upstream.work, "am", "-q", str(tmp_path / "mbox"), env=IDENTITY)
    assert git.text(upstream.work, "diff", "--stat", "HEAD", "ours") == ""

    # The oldest base owns the new files; the first that shares them keeps them.
    dropped = holds(small, "rebase", "--drop", "sglang")["results"][0]
    assert "overlay.toml" in dropped["changed"]
    known = load_overlay(small)
    assert list(known) == [name, f"sglang-{fourth[:12]}"]
    assert known[name].target.overlay is None
    assert known[f"sglang-{fourth[:12]}"].target.overlay == name
    assert known[name].new_files == pins.overlay["sglang"].new_files
    assert not (small / "patches" / "sglang").exists()
    assert not (small / "overlay" / "sglang").exists()
    holds(small, "verify", *trees[1:])
    assert said(small, "lock", "--check")[0] == 0
    # With nothing but commits left, there are still releases to ask about.
    holds(small, "rebase", "--drop", name)
    code, report = said(small, "rebase", "--drop", f"sglang-{fourth[:12]}")
    assert code == 2 and "is the only target" in str(report["findings"])
    code, report = said(small, "drift", "--target", f"sglang-{fourth[:12]}")
    assert code == 2 and "is a commit, not a package" in report["message"]


@pytest.mark.slow("an environment is made for each arm")
@pytest.mark.parametrize("arm", ["baseline", "patched"])
def test_the_gates_arms_from_a_commit(
    arm: str, small: Path, upstream: Upstream, tmp_path: Path
) -> None:
    """The package's folder is copied into it, and compared file by file."""
    from gatekit.arms.environment import Wanted, rebuild

    pin(give_modules(small), commit=upstream.second, dist=None)
    holds(small, "lock")
    wanted = Wanted(small, arm, tmp_path / arm, sys.executable)
    report = rebuild(wanted, lambda _: None)
    assert report.exit_code == 0, report
    [result] = msgspec.to_builtins(report)["results"]
    release = f"sglang at {upstream.second[:12]}"
    assert result["packages"] == {release: f"commit {upstream.second}"}
    [site] = wanted.out.glob("lib/python3.*/site-packages")
    assert (site / "sglang" / "other.py").read_text() == "OTHER = 1\n"
    changed = {COMMUNICATOR.removeprefix("python/")} & {*result.get("differs", ())}
    assert bool(changed) == (arm == "patched")
    (site / "sglang" / "other.py").write_text("OTHER = 2\n")
    again = rebuild(wanted, lambda _: None)
    assert again.exit_code == 1
    assert [f.path for f in again.findings] == ["sglang/other.py"]


def test_replace_and_drop_name_a_base(small: Path, upstream: Upstream) -> None:
    holds(small, "lock")
    assert said(small, "rebase", "--replace", "sglang", "--status")[0] == 2
    code, report = said(small, "rebase", "--drop", "other")
    assert code == 2 and "no target other" in report["message"]
    holds(small, "rebase", "--onto", "main", "--clone", upstream.work)
    code, report = said(small, "rebase", "--adopt", "--replace", "other")
    assert code == 2 and "not a base of sglang" in report["message"]
    code, report = said(small, "rebase", "--drop", "sglang")
    assert code == 2, "the only target"


# --- where a clone is -----------------------------------------------------------------


def lineage(overlay: Path, clone: Path) -> tuple[dict[str, Any], list[str]]:
    _, report = said(overlay, "apply", "--status", clone)
    [result] = report["results"]
    return result["lineage"], result["notes"]


def test_a_clones_commit_and_the_nearest_base(
    small: Path, upstream: Upstream, tmp_path: Path
) -> None:
    """By content, then by the commit in the lock; a shallow clone says that it is."""
    holds(small, "lock")
    clone = upstream.work
    known, notes = lineage(small, clone)
    assert (known["base"], known["by_content"]) == ("sglang", True)
    assert known["head"] == upstream.second

    place = clone / COMMUNICATOR
    place.write_text(place.read_text() + "# upstream moves\n")
    commit(clone, "Touches the series")
    head = commit_on(upstream, "Does not")
    pin(small, commit=upstream.first)
    holds(small, "lock", "--clone", clone)
    known, notes = lineage(small, clone)
    assert (known["commit"], known["after"], known["before"]) == (upstream.first, 3, 0)
    assert [row.partition(" ")[2][11:] for row in known["touching"]] == [
        "Touches the series"
    ]
    assert known["head"] == head
    assert notes[1] == (
        f"nearest base: sglang 0.5.11 ({upstream.first[:12]}), 3 commits before HEAD; "
        "1 of them touches the series"
    )
    upstream.push()
    shallow = tmp_path / "shallow"
    git.run(tmp_path, "clone", "-q", "--depth=1", upstream.url, str(shallow))
    known, notes = lineage(small, shallow)
    assert "base" not in known and "fetch --unshallow" in notes[1]


def test_a_folder_that_is_no_clone_has_no_lineage(small: Path, slim: Slim) -> None:
    holds(small, "lock")
    _, report = said(small, "apply", "--status", slim(name="plain", clone=False))
    assert "lineage" not in report["results"][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_clone_of_another_user_is_refused(small: Path, upstream: Upstream) -> None:
    from support.hostile_clones import give_away

    give_away(upstream.work)
    pin(small, commit=upstream.second, dist=None)
    code, report = said(small, "lock", "--clone", upstream.work)
    assert code == 5 and "not its owner" in report["message"]


def test_an_aiter_whose_files_moved_is_a_base(
    carrier: Path, slim: Slim, tmp_path: Path
) -> None:
    """The patch is made again where its file is now."""
    without_others(carrier, "aiter")
    work = slim("aiter", "aiter history")
    package = work / "aiter" / "ops" / "triton"
    (package / "quant").mkdir(exist_ok=True)
    (package / "fused_fp8_quant.py").rename(package / "quant" / "fused_fp8_quant.py")
    commit(work, "Move the quantizations")
    moved = git.text(work, "rev-parse", "HEAD")
    where = ("--target", "aiter", "--clone", work)

    holds(carrier, "fetch", *where, "--commit", moved)
    tree = carrier / "build" / f"aiter-{moved[:12]}"
    assert said(carrier, "apply", tree)[0] == 3
    [rebased] = holds(carrier, "rebase", *where, "--onto", moved)["results"]
    assert {row["outcome"] for row in rebased["fates"]} == {"moved"}, rebased
    holds(carrier, "rebase", "--adopt")
    for verb in ("apply", "verify"):
        [result] = holds(carrier, verb, tree)["results"]
        assert result["target"] == f"aiter-{moved[:12]}"
    patched = (tree / "aiter/ops/triton/quant/fused_fp8_quant.py").read_text()
    assert "if transpose_scale:" in patched
