"""Files are written as a whole or not at all, and by one helper."""

from __future__ import annotations

import ast
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.core.files import check_place, write_file, write_whole

# Other modules that open a file for writing, how often, and why no reader sees a part.
_OTHERS = {
    # Folders that a rename puts in place, or that are removed after the block.
    "scripts/overlaykit/export/formats.py": 1,
    "scripts/overlaykit/repository/merge.py": 2,
    "scripts/overlaykit/repository/merge_checkout.py": 2,
    "scripts/overlaykit/sources/laying.py": 2,
    "scripts/xscale/numeric/producers.py": 1,
    # The helpers themselves; one is for files that a transaction renames.
    "scripts/overlaykit/core/files.py": 2,
    # Standard error, if it was closed.
    "scripts/overlaykit/cli.py": 1,
    # Pipes to another process.
    "scripts/xscale/numeric/layout_probe.py": 1,
    "scripts/xscale/numeric/server.py": 1,
    # Append-only logs, whose readers accept an incomplete last line.
    "ci/gatekit/gsm8k/answers.py": 1,
    "ci/gatekit/records/runs.py": 1,
    "ci/gatekit/process/servers.py": 1,
    # A command's output: two logs, and a `.part` that is renamed at its end.
    "ci/gatekit/process/launcher.py": 3,
    # A client's log.
    "ci/gatekit/serving/running.py": 1,
}
_WRITING = set("wax+")


def _writers(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that write to a file in place."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else ""
        if isinstance(function, ast.Name):
            name = function.id
        given = [*node.args[:2], *(k.value for k in node.keywords if k.arg == "mode")]
        modes = [g.value for g in given if isinstance(g, ast.Constant)]
        opens = name in ("open", "fdopen") and any(
            isinstance(m, str) and len(m) <= 3 and set(m) & _WRITING for m in modes
        )
        if name in ("write_text", "write_bytes") or opens:
            yield node


def test_no_module_writes_in_place() -> None:
    found: Counter[str] = Counter()
    for folder in ("scripts", "ci"):
        for place in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(place.read_bytes())
            name = place.relative_to(ROOT).as_posix()
            found[name] += sum(1 for _ in _writers(tree))
    assert {name: count for name, count in found.items() if count} == _OTHERS


def test_write_and_replace(tmp_path: Path) -> None:
    place = tmp_path / "page.md"
    write_whole(place, "one\n")
    assert (place.read_text(), place.stat().st_mode & 0o777) == ("one\n", 0o644)
    place.chmod(0o600)
    write_whole(place, b"two\n")
    assert (place.read_text(), place.stat().st_mode & 0o777) == ("two\n", 0o600)
    assert [p.name for p in tmp_path.iterdir()] == ["page.md"]


def test_longest_file_name(tmp_path: Path) -> None:
    place = tmp_path / ("n" * 255)
    write_whole(place, "x")
    assert place.read_text() == "x"


def test_symbolic_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("one\n")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "two\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "two\n"


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    """A file in place of /dev/stdout, for example, would break other programs."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(EnvironmentFailure, match="cannot write"):
            write_whole(tmp_path / name, "x")
        with pytest.raises(EnvironmentFailure, match="cannot write"):
            check_place(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]


def test_new_never_replaces_a_file(tmp_path: Path) -> None:
    place = tmp_path / "x"
    write_file(place, "one", new=True)
    with pytest.raises(FileExistsError):
        write_file(place, "two", new=True)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "one")]


def test_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        with pytest.raises(EnvironmentFailure) as failed:
            write_whole(tmp_path / name / "x", "x")
        with pytest.raises(EnvironmentFailure) as early:
            check_place(tmp_path / name / "x")
        assert failed.value.findings[0].next_step
        assert early.value.findings[0].next_step


def test_a_place_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("one")
    check_place(None, tmp_path / "old", tmp_path / "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old", "one")]
