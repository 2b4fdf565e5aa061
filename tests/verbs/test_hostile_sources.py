"""Sources that Python's parser cannot handle count as drift and crash no verb."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import run_verb
from overlaykit.core.errors import Exit
from overlaykit.core.syntax import compiled, parsed, syntax_error
from overlaykit.series.scopes import map_scopes

FP8 = "python/sglang/srt/layers/quantization/fp8_utils.py"
HOSTILE = {
    "brackets": b"x = " + b"(" * 10_000,
    "signs": b"x = " + b"-" * 100_000 + b"1\n",
    "attributes": b"x = a" + b".b" * 100_000 + b"\n",
    "calls": b"x = a" + b"()" * 50_000 + b"\n",
    "sums": b"x = 1" + b" + 1" * 100_000 + b"\n",
    "lambdas": b"x = " + b"lambda: " * 50_000 + b"1\n",
    "elifs": b"if a: pass\n" + b"elif a: pass\n" * 20_000,
    "elifs that parse": b"if a: pass\n" + b"elif a: pass\n" * 1_200,
    "null byte": b"x = 1\0\n",
    "long number": b"x = " + b"1" * 5_000 + b"\n",
    "no encoding": b"\n# coding: nope\n",
    "not UTF-8": b"x = '\xff'\n",
    "half a character": b"x = '\\ud800'\n",
}
PARSES = {"half a character", "elifs that parse", "no encoding"}
ONLY_PARSES = ("attributes", "calls", "sums") if sys.version_info < (3, 11) else ()
"""Python 3.10 parses these and cannot compile them; later ones refuse to parse them."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sources_have_no_scopes(name: str) -> None:
    source = HOSTILE[name]
    map_scopes(source)
    if name in PARSES:
        return
    assert (map_scopes(source) is None) == (name not in ONLY_PARSES)
    assert syntax_error(source) is not None
    for read in (compiled,) if name in ONLY_PARSES else (parsed, compiled):
        with pytest.raises(SyntaxError):
            read(source, "x.py")


@pytest.mark.parametrize("name", ["signs", "attributes", "elifs", "elifs that parse"])
def test_a_tree_with_a_hostile_source_has_drifted(
    name: str, slim: Callable[..., Path]
) -> None:
    tree = slim(clone=False)
    place = tree / FP8
    place.write_bytes(place.read_bytes() + HOSTILE[name])
    for verb, words, code in (
        ("apply", ("--dry-run",), Exit.CANNOT_APPLY),
        ("apply", ("--status",), Exit.CANNOT_APPLY),
        # verify reads it and finds that it is not the patched file.
        ("verify", (), Exit.FAILS),
    ):
        done = run_verb(verb, "--json", *words, str(tree))
        assert "Traceback" not in done.stderr
        report = json.loads(done.stdout)
        assert done.returncode == report["exit_code"] == code, done.stderr
        assert FP8 in {finding["path"] for finding in report["findings"]}
