"""lock: a known digest never changes silently, and no lock is ever incomplete."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Pins, give_commits, give_modules
from overlaykit.series.ledger import LEDGER
from overlaykit.series.lock import LOCK
from support.bases import OTHERS
from support.forks import forked
from support.kill_at_write import kill_at_write
from support.one_base import keep_first, link_packages

VERSION = "0.5.11"
PYC = {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def own_overlay(overlay: Path, pins: Pins, tmp_path: Path) -> Path:
    """A copy of this overlay with its own ledger and cache."""
    shutil.copy2(ROOT / LEDGER, overlay / LEDGER)
    cache = overlay / "build" / "cache"
    cache.mkdir(parents=True)
    for wheel in pins.wheels.values():
        shutil.copy2(wheel, cache / wheel.name)
    give_commits(overlay)
    return overlay


@pytest.fixture
def backdoored(pins: Pins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pinned package with an added line in a file that the series does not touch,
    on the only index."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    real = pins.wheels["sglang"]
    with (
        zipfile.ZipFile(real) as old,
        zipfile.ZipFile(index / real.name, "w", zipfile.ZIP_STORED) as new,
    ):
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "sglang/version.py":
                data += b"import antigravity\n"
            new.writestr(info.filename, data)
    return index / real.name


def verb(overlay: Path, name: str, *arguments: str | Path) -> tuple[int, Any, str]:
    """Run that overlay's own verb: exit code, report, and all output."""
    script = overlay / "scripts" / f"{name}.py"
    done = forked(script, ["--json", *map(str, arguments)], env=PYC)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    return done.returncode, json.loads(done.stdout) if done.stdout else None, said


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pinned(overlay: Path, target: str = "sglang") -> str:
    lock = json.loads((overlay / LOCK).read_bytes())
    return str(lock["targets"][target]["dist"]["sha256"])


def recorded(overlay: Path, version: str = VERSION) -> str:
    ledger = json.loads((overlay / LEDGER).read_bytes())
    return str(ledger["releases"]["sglang"][version]["sha256"])


def note(overlay: Path) -> None:
    """Add a comment to the manifest, which makes the lock stale."""
    with (overlay / "overlay.toml").open("a", encoding="utf-8") as file:
        file.write("# a note\n")


def drop_from_cache(overlay: Path, pins: Pins, target: str = "sglang") -> None:
    (overlay / "build" / "cache" / pins.wheels[target].name).unlink()


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def state(overlay: Path) -> tuple[bytes | None, bytes | None]:
    files = (overlay / LOCK, overlay / LEDGER)
    lock, ledger = (p.read_bytes() if p.exists() else None for p in files)
    return lock, ledger


def test_a_comment_in_the_manifest(own_overlay: Path) -> None:
    """The lock is stale, and only the manifest's digest in it changes."""
    keep_first(own_overlay)
    before = json.loads((own_overlay / LOCK).read_bytes())
    before["targets"]["sglang"]["commit"] = "0" * 40
    (own_overlay / LOCK).write_text(json.dumps(before))
    note(own_overlay)
    assert verb(own_overlay, "lock", "--check")[0] == 1
    code, _, said = verb(own_overlay, "lock")
    assert code == 0, said
    after = json.loads((own_overlay / LOCK).read_bytes())
    assert after.pop("manifest") == sha256(own_overlay / "overlay.toml")
    assert before.pop("manifest") != sha256(own_overlay / "overlay.toml")
    assert after == before
    assert verb(own_overlay, "lock", "--check")[0] == 0


def lose_the_lock(overlay: Path) -> None:
    (overlay / LOCK).unlink()


def lose_the_ledger(overlay: Path) -> None:
    (overlay / LEDGER).unlink()


def rename_the_target(overlay: Path) -> None:
    """Only the patches of 0.5.11, with another target name and version spelling."""
    lose_the_ledger(overlay)
    manifest = overlay / "overlay.toml"
    text = manifest.read_text().partition("[targets.aiter]")[0]
    text = text.replace("[targets.sglang]", "[targets.other]")
    text = text.replace('name = "sglang", version = "0.5.11"',
                        'name = "SGLang", version = "0.5.11.0"')  # fmt: skip
    manifest.write_text(text)
    for kind in ("patches", "overlay"):
        (overlay / kind / "sglang").rename(overlay / kind / "other")


@pytest.mark.parametrize(
    ("trouble", "where"),
    [(note, LOCK), (lose_the_lock, LEDGER), (lose_the_ledger, LOCK),
     (rename_the_target, LOCK)],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
def test_another_package_of_a_known_version(
    own_overlay: Path,
    pins: Pins,
    backdoored: Path,
    trouble: Callable[[Path], None],
    where: str,
) -> None:
    """It is refused after each of these changes, and nothing is written."""
    real = sha256(pins.wheels["sglang"])
    drop_from_cache(own_overlay, pins)
    trouble(own_overlay)
    before = state(own_overlay)
    code, report, said = verb(own_overlay, "lock")
    assert code == 2, said
    (finding, *_) = report["findings"]
    assert real in finding["expected"] and sha256(backdoored) in finding["found"]
    assert finding["next_step"]
    assert where in said or "hash mismatch" in said
    assert state(own_overlay) == before
    assert not (own_overlay / "build" / "cache" / backdoored.name).exists()


def test_a_tampered_file_in_the_cache(own_overlay: Path, backdoored: Path) -> None:
    """The digest is known from the ledger only, and there is no index."""
    lose_the_lock(own_overlay)
    shutil.copy2(backdoored, own_overlay / "build" / "cache" / backdoored.name)
    code, _, said = verb(own_overlay, "lock")
    assert code == 2 and "hash mismatch" in said
    assert not (own_overlay / LOCK).exists()


def test_an_accepted_digest_is_reported_clearly(
    own_overlay: Path, pins: Pins, backdoored: Path
) -> None:
    keep_first(own_overlay, 2)
    old, new = sha256(pins.wheels["sglang"]), sha256(backdoored)
    others = [pinned(own_overlay, name) for name in ("aiter", "sglang-0.5.12.post1")]
    code, report, said = verb(own_overlay, "lock", "--accept-new-digest", VERSION)
    assert code == 0, said
    assert old in report["message"] and new in report["message"]
    assert "THE DIGEST OF sglang 0.5.11 CHANGED" in report["message"]
    assert [f["path"] for f in report["findings"]] == [LOCK, LEDGER]
    for finding in report["findings"]:
        assert old in finding["expected"] and new in finding["found"]
    assert pinned(own_overlay) == recorded(own_overlay) == new
    assert [pinned(own_overlay, n) for n in ("aiter", "sglang-0.5.12.post1")] == others
    # From now on the new digest is the known one, also in the cache.
    assert sha256(own_overlay / "build" / "cache" / backdoored.name) == new
    assert verb(own_overlay, "lock", "--check")[0] == 0
    again = verb(own_overlay, "lock", "--accept-new-digest", VERSION)
    assert again[0] == 2 and "the digest of 0.5.11 did not change" in again[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("0.5.13",), "0.5.13 is not pinned"),
        (("0.5.12",), "0.5.12 is not pinned"),
        ((VERSION, "--check"), "not allowed with"),
    ],
)
def test_accept_is_refused_for_unknown_versions(
    own_overlay: Path, backdoored: Path, arguments: tuple[str, ...], says: str
) -> None:
    before = state(own_overlay)
    code, _, said = verb(own_overlay, "lock", "--accept-new-digest", *arguments)
    assert code == 2 and says in said
    assert state(own_overlay) == before


def test_accept_is_refused_for_an_unchanged_digest(
    own_overlay: Path, pins: Pins, backdoored: Path
) -> None:
    """The index has the same package, so there is nothing to accept."""
    shutil.copy2(pins.wheels["sglang"], backdoored)
    before = state(own_overlay)
    code, _, said = verb(own_overlay, "lock", "--accept-new-digest", VERSION)
    assert code == 2 and "nothing was written" in said
    assert state(own_overlay) == before


UNREADABLE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:900],
    "not text": lambda data: b"\xff" + data,
    "a conflict": lambda data: b"<<<<<<< HEAD\n" + data + b"=======\n>>>>>>> x\n",
    "of the future": lambda data: data.replace(b'"format": 1', b'"format": 2'),
    "another field": lambda data: data.replace(b'"format"', b'"more": 1, "format"'),
    "a wheel elsewhere": lambda data: data.replace(b'"sglang-', b'"../../x/sglang-'),
    "a path elsewhere": lambda data: data.replace(b'"python/', b'"../python/', 1),
    "a path of git's": lambda data: data.replace(b'"python/', b'".git/', 1),
    "no digest": lambda data: data.replace(b'"sha256": "', b'"sha256": "-', 1),
}


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_lock(
    own_overlay: Path, damage: Callable[[bytes], bytes]
) -> None:
    """It is an error. Treated as an empty lock, everything would be pinned again."""
    place = own_overlay / LOCK
    place.write_bytes(damage(place.read_bytes()))
    before = state(own_overlay)
    for arguments in ((), ("--check",)):
        code, report, said = verb(own_overlay, "lock", *arguments)
        assert code == 2, said
        (finding,) = report["findings"]
        assert LOCK in finding["path"] and "git checkout" in finding["next_step"]
    assert state(own_overlay) == before


def test_a_wheel_outside_the_cache_is_not_removed(own_overlay: Path) -> None:
    """A file in the cache with another digest would be removed."""
    victim = own_overlay / "victim.whl"
    victim.write_text("mine\n")

    def point_at_it(lock: Any) -> None:
        lock["targets"]["sglang"]["dist"]["filename"] = "../../victim.whl"

    edit_json(own_overlay / LOCK, point_at_it)
    for name in ("fetch", "lock"):
        code, _, said = verb(own_overlay, name)
        assert code == 2 and "../../victim.whl" in said
    assert victim.read_text() == "mine\n"


def test_the_lock_and_the_ledger_disagree(
    own_overlay: Path, slim: Callable[..., Path], pins: Pins
) -> None:
    """Every verb stops until the user has resolved it."""

    def other(ledger: Any) -> None:
        ledger["releases"]["sglang"][VERSION]["sha256"] = "0" * 64

    edit_json(own_overlay / LEDGER, other)
    tree = slim()
    for name, *arguments in (["apply", tree], ["verify", tree], ["fetch"], ["lock"],
                             ["refresh", tree], ["fetch", "--release", VERSION],
                             ["rebase", "--onto", "0.5.13"]):  # fmt: skip
        code, report, said = verb(own_overlay, str(name), *arguments)
        assert code == 2, said
        assert sha256(pins.wheels["sglang"]) in said and "0" * 64 in said
        assert report["findings"][0]["next_step"]


def test_a_release_known_only_from_the_lock(
    own_overlay: Path, pins: Pins, backdoored: Path
) -> None:
    """New to the ledger, but known from the lock."""

    def forget(ledger: Any) -> None:
        del ledger["releases"]["sglang"][VERSION]

    edit_json(own_overlay / LEDGER, forget)
    drop_from_cache(own_overlay, pins)
    before = state(own_overlay)
    code, _, said = verb(own_overlay, "fetch", "--release", VERSION)
    assert code == 2 and "hash mismatch" in said
    code, _, said = verb(own_overlay, "fetch", "--ladder")
    assert code == 2 and "hash mismatch" in said
    assert state(own_overlay) == before
    assert not (own_overlay / "build" / f"sglang-{VERSION}").exists()


@pytest.mark.parametrize(
    "line",
    ['package_root = "../elsewhere"', 'package_root = "/etc"', 'package_root = ".git"',
     'package = "../x"', 'dist = { name = "--index-url=x", version = "1" }',
     'dist = { name = "sglang", version = "1 --pre" }',
     'dist = { name = "sglang", version = "1", platform = "--pre" }'],
)  # fmt: skip
def test_a_manifest_with_unsafe_values(own_overlay: Path, line: str) -> None:
    manifest = own_overlay / "overlay.toml"
    start = line.partition(" =")[0] + " ="
    rows = manifest.read_text().splitlines()
    at = next(n for n, row in enumerate(rows) if row.startswith(start))
    rows[at] = line
    manifest.write_text("\n".join(rows) + "\n")
    code, report, said = verb(own_overlay, "lock")
    assert code == 2, said
    assert report["findings"][0]["next_step"]


@pytest.mark.slow("killed at every write")
@pytest.mark.parametrize("accept", [False, True], ids=["a note", "another digest"])
def test_killed_at_every_write(
    own_overlay: Path,
    pins: Pins,
    tmp_path: Path,
    accept: bool,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """kill -9 anywhere leaves the complete old lock or the complete new one; running
    the same command again gives the new one."""
    keep_first(give_modules(own_overlay))
    for name in OTHERS:
        drop_from_cache(own_overlay, pins, name)
    arguments: tuple[str, ...] = ()
    if accept:
        request.getfixturevalue("backdoored")
        arguments = ("--accept-new-digest", VERSION)
    else:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(pins.wheels["sglang"].parent))
        note(own_overlay)
    log, root = tmp_path / "writes", tmp_path / "killed"

    def lock(at: int) -> int:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(own_overlay, root, copy_function=link_packages)
        return kill_at_write(root, at, log, "lock", *arguments)

    assert lock(0) == 0
    old, new, points = state(own_overlay), state(root), int(log.read_text())
    assert old[0] != new[0] and (old[1] != new[1]) == accept
    assert points > 8
    seen = set()
    # Skip most writes before those to the overlay: they are in pip's scratch folder.
    for at in range(points, max(0, points - 24), -2 if accept else -1):
        assert lock(at) == -9
        found = state(root)
        assert found[0] in (old[0], new[0]), f"torn at write {at}"
        assert found[1] in (old[1], new[1]), f"torn at write {at}"
        seen.add(found[0] == new[0])
        if at % 6 == 0 or at == points:
            code, _, said = verb(root, "lock", *arguments)
            assert code in ((0, 2) if accept else (0,)), said
            assert state(root) == new
    assert seen == {False, True}
