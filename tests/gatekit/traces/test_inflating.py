"""A gzip is read completely or rejected, by ISA-L and by zlib."""

from __future__ import annotations

import gzip
import importlib
import random
import sys
import zlib
from pathlib import Path

import pytest

from gatekit.traces import inflating
from gatekit.traces.inflating import chunks, is_zipped
from gatekit.traces.reading import read_trace
from overlaykit.core.errors import InputError

_PIECE = 1 << 15
_WORDS = [f'"name": "kernel_{n}", "ts": {n * 1.25:.3f}' for n in range(400)]


@pytest.fixture(params=["zlib", "isal.isal_zlib"], autouse=True)
def inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "zlib":
        pytest.importorskip("isal", reason="pip install --group gate")
    module = importlib.import_module(request.param)
    monkeypatch.setattr(inflating, "_inflater", lambda: module)


def text_of(size: int, seed: int = 0) -> bytes:
    """Text like a trace: repeated words and varying numbers."""
    draw = random.Random(seed)
    made = "\n".join(draw.choice(_WORDS) for _ in range(size // 20 + 1))
    return made.encode()[:size]


def unzipped(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    return b"".join(chunks(path))


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize(
    "size", [0, 1, _PIECE - 1, _PIECE, _PIECE + 1, 3 * _PIECE, 1_000_003]
)
def test_round_trip(level: int, size: int, tmp_path: Path) -> None:
    text = text_of(size)
    assert unzipped(tmp_path / "t", gzip.compress(text, level)) == text


def test_pieces_are_bounded(tmp_path: Path) -> None:
    """Even if the text is a thousand times longer than the gzip."""
    path = tmp_path / "t"
    path.write_bytes(gzip.compress(b" " * 50_000_000))
    assert max(map(len, chunks(path))) <= _PIECE


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """Of 300 KB; no more than the limit is unpacked, and a reader gets no text."""
    path = tmp_path / "t"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(300):
            file.write(b" " * 1_000_000)
    size = 0
    with pytest.raises(InputError, match="unpacks to more than") as refused:
        for piece in chunks(path):
            size += len(piece)
    assert size <= max(1 << 28, 100 * path.stat().st_size)
    [finding] = refused.value.findings
    assert finding.next_step and "unpack it" in finding.next_step
    with pytest.raises(InputError, match="not a readable trace"):
        read_trace(path)


def test_members_and_padding(tmp_path: Path) -> None:
    parts = [text_of(n, n) for n in (100, 70_000, 1)]
    for zeros in (0, 1, 512, 3 * _PIECE):
        data = b"".join(gzip.compress(one) + b"\0" * zeros for one in parts)
        assert unzipped(tmp_path / "t", data) == b"".join(parts)


def test_random_bytes_of_many_sizes(tmp_path: Path) -> None:
    """Blocks end at any position in a piece of input."""
    draw = random.Random(1)
    for _ in range(60):
        sizes = [draw.randrange(1, 200_000) for _ in range(draw.randrange(1, 4))]
        texts = [
            draw.randbytes(size) if draw.random() < 0.3 else text_of(size, size)
            for size in sizes
        ]
        data = b"".join(gzip.compress(one, draw.randrange(10)) for one in texts)
        assert unzipped(tmp_path / "t", data) == b"".join(texts)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(text_of(2_000))
    for length in range(2, len(data)):
        with pytest.raises(InputError):
            unzipped(tmp_path / "t", data[:length])
    whole = gzip.compress(text_of(200_000))
    for length in range(len(whole) - 12, len(whole)):
        with pytest.raises(InputError):
            unzipped(tmp_path / "t", whole[:length])


def test_no_flipped_bit_gives_another_text(tmp_path: Path) -> None:
    """Some header bits hold the time and the program, so they may change."""
    text = text_of(1_500)
    data = gzip.compress(text)
    refused = 0
    for place in range(16, 8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            assert unzipped(tmp_path / "t", bytes(flipped)) == text, place
        except InputError:
            refused += 1
    assert refused > 8 * (len(data) - 11)


@pytest.mark.parametrize("tail", [b"tail", b"\0\0tail", b"\x1f\x8b"])
def test_a_tail_must_be_a_gzip(tail: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        unzipped(tmp_path / "t", gzip.compress(text_of(10_000)) + tail)


def test_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    for data, zipped in ((gzip.compress(b""), True), (b"{}", False), (b"", False)):
        path.write_bytes(data)
        assert is_zipped(path) is zipped


def test_zlib_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    assert inflating._inflater() is zlib
