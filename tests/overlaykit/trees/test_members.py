"""A wheel that unpacks to far more than a package, or to another size than it declares,
is refused before anything is written."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from overlaykit.core.errors import EnvironmentFailure, InputError
from overlaykit.trees.tree import WheelTree

MEBI = 1 << 20
MEMBER = "sglang/x.py"
DATA = bytes(MEBI)


def wheel(folder: Path, methods: dict[str, int]) -> Path:
    """A zip of a mebibyte of zeros for each name."""
    place = folder / "sglang-1-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as file:
        for name, method in methods.items():
            file.writestr(name, DATA, method)
    return place


def declaring(place: Path, size: int) -> Path:
    """The zip with this size declared for all members, in its directory."""
    data = bytearray(place.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 24 : at + 28] = struct.pack("<I", size)
        at = data.find(b"PK\x01\x02", at + 4)
    place.write_bytes(data)
    return place


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [0, 1, 5000, MEBI - 1, MEBI + 1, MEBI + 2, 2 * MEBI])
def test_the_declared_size_is_checked(method: int, size: int, tmp_path: Path) -> None:
    honest = wheel(tmp_path, {MEMBER: method})
    assert WheelTree(honest).read(MEMBER) == DATA
    tree = WheelTree(declaring(honest, size))
    with pytest.raises(InputError) as refused:
        tree.read(MEMBER)
    [finding] = refused.value.findings
    kind = "more" if size < MEBI else "fewer"
    assert finding.what == f"unpacks to {kind} bytes than it declares"
    assert (finding.path, finding.expected) == (MEMBER, f"{size} bytes")


def test_no_more_than_the_declared_size_is_unpacked(tmp_path: Path) -> None:
    """A thousand times the size of what it declares, which must not be in memory."""
    tracemalloc = pytest.importorskip("tracemalloc")
    place = tmp_path / "x.whl"
    with (
        zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as file,
        file.open(MEMBER, "w") as member,
    ):
        for _ in range(64):
            member.write(DATA)
    tree = WheelTree(declaring(place, 1000))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more bytes than it declares"):
            tree.read(MEMBER)
        assert tracemalloc.get_traced_memory()[1] < 4 * MEBI
    finally:
        tracemalloc.stop()


def test_an_empty_member(tmp_path: Path) -> None:
    place = tmp_path / "x.whl"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(MEMBER, b"")
    assert WheelTree(place).read(MEMBER) == b""


def test_a_damaged_member(tmp_path: Path) -> None:
    """The checksum still counts."""
    place = wheel(tmp_path, {MEMBER: zipfile.ZIP_STORED})
    data = bytearray(place.read_bytes())
    data[1000] ^= 1
    place.write_bytes(data)
    with pytest.raises(EnvironmentFailure, match="is damaged"):
        WheelTree(place).read(MEMBER)


@pytest.mark.parametrize(
    ("names", "size", "what"),
    [
        (1, (1 << 28) + 1, "unpacks to 268435457 bytes"),
        (17, 1 << 28, "makes the package unpack to more than 4294967296 bytes"),
    ],
    ids=["one file", "all files"],
)
def test_a_bomb_is_refused_by_its_declared_sizes(
    names: int, size: int, what: str, tmp_path: Path
) -> None:
    members = {f"sglang/{n}.py": zipfile.ZIP_DEFLATED for n in range(names)}
    place = declaring(wheel(tmp_path, members), size)
    with pytest.raises(InputError) as refused:
        WheelTree(place)
    [finding] = refused.value.findings
    assert (finding.path, finding.what) == (f"sglang/{names - 1}.py", what)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_refused(method: int, tmp_path: Path) -> None:
    """Python inflates these without a bound."""
    with pytest.raises(InputError, match=f"is compressed by method {method}"):
        WheelTree(wheel(tmp_path, {MEMBER: method}))
