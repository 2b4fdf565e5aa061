"""Malicious packages: refused by member name; nothing is written or run.

The packages are real wheels, served by a folder that stands for the index; pip fetches
them and git makes the clones, as for any other.
"""

from __future__ import annotations

import os
import stat
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure, InputError
from overlaykit.series.ledger import LEDGER
from overlaykit.series.manifest import Target
from overlaykit.sources import laying
from overlaykit.sources.packages import describe, wheel_tree
from overlaykit.sources.releases import obtain
from overlaykit.trees.tree import WheelTree
from support.forks import forked

VERSION = "0.5.99"
WHEEL = f"sglang-{VERSION}-py3-none-any.whl"
TARGET = "https://github.com/sgl-project/sglang"

Members = Mapping[Any, bytes]
"""Contents by name, or by a ZipInfo with more details of the member."""


def make_wheel(folder: Path, members: Members, twice: str | None = None) -> Path:
    """A wheel of sglang with these members, which pip accepts."""
    folder.mkdir(exist_ok=True)
    about = f"sglang-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: sglang\nVersion: {VERSION}\n"
    with zipfile.ZipFile(folder / WHEEL, "w") as file:
        file.writestr("sglang/__init__.py", "x = 1\n")
        for member, data in members.items():
            file.writestr(member, data)
        if twice is not None:
            with pytest.warns(UserWarning, match="Duplicate name"):
                file.writestr(twice, b"again\n")
        file.writestr(f"{about}/METADATA", metadata)
        tag = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
        file.writestr(f"{about}/WHEEL", tag + "Tag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return folder / WHEEL


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def target() -> Target:
    from overlaykit.series.manifest import Dist

    dist = Dist("sglang", VERSION)
    return Target(TARGET, "sglang", "python/sglang", dist)


def lay_out(wheel: Path, folder: Path) -> bool:
    label = laying.release_label(target(), describe(wheel))
    tree = wheel_tree(wheel, target())
    return laying.lay_out(tree, label, folder, lambda *_: None)


HOSTILE: dict[str, tuple[Members, str]] = {
    "up": ({"sglang/../../../../up": b""}, "sglang/../../../../up"),
    "absolute": ({"/etc/overlay": b""}, "/etc/overlay"),
    "beside the package": ({"../beside": b""}, "../beside"),
    "a folder": ({"sglang/../out/": b""}, "sglang/../out/"),
    "git's configuration": ({"sglang/../../.git/config": b""}, ".git/config"),
    "a repository within": ({"sglang/x/.git/config": b""}, "sglang/x/.git/config"),
    "git in capitals": ({"sglang/.GIT/config": b""}, "sglang/.GIT/config"),
    "git's short name": ({"sglang/git~1/config": b""}, "sglang/git~1/config"),
    "a stream": ({"sglang/.git::$INDEX_ALLOCATION/x": b""}, "$INDEX_ALLOCATION"),
    "a journal": (
        {"sglang/.overlay-transaction/journal.json": b"[]"},
        ".overlay-transaction/journal.json",
    ),
    "a backslash": ({"sglang\\..\\..\\x": b""}, "sglang\\\\..\\\\..\\\\x"),
    "a line end": ({"sglang/a\nb.py": b""}, "sglang/a\\\\nb.py"),
    "case": ({"sglang/a.py": b"", "sglang/A.py": b""}, "sglang/A.py"),
    "case of a folder": ({"sglang/x/a": b"", "sglang/X/b": b""}, "sglang/X/b"),
    "letters of one look": (
        {"sglang/\u00e9.py": b"", "sglang/e\u0301.py": b""},
        "sglang/e\u0301.py",
    ),
    "a file and a folder": ({"sglang/x": b"", "sglang/x/y": b""}, "sglang/x/y"),
    "a link": ({link("sglang/link"): b"/etc/passwd"}, "sglang/link"),
}


@pytest.mark.parametrize(("members", "named"), HOSTILE.values(), ids=HOSTILE)
def test_refused_by_member_name(tmp_path: Path, members: Members, named: str) -> None:
    wheel = make_wheel(tmp_path / "index", members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as refused:
        lay_out(wheel, tmp_path / "build" / "sglang")
    assert named in refused.value.message
    assert sorted(tmp_path.rglob("*")) == before


def test_a_repeated_name(tmp_path: Path) -> None:
    """Readers differ in which of the two they use."""
    wheel = make_wheel(tmp_path, {"sglang/a.py": b"one\n"}, twice="sglang/a.py")
    with pytest.raises(InputError, match=r"sglang/a\.py' occurs more than once"):
        WheelTree(wheel, target().site_layout())


def test_a_name_with_text_after_a_nul(tmp_path: Path) -> None:
    """zipfile shows the text before the NUL; the name in the archive counts."""
    wheel = make_wheel(tmp_path, {"sglang/aXb.py": b""})
    wheel.write_bytes(wheel.read_bytes().replace(b"sglang/aXb.py", b"sglang/a\0b.py"))
    with pytest.raises(InputError, match="invisible character"):
        WheelTree(wheel, target().site_layout())


def test_files_outside_the_package(tmp_path: Path) -> None:
    """AITER's wheel contains a library with its `.git`, which the tree leaves out."""
    wheel = make_wheel(tmp_path, {"meta/lib/.git": b"gitdir: x\n"})
    assert lay_out(wheel, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("lib"))


def test_a_damaged_member(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"sglang/a.py": b"0123456789\n"})
    wheel.write_bytes(wheel.read_bytes().replace(b"0123456789", b"0123456780"))
    with pytest.raises(EnvironmentFailure, match="is damaged") as damaged:
        lay_out(wheel, tmp_path / "out")
    assert damaged.value.findings[0].path == "sglang/a.py"
    assert sorted(p.name for p in tmp_path.iterdir()) == [WHEEL]


ATTRIBUTES = (
    b"* filter=evil diff=evil merge=evil ident text eol=crlf\n"
    b"*.txt working-tree-encoding=UTF-16 text\n*.md -text eol=lf export-subst\n"
)


def test_the_content_does_not_steer_git(tmp_path: Path) -> None:
    """Attributes of the package change no byte, now or under the user's own git."""
    files: dict[str, bytes] = {
        "sglang/.gitattributes": ATTRIBUTES,
        "sglang/srt/.gitattributes": ATTRIBUTES,
        "sglang/.gitignore": b"*\n",
        "sglang/.gitmodules": b'[submodule "x"]\n\tpath = x\n\turl = ../x\n',
        "sglang/crlf.py": b"a = 1\r\nb = 2\r\n",
        "sglang/mixed.py": b"a = 1\r\nb = 2\n",
        "sglang/ident.py": b"# $Id$ $Id: 0000 $\n",
        "sglang/text.txt": "\ufeffein Text\n".encode("utf-16"),
        "sglang/srt/x.md": b"$Format:%H$\n",
        'sglang/"quoted".py': b"q = 1\n",
        "sglang/-x.py": b"x = 1\n",
    }
    wheel = make_wheel(tmp_path, files)
    clone = tmp_path / "out"
    assert lay_out(wheel, clone)
    for member, data in files.items():
        stored = git.run(clone, "cat-file", "blob", f"pin:python/{member}").stdout
        assert stored == data == (clone / "python" / member).read_bytes()
    tracked = git.run(clone, "ls-files", "-z").stdout.split(b"\0")
    assert len(tracked) == len(files) + 2
    # A user has a driver with that name, and git checks every file again.
    run = tmp_path / "run"
    filters = [
        word
        for name in ("filter.evil.clean", "filter.evil.smudge", "diff.evil.textconv")
        for word in ("-c", f"{name}=touch '{run}'; cat")
    ]
    for place in clone.rglob("*.py"):
        os.utime(place)
    for command in (["status", "--porcelain"], ["diff", "HEAD"], ["add", "--all", "."],
                    ["status", "--porcelain"]):  # fmt: skip
        done = subprocess.run(
            ["git", *filters, *command], cwd=clone, capture_output=True, check=True
        )
        assert (done.stdout, done.stderr) == (b"", b"")
    assert not run.exists()


def test_the_same_files_give_the_same_commit(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"sglang/a.py": b"a = 1\n"})
    ids = []
    for name in ("one", "two"):
        assert lay_out(wheel, tmp_path / name)
        ids.append(git.text(tmp_path / name, "rev-parse", "pin^{commit}"))
    assert ids[0] == ids[1]
    assert not lay_out(wheel, tmp_path / "two")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


Fetch = Callable[..., tuple[int, str]]


@pytest.fixture
def fetch(overlay: Path) -> Fetch:
    """Run the overlay's own verb as a user does: exit code and output."""

    def fetch(cwd: Path) -> tuple[int, str]:
        script = overlay / "scripts" / "fetch.py"
        done = forked(script, ["--json", "--release", VERSION], cwd)
        return done.returncode, done.stdout + done.stderr

    return fetch


def test_a_package_that_plants_gits_configuration(
    index: Path, overlay: Path, fetch: Fetch, tmp_path: Path
) -> None:
    """A filter in a planted `.git/config` is a command, and `git add` would run it."""
    filtered, hooked, out = (tmp_path / n for n in ("filtered", "hooked", "out"))
    config = f'[filter "evil"]\n\tclean = "touch \'{filtered}\'; cat"\n'
    hook = f"#!/bin/sh\ntouch '{hooked}'\n"
    config = f"[core]\n\trepositoryformatversion = 0\n{config}"
    make_wheel(
        index,
        {
            f"sglang/{'../' * 40}{out.relative_to('/')}": b"out\n",
            "sglang/../../.git/hooks/pre-commit": hook.encode(),
            "sglang/../../.git/config": config.encode(),
            "sglang/.gitattributes": b"* filter=evil\n",
            "sglang/../../.gitattributes": b"* filter=evil\n",
        },
    )
    code, said = fetch(tmp_path)
    assert code == 2, said
    assert "sglang/../" in said and "Traceback" not in said
    assert not any(place.exists() for place in (filtered, hooked, out))
    assert [p.name for p in (overlay / "build").iterdir()] == ["cache"]


def test_a_folder_with_its_own_pip(
    index: Path, overlay: Path, fetch: Fetch, tmp_path: Path
) -> None:
    """`python -m pip` looks in the working directory first, such as a foreign clone."""
    make_wheel(index, {})
    clone, run = tmp_path / "clone", tmp_path / "run"
    clone.mkdir()
    for name in ("pip.py", "runpy.py", "subprocess.py"):
        text = f"import pathlib\npathlib.Path({str(run)!r}).touch()\n"
        (clone / name).write_text(text, encoding="utf-8")
    code, said = fetch(clone)
    assert code == 0, said
    assert not run.exists()
    assert '"outcome": "laid out"' in said


def test_a_refused_package_is_neither_kept_nor_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, root = tmp_path / "index", tmp_path / "overlay"
    make_wheel(index, {"sglang/../../.git/config": b"[core]\n"})
    root.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(InputError, match=r"\.git/config"):
        obtain(root, target(), VERSION)
    assert not (root / LEDGER).exists()
    assert list((root / "build" / "cache").iterdir()) == []
