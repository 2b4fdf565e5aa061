"""Write the evidence page on generated code."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from overlaykit.core.errors import OverlayError
from overlaykit.core.files import write_whole
from overlaykit.core.markdown import table_lines
from xscale.codegen.compilation import ARCH, FIGURES, TOKENS, Case, Code, Row, compare

ROOT = Path(__file__).resolve().parents[3]
PAGE = Path("docs/evidence/codegen-gfx950.md")
COMMAND = "PYTHONPATH=scripts .venv/bin/python -m xscale.codegen"

_HEAD = """\
# Generated code: what the transposed scale costs

Made by `{command}`; do not edit.
Triton {triton}, AITER {aiter}, target {target}.

This page shows the producing kernels, compiled for {target} without a GPU. AITER's own
wrappers are called as SGLang calls them, once unchanged and once with
`transpose_scale=True`. Triton's warm-up compiles the kernels that they launch,
specialized for their arguments.

The code is compiled and not run, and another version of Triton generates other code.
The figures do not show memory accesses: row-major, a token's scales are adjacent;
transposed, they are M apart, and one store instruction touches more lines of memory.

## In short

{summary}

## Figures

`row-major -> transposed`; one figure if both are equal. M is each of {tokens};
figures that are the same everywhere are left out. Bytes counts the instructions only.
LDS is in bytes per workgroup. Waves is the compiler's estimate of how many fit on a
SIMD. The last column lists the instructions that differ.
"""

_COLUMNS = {
    "instructions": "Instructions",
    "code_bytes": "Bytes",
    "vgprs": "VGPRs",
    "agprs": "AGPRs",
    "sgprs": "SGPRs",
    "vgpr_spills": "VGPR spills",
    "sgpr_spills": "SGPR spills",
    "scratch_bytes": "Scratch",
    "lds_bytes": "LDS",
    "global_loads": "Loads",
    "global_stores": "Stores",
    "waves": "Waves",
}


def document(rows: Sequence[Row], made_of: Mapping[str, str]) -> dict[str, Any]:
    """The rows as JSON values; ``made_of`` holds the versions and the target."""
    return {
        "command": COMMAND,
        **made_of,
        "rows": [
            {
                **asdict(row.case),
                "tokens": row.tokens,
                "row_major": _figures(row.default),
                "transposed": _figures(row.transposed),
                "instructions_traded": _traded(row),
                "verdict": row.verdict,
            }
            for row in rows
        ],
    }


def _figures(code: Code) -> dict[str, int]:
    return {"binary": code.binary} | {f: getattr(code, f) for f in FIGURES}


def page(rows: Sequence[Row], made_of: Mapping[str, str]) -> str:
    """The rows as Markdown."""
    shown = [f for f in FIGURES if len(_values(rows, f)) > 1]
    columns = (_COLUMNS[f] for f in shown)
    header = ("Shape", "Form", "Sites", "M", *columns, "Transposed", "Traded")
    text = [
        _HEAD.format(
            command=COMMAND,
            tokens=_list(TOKENS),
            summary="\n".join(_summary(rows)),
            **made_of,
        )
    ]
    for kernel, group in groupby(rows, key=lambda row: row.case.kernel):
        merged: dict[tuple[Case, tuple[str, ...]], list[int]] = {}
        for row in group:
            merged.setdefault((row.case, tuple(_cells(row, shown))), []).extend(
                row.tokens
            )
        lines = (
            (*_names(case), _list(sorted(tokens)), *cells)
            for (case, cells), tokens in merged.items()
        )
        text += [f"### {kernel}", "", *table_lines(header, lines), ""]
    return "\n".join(text)


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    """Each figure in one or two lines: its constant value, or how it changes."""
    tally = Counter(row.verdict.partition(":")[0] for row in rows)
    yield f"Of {len(rows)} pairs of binaries, {tally['same']} are equal in all figures."
    yield f"In {tally['less']} the transposed form costs less in some figures and more"
    yield f"in no figure; in {tally['more']} it costs more in some:"
    yield ""
    for figure in FIGURES:
        changes = [row.changes.get(figure, 0) for row in rows]
        up, down = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
        if up or down:
            yield (
                f"- {_COLUMNS[figure]}: {min(changes):+d} to {max(changes):+d}; "
                f"more in {up}, fewer in {down}"
            )
    trade, times = Counter(map(_trade, rows)).most_common(1)[0]
    yield f"- instructions traded, most often, in {times}: {trade}"
    unchanged = [f for f in FIGURES if not any(f in row.changes for row in rows)]
    yield f"- the same in each pair: {', '.join(_COLUMNS[f] for f in unchanged)}"
    constant = {f: v for f in unchanged if len(v := _values(rows, f)) == 1}
    stated = ", ".join(f"{_COLUMNS[f]} {v.pop()}" for f, v in constant.items())
    yield f"- the same everywhere: {stated}"
    for kernel, group in groupby(rows, key=lambda row: row.case.kernel):
        counts = {_binaries(list(same)) for _, same in groupby(group, lambda r: r.case)}
        yield f"- binaries of `{kernel}` over all M: {' or '.join(sorted(counts))}"


def _binaries(rows: Sequence[Row]) -> str:
    old = {row.default.binary for row in rows}
    new = {row.transposed.binary for row in rows}
    return f"{len(old)} row-major, {len(new)} transposed, {len(old & new)} shared"


def _values(rows: Sequence[Row], figure: str) -> set[int]:
    codes = [code for row in rows for code in (row.default, row.transposed)]
    return {getattr(code, figure) for code in codes}


def _cells(row: Row, shown: Sequence[str]) -> Iterator[str]:
    for figure in shown:
        old, new = getattr(row.default, figure), getattr(row.transposed, figure)
        yield f"{old}" if old == new else f"{old} -> {new}"
    yield row.verdict
    yield _trade(row)


def _traded(row: Row) -> dict[str, int]:
    """The instructions whose counts differ: transposed minus row-major."""
    old, new = row.default.mix, row.transposed.mix
    deltas = {name: new.get(name, 0) - old.get(name, 0) for name in {*old, *new}}
    return {name: d for name, d in sorted(deltas.items()) if d}


def _trade(row: Row) -> str:
    return ", ".join(f"{d:+d} `{name}`" for name, d in _traded(row).items()) or "none"


def _names(case: Case) -> tuple[str, str, str]:
    shape = "x".join(map(str, case.shape))
    return shape, ", ".join(case.form) or "plain", case.sites


def _list(tokens: Iterable[int]) -> str:
    return ", ".join(map(str, tokens))


def made_of(aiter: Path) -> dict[str, str]:
    """Triton's and AITER's versions, and the target."""
    stated = aiter / "aiter" / "_version.py"
    text = stated.read_text(encoding="utf-8") if stated.is_file() else ""
    found = re.search(r"^__version__\b.*['\"](.+)['\"]", text, re.MULTILINE)
    return {
        "triton": version("triton"),
        "aiter": found[1] if found else "of unknown version",
        "target": ARCH,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, then write the page and the JSON. Exit codes are those of the verbs."""
    parser = argparse.ArgumentParser(
        prog="python -m xscale.codegen", description=__doc__
    )
    parser.add_argument(
        "aiter", nargs="?", type=Path, default=ROOT / "build" / "aiter",
        help="directory that holds the package aiter (default: build/aiter)",
    )  # fmt: skip
    parser.add_argument(
        "--root", type=Path, default=ROOT, help=f"where to write {PAGE} (default: here)"
    )
    options = parser.parse_args(arguments)
    try:
        rows = compare(options.aiter)
        sources = made_of(options.aiter)
        data = json.dumps(document(rows, sources), indent=1)
        place = options.root / PAGE
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, page(rows, sources))
        write_whole(place.with_suffix(".json"), f"{data}\n")
    except OverlayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{PAGE}\n{PAGE.with_suffix('.json')}")
    return 0
