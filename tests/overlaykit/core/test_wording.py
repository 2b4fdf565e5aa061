"""Text from outside: shown without control characters, and pasted unchanged."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlaykit.core.documents import from_json, from_toml, to_json, to_json_line
from overlaykit.core.errors import Finding
from overlaykit.core.wording import one_line, pasteable, readable

HOSTILE = [
    "plain",
    "a b",
    "it's",
    '"$(touch made)"; touch made',
    "`touch made` && touch made | touch made > made",
    "-rf",
    "~",
    "*",
    "line\nend",
    "tab\there",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "\u202ereversed",
    os.fsdecode(b"\xff\xfe9"),
    "é ü 漢",
    "\\n \\' $'x'",
    "",
]


def test_control_characters_are_escaped() -> None:
    shown = readable("\x1b[31m\x07\x9b\u202e\udcff\rx\n\ty")
    assert shown == "\\x1b[31m\\x07\\x9b\\u202e\\udcff\\rx\n\ty"
    assert one_line("a\nb\tc\u2028d") == "a\\nb\\tc\\u2028d"
    assert readable("é ü 漢: 5 %") == "é ü 漢: 5 %"


def test_names_stay_in_one_line_of_a_finding() -> None:
    lines = Finding("w", path="p\nPASS", scope="s", found="1\n2\n   3").lines()
    assert lines[0] == "p\\nPASS: w"
    assert lines[-1] == "  found     1\n            2\n   3"


@pytest.mark.parametrize("shell", ["bash"])
def test_printed_commands_can_be_pasted(shell: str, tmp_path: Any) -> None:
    """The command is pasted as it is shown, with unprintable characters escaped."""
    line = readable(pasteable(["printf", "%s\\0", *HOSTILE]))
    assert all(c.isprintable() or c in "\n\t" for c in line)
    done = subprocess.run([shell, "-c", line], cwd=tmp_path, capture_output=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in HOSTILE]
    assert not list(tmp_path.iterdir())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=6).filter(lambda b: 0 not in b)))
def test_any_bytes_can_be_pasted(words: list[bytes]) -> None:
    line = readable(pasteable(["printf", "%s\\0", "", *map(os.fsdecode, words)]))
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[1:-1] == words


class Document(msgspec.Struct, omit_defaults=True):
    name: str
    more: tuple[str, ...] = ()
    counts: dict[str, int] = {}


def test_json_is_utf_8_for_any_name() -> None:
    for write in (to_json, to_json_line):
        document = write(Document("a\udcff", counts={"\udcfe": 10**30}))
        assert b"\\\\udcff" in document
        assert document.decode("utf-8")
        assert from_json(document, Document) == Document(
            "a\\udcff", counts={"\\udcfe": 10**30}
        )
    assert from_json(to_json(Document("é")), Document) == Document("é")


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"name": "x", "more": ' + b"[" * 100_000,
        b'{"name": ' + b"1" * 5000 + b"}",
        b'{"name": "\\udcff"}',
        b'{"name": "\xff"}',
        b'{"name": 1e999}',
        b"",
        b"\0",
    ],
    ids=range(9),
)
def test_bad_json_is_rejected(data: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        from_json(data, Document)


@pytest.mark.parametrize(
    "data",
    [
        b"name = " + b"[" * 100_000,
        b"name = " + b"1" * 5000,
        b"name = 1979-99-99",
        b"\xff",
        b"\0",
        b"a." * 10_000 + b"b = 1",
    ],
    ids=range(6),
)
def test_bad_toml_is_rejected(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        from_toml(data, Document)
