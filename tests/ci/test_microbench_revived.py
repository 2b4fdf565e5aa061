"""The workload of a release in which upstream has the layout, dead.

The tree's own layer runs from end to end, on AITER's real kernels, interpreted.

A CPU shows the launches of each arm by their roles, and that every arm computes the
same values. Which code runs is decided by the tree alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import ROOT, Pins, lay
from gatekit.microbench.arms import REVIVED, Arm, applied_alone, trees_at
from gatekit.microbench.claims import claims_of
from gatekit.microbench.page import page
from gatekit.microbench.plot import plot
from gatekit.microbench.results import Bench, Cell, Claim, Time
from overlaykit.core.errors import CannotApply
from support.chain_programs import Slim
from xscale.liveness import NATIVE_BLOCK_FP8, modules_of
from xscale.numeric.situations import SMALL_M_MODULE
from xscale.numeric.sources import aiter_sources, sglang_sources

BASE = "sglang-0.5.23"
_COMMITTED = ROOT / "docs" / "evidence" / "microbench-0.5.23-h200"
_UNDONE = (
    "python/sglang/srt/layers/attention/dsa/dsa_indexer.py",
    b"x = x if _is_block_scale_fp8(self.wk) else x[2]",
    b"x = x[2]",
)
"""The lines of the series that hand wk what the norm has quantized."""


@pytest.fixture(scope="module")
def trees(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Slim:
    root = tmp_path_factory.mktemp("revived")
    tree = pins.tree(BASE)
    also = (*modules_of(tree, NATIVE_BLOCK_FP8), SMALL_M_MODULE)
    for name, its, sources in (
        (BASE, tree, sglang_sources(tree, also)),
        ("aiter", pins.tree("aiter"), aiter_sources(pins.tree("aiter"))),
    ):
        paths = {path for path, _ in sources.modules.values()}
        lay(its, paths | set(pins.overlay[name].series.paths), root / name)
    return Slim(root / BASE, root / "aiter")


_RUN = """
import json, os, sys
os.environ["TRITON_INTERPRET"] = "1"
sys.path[:0] = [{ci!r}, {scripts!r}]
from dataclasses import replace
from pathlib import Path
from gatekit.microbench.arms import Arm, trees_at
from gatekit.microbench.bench import Plan, Workload
from gatekit.microbench.claims import claims_of
from overlaykit.core.documents import to_json
from xscale.numeric.cases import SMALL

trees = trees_at(Path({sglang!r}), Path({aiter!r}))
path, old, new = {undone!r}
arms = dict(trees.arms)
if path:
    series = arms[Arm.SERIES]
    (name,) = [n for n, (p, _) in series.modules.items() if p == path]
    data = series.modules[name][1]
    assert old in data
    module = {{name: (path, data.replace(old, new))}}
    arms[Arm.SERIES] = replace(series, modules={{**series.modules, **module}})
plan = Plan("cpu", (SMALL,), {rows!r}, 2)
workload = Workload(replace(trees, arms=arms), plan)
cells = list(workload.cells(Path({out!r}), lambda _: None))
print(to_json(cells).decode())
"""


def _cells(
    trees: Slim,
    out: Path,
    rows: tuple[int, ...],
    undone: tuple[str, bytes, bytes] = ("", b"", b""),
) -> list[Cell]:
    done = trees.run(_RUN, out, rows=rows, undone=undone)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("[") :])
    return msgspec.convert(found, list[Cell])


@pytest.fixture(scope="module")
def cells(
    trees: Slim, kernels: None, tmp_path_factory: pytest.TempPathFactory
) -> list[Cell]:
    return _cells(trees, tmp_path_factory.mktemp("cells"), (1, 3))


def _broken(claims: tuple[Claim, ...]) -> list[str]:
    return [claim.what for claim in claims if not claim.holds]


_KERNELS = pytest.mark.slow("kernels under Triton's interpreter")


@_KERNELS
def test_launches_of_each_arm(cells: list[Cell]) -> None:
    """(norms, quantizations, GEMMs, copies): with the series one quantization serves
    qkv_a and wk, and no norm is separate."""
    assert [cell.m for cell in cells] == [1, 3]
    for cell in cells:
        counted = {
            Arm(row.arm): (row.norms, row.quantizations, row.gemms, row.copies)
            for row in cell.rows
        }
        assert counted == {
            Arm.PRISTINE: (2, 4, 4, 0),
            Arm.GUARD_ALONE: (0, 4, 4, 0),
            Arm.SERIES: (0, 3, 4, 0),
        }
        assert cell.differing == ()
    assert _broken(claims_of(cells)) == []


@_KERNELS
def test_without_its_patch_wk_quantizes_once_more(
    trees: Slim, kernels: None, tmp_path: Path
) -> None:
    (cell,) = _cells(trees, tmp_path, (3,), _UNDONE)
    assert cell.row("series", "eager").quantizations == 4
    (found,) = _broken(claims_of([cell]))
    assert found.startswith("this series quantizes once for qkv_a and wk")


def test_arms_of_a_patched_and_a_pristine_tree_are_the_same(
    pins: Pins, trees: Slim, tmp_path: Path
) -> None:
    arms = trees_at(trees.sglang, trees.aiter).arms
    assert tuple(arms) == REVIVED
    patched, tree = tmp_path / "patched", pins.patched(BASE)
    shutil.copytree(trees.sglang, patched)
    for path in pins.overlay[BASE].series.paths:
        (patched / path).write_bytes(tree.read(path) or b"")
    again = trees_at(patched, trees.aiter).arms
    for arm in REVIVED:
        assert again[arm].modules == arms[arm].modules


def test_a_patch_alone_changes_its_own_lines(pins: Pins) -> None:
    """The last patch, without those before it, makes the same changes."""
    patch = pins.overlay[BASE].series.patches[-1]
    tree = pins.tree(BASE)
    alone = applied_alone(patch, tree)
    for diff in patch.files:
        before = (tree.read(diff.path) or b"").splitlines(keepends=True)
        after = (alone.read(diff.path) or b"").splitlines(keepends=True)
        removed = [line for h in diff.hunks for tag, line in h.lines if tag == "-"]
        added = [line for h in diff.hunks for tag, line in h.lines if tag == "+"]
        assert sorted([*before, *added]) == sorted([*after, *removed]), diff.path


def test_a_patch_that_needs_the_others_is_refused(pins: Pins) -> None:
    """Its own lines, not only its context, are those of an earlier patch."""
    needs = next(p for p in pins.overlay[BASE].series.patches if "small-m" in p.name)
    with pytest.raises(CannotApply, match="does not apply alone"):
        applied_alone(needs, pins.tree(BASE))


def _bench() -> Bench:
    figures = Path(f"{_COMMITTED}.json").read_bytes()
    return msgspec.json.decode(figures, type=Bench)


def test_the_committed_page_matches_its_figures() -> None:
    """One claim does not hold: Triton's GEMM with many rows."""
    bench = _bench()
    assert bench.claims == claims_of(bench.cells)
    assert _broken(bench.claims) == [
        "replayed, this series is no slower than the release with DeepSeek-V3.2 TP=8's "
        "shapes and more rows"
    ]
    assert list(bench.arms) == [arm.value for arm in REVIVED]
    committed = Path(f"{_COMMITTED}.md").read_text(encoding="utf-8")
    assert page(bench, f"{_COMMITTED.name}.svg") == committed
    drawn = Path(f"{_COMMITTED}.svg").read_text(encoding="utf-8")
    assert plot(bench.cells, bench.ran_with["device"]) == drawn


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"copies": 1.0}, "no arm copies"),
        ({"norms": 1.0}, "this series quantizes once for qkv_a and wk"),
        ({"quantizations": 4.0}, "this series quantizes once for qkv_a and wk"),
        ({"gemms": 3.0}, "a layer has 4 GEMMs, and nothing else but norms and"),
        ({"others": 1.0}, "a layer has 4 GEMMs, and nothing else but norms and"),
        ({"attentions": 1}, "the profiler saw every call of the attention module"),
        (
            {"time": Time(60.0, 59.0, 1.001)},
            "replayed, this series is faster than the release with GLM-5.1 TP=8's",
        ),
    ],
)
def test_claims_fail_for_bad_figures(change: dict[str, Any], broken: str) -> None:
    cells = [cell for cell in _bench().cells if cell.shape == "GLM-5.1 TP=8"]
    assert _broken(claims_of(cells)) == []
    rows = tuple(
        msgspec.structs.replace(row, **change)
        if (row.arm, row.mode) == ("series", "replay")
        else row
        for row in cells[3].rows
    )
    cells[3] = msgspec.structs.replace(cells[3], rows=rows)
    found = _broken(claims_of(cells))
    assert found[0].startswith(broken)


def test_few_rows_keep_the_gemm_that_quantizes_by_itself() -> None:
    """GLM's q_b at TP=4 and M <= 32: the release and the series run it, the guard alone
    takes it away."""
    cells = [cell for cell in _bench().cells if cell.shape == "GLM-5.1 TP=4"]
    assert [(cell.m, cell.small_m) for cell in cells if cell.m <= 64] == [
        (1, 1),
        (4, 1),
        (16, 1),
        (64, 0),
    ]
    few = cells[0]
    assert [
        (row.norms, row.quantizations) for row in few.rows if row.mode == "replay"
    ] == [(2, 3), (0, 4), (1, 2)]
