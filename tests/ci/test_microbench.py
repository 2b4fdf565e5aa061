"""The workload, with AITER's real kernels and the pinned trees' code, interpreted.

A CPU shows everything except times: the copies of each design, that all designs give
the same bits, and that a broken design is detected.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.dom.minidom
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from conftest import ROOT, Pins, lay
from gatekit.microbench.arms import DESIGNS, Arm, trees_at
from gatekit.microbench.claims import BOUND, claims_of
from gatekit.microbench.page import page
from gatekit.microbench.plot import plot
from gatekit.microbench.results import Bench, Cell, Claim, Row, Time
from support.chain_programs import Slim, run_python
from support.patience import PATIENCE_S
from xscale.islands import BPRESHUFFLE_SCALE
from xscale.numeric.cases import DEEPSEEK_V3, GLM51, SMALL, TUNED_OUTPUT
from xscale.numeric.sources import Sources, aiter_sources, sglang_sources

pytestmark = pytest.mark.slow("kernels under Triton's interpreter")

_VERB = ROOT / "ci" / "microbench.py"


@pytest.fixture(scope="module")
def trees(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Slim:
    root = tmp_path_factory.mktemp("chain")
    for name, sources in (("sglang", sglang_sources), ("aiter", aiter_sources)):
        tree = pins.tree(name)
        paths = {path for path, _ in sources(tree).modules.values()}
        lay(tree, paths | set(pins.overlay[name].series.paths), root / name)
    return Slim(root / "sglang", root / "aiter")


@dataclass(frozen=True)
class Dry:
    """A dry run: what a person sees, and its files."""

    code: int
    text: str
    said: str
    out: Path

    @property
    def bench(self) -> Bench:
        figures = (self.out / "microbench-cpu.json").read_bytes()
        return msgspec.json.decode(figures, type=Bench)


@pytest.fixture(scope="module")
def dry(trees: Slim, kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Dry:
    out = tmp_path_factory.mktemp("dry")
    done = _run(*trees.options, "--dry-run", "--out", str(out))
    return Dry(done.returncode, done.stdout, done.stderr, out)


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    return run_python(str(_VERB), *options)


# --- the designs ------------------------------------------------------------------


# Per layer at M = 3, as the sites and the tree's table of tuned GEMMs have it: the
# second shape's o_proj goes to Triton, everything else to CK.
_COPIES = {
    SMALL.name: {Arm.PRISTINE: 4, Arm.PULL_REQUEST: 0},
    TUNED_OUTPUT.name: {Arm.PRISTINE: 3, Arm.PULL_REQUEST: 1},
}


def test_each_design_copies_what_it_is_known_to(dry: Dry) -> None:
    assert dry.code == 0, dry.said
    counted = {
        (cell.shape, cell.m): {Arm(row.arm): row.copies for row in cell.rows}
        for cell in dry.bench.cells
    }
    nothing = dict.fromkeys(DESIGNS, 0)
    assert counted == {
        **{(shape, 1): nothing for shape in _COPIES},
        **{(shape, 3): {**nothing, **some} for shape, some in _COPIES.items()},
    }


def test_all_designs_give_the_pins_bits(dry: Dry) -> None:
    assert [cell.differing for cell in dry.bench.cells] == [()] * 4


def test_a_cpu_run_has_no_times(dry: Dry) -> None:
    bench = dry.bench
    assert bench.ran_with["device"] == "cpu, Triton's interpreter"
    assert "Triton" in bench.gemm
    assert not any(row.time for cell in bench.cells for row in cell.rows)
    assert not any("replay" in row.mode for cell in bench.cells for row in cell.rows)
    assert not list(dry.out.glob("*.svg"))
    text = (dry.out / "microbench-cpu.md").read_text(encoding="utf-8")
    assert "microseconds" not in text
    assert "| 3 | 4 | 0 | 0 | 0 | 0 |" in text


def test_what_a_person_sees(dry: Dry) -> None:
    lines = dry.text.splitlines()
    assert lines[:2] == [
        "SGLang    sglang 0.5.11",
        "AITER     amd-aiter 0.1.7.post2.dev18, with the series",
    ]
    rows = [line.split() for line in lines if line.startswith("small ")]
    assert ["small", "3", "eager", "pristine", "4", "-", "-", "-", "-"] in rows
    assert len(rows) == 2 * len(DESIGNS)
    claims = [line.split()[0] for line in lines if line.endswith("  yes")]
    assert claims == ["control", "control", "claim", "claim"]
    assert lines[-1] == "4 of 4 claims hold"
    assert "small, M=1: kernels and values" in dry.said


def test_traces_hold_the_modules_and_no_path_of_this_machine(dry: Dry) -> None:
    rows = [row for cell in dry.bench.cells for row in cell.rows]
    assert len(rows) == 4 * len(DESIGNS)
    for row in rows:
        assert row.trace.endswith("-TP-0-DECODE.trace.json.gz")
        text = gzip.decompress((dry.out / row.trace).read_bytes()).decode()
        names = [event.get("name", "") for event in json.loads(text)["traceEvents"]]
        called = [n for n in names if n.startswith("nn.Module: DeepseekV2AttentionMLA")]
        assert len(called) == row.attentions == row.traced == 4
        assert not re.search(r'"/\w[^"]*\.py', text)
        for path in (ROOT, dry.out, Path.home(), Path(sys.prefix)):
            assert str(path) not in text


def test_patched_and_pristine_trees_give_the_same_arms(
    trees: Slim, tmp_path: Path
) -> None:
    arms = trees_at(trees.sglang, trees.aiter).arms
    patched = _tree_of(arms[Arm.SERIES], tmp_path / "patched")
    again = trees_at(patched, trees.aiter).arms
    for arm in DESIGNS:
        assert again[arm].modules == arms[arm].modules
    texts = {arm: arms[arm].modules.get(BPRESHUFFLE_SCALE) for arm in DESIGNS}
    assert texts.pop(Arm.PRISTINE) is None
    assert len(set(texts.values())) == len(DESIGNS) - 1


def test_the_pull_requests_own_code_replaces_its_design(
    trees: Slim, tmp_path: Path
) -> None:
    usual = trees_at(trees.sglang, trees.aiter)
    own = _tree_of(usual.arms[Arm.SERIES], tmp_path / "own")
    changed = own / usual.arms[Arm.SERIES].modules[BPRESHUFFLE_SCALE][0]
    changed.write_text(changed.read_text() + "# another version")
    given = trees_at(trees.sglang, trees.aiter, own)
    modules = given.arms[Arm.PULL_REQUEST].modules
    assert modules[BPRESHUFFLE_SCALE][1] == changed.read_bytes()
    for arm in {*DESIGNS} - {Arm.PULL_REQUEST}:
        assert given.arms[arm].modules == usual.arms[arm].modules
    about = {**usual.about, Arm.PULL_REQUEST.value: given.about["pull-request"]}
    assert given.about == about
    assert about != usual.about


def _tree_of(sources: Sources, root: Path) -> Path:
    for path, data in sources.modules.values():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return root


# --- broken designs ------------------------------------------------------------

_BROKEN = """
import os, sys
os.environ["TRITON_INTERPRET"] = "1"
sys.path[:0] = [{ci!r}, {scripts!r}]
from dataclasses import replace
from pathlib import Path
from gatekit.microbench.arms import DESIGNS, Arm, trees_at
from gatekit.microbench.bench import Plan, Workload
from xscale.islands import BPRESHUFFLE_SCALE
from xscale.numeric.cases import SMALL

trees = trees_at(Path({sglang!r}), Path({aiter!r}))
series = trees.arms[Arm.SERIES]
path, data = series.modules[BPRESHUFFLE_SCALE]
assert data.count({old!r}) == 1
module = {{BPRESHUFFLE_SCALE: (path, data.replace({old!r}, {new!r}))}}
broken = replace(series, modules={{**series.modules, **module}})
trees = replace(trees, arms={{**trees.arms, Arm.SERIES: broken}})
plan = Plan("cpu", (SMALL,), (3,), 2)
for cell in Workload(trees, plan).cells(Path({out!r}), lambda _: None):
    print(cell.differing, [r.copies for r in cell.rows if r.arm == "series"])
"""


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        (
            b"quant(*args, transpose_scale=True, **kwargs)",
            b"quant(*args, **kwargs)",
            "('series, eager',) [0.0]",
        ),
        (
            b"for_ck = kept[0]\n",
            b"for_ck = kept[0].clone()\n",
            "() [4.0]",
        ),
    ],
    ids=["row-major bytes", "a copy"],
)
def test_a_broken_design_is_detected(
    trees: Slim,
    kernels: None,
    tmp_path: Path,
    old: bytes,
    new: bytes,
    seen: str,
) -> None:
    done = trees.run(_BROKEN, tmp_path, old=old, new=new)
    assert done.stdout.strip() == seen, done.stderr


def test_own_code_that_raises_is_named(
    trees: Slim, kernels: None, tmp_path: Path
) -> None:
    series = trees_at(trees.sglang, trees.aiter).arms[Arm.SERIES]
    own = _tree_of(series, tmp_path / "own")
    path = series.modules[BPRESHUFFLE_SCALE][0]
    text = (own / path).read_text()
    line = "    for_ck = scale if scale.is_contiguous()"
    assert text.count(line) == 1
    text = text.replace(line, "    scale = scale.view(-1, 7)\n" + line)
    (own / path).write_text(text)
    options = ("--dry-run", "--json", "--pull-request", str(own))
    done = _run(*trees.options, *options, "--out", str(tmp_path / "out"))
    assert done.returncode == 2, done.stderr
    [finding] = json.loads(done.stdout)["findings"]
    assert finding["what"].startswith("pull-request raises RuntimeError at small, M=1")
    assert finding["path"] == path
    assert "scale.view(-1, 7)" in text.splitlines()[finding["line"] - 1]


def _timed(cells: Iterable[Cell], share: Callable[[Arm, int], float]) -> list[Cell]:
    """The dry run's cells with a GPU's kernels, and times as shares of 100 us."""

    def row(cell: Cell, old: Row, mode: str) -> Row:
        took = share(Arm(old.arm), cell.m)
        least = share(Arm.BOUND, cell.m)
        return msgspec.structs.replace(
            old,
            mode=mode,
            quantizations=3.0,
            gemms=4.0,
            attentions=old.attentions if mode == "eager" else 0,
            time=Time(100 * took, 99 * took, took, took / least),
        )

    names = {SMALL.name: GLM51.name, TUNED_OUTPUT.name: DEEPSEEK_V3.name}
    return [
        msgspec.structs.replace(
            cell,
            shape=names[cell.shape],
            noise=0.001,
            rows=tuple(row(cell, r, m) for m in ("eager", "replay") for r in cell.rows),
        )
        for cell in cells
    ]


def _good(arm: Arm, m: int) -> float:
    return 0.9 if m > 1 and arm is not Arm.PRISTINE else 1.0


def _broken(claims: Iterable[Claim]) -> list[str]:
    return [claim.what for claim in claims if not claim.holds]


def test_claims_hold_for_good_figures(dry: Dry) -> None:
    claims = claims_of(_timed(dry.bench.cells, _good))
    assert _broken(claims) == []
    assert len(claims) == 10


@pytest.mark.parametrize(
    ("share", "broken"),
    [
        (
            lambda arm, m: _good(arm, m) * (BOUND + 0.001 if arm is Arm.SERIES else 1),
            [
                "replayed, this series takes at most 1.03 of the bound's time",
                "replayed, this series is no slower than the pin at M = 1",
                "replayed, this series is no slower than the pin on DeepSeek-V3's "
                "shapes",
            ],
        ),
        (
            lambda arm, m: 1.0,
            ["replayed, this series is faster than the pin at every M >= 2"],
        ),
    ],
    ids=["slow", "no faster"],
)
def test_claims_fail_for_bad_times(
    dry: Dry, share: Callable[[Arm, int], float], broken: list[str]
) -> None:
    assert _broken(claims_of(_timed(dry.bench.cells, share))) == broken


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"copies": 1.0}, "this series copies nothing"),
        ({"gemms": 3.0}, "a layer has 3 quantizations, 4 GEMMs and nothing else but"),
        ({"others": 1.0}, "a layer has 3 quantizations, 4 GEMMs and nothing else but"),
        ({"attentions": 1}, "the profiler saw every call of the attention module"),
    ],
)
def test_claims_fail_for_bad_counts(
    dry: Dry, change: dict[str, float], broken: str
) -> None:
    cells = _timed(dry.bench.cells, _good)
    rows = tuple(
        msgspec.structs.replace(row, **change)
        if (row.arm, row.mode) == ("series", "replay")
        else row
        for row in cells[1].rows
    )
    cells[1] = msgspec.structs.replace(cells[1], rows=rows)
    (found,) = _broken(claims_of(cells))
    assert found.startswith(broken)


def test_page_and_plot_of_times(dry: Dry) -> None:
    cells = _timed(dry.bench.cells, _good)
    bench = msgspec.structs.replace(
        dry.bench, cells=tuple(cells), claims=claims_of(cells), rounds=200
    )
    drawn = plot(cells, "a <GPU>")
    assert len(xml.dom.minidom.parseString(drawn).getElementsByTagName("g")) == 4
    text = page(bench, "x.svg")
    assert "| 90.0 (89.1) 0.900 |" in text
    assert "(x.svg)" in text


@pytest.mark.parametrize("name", ["microbench-h200", "microbench-pull-request-h200"])
def test_the_committed_page_matches_its_figures(name: str) -> None:
    """The claims also follow from the figures, and hold."""
    stem = ROOT / "docs" / "evidence" / name
    figures = stem.with_suffix(".json").read_bytes()
    bench = msgspec.json.decode(figures, type=Bench)
    assert bench.claims == claims_of(bench.cells)
    assert _broken(bench.claims) == []
    committed = stem.with_suffix(".md").read_text(encoding="utf-8")
    assert page(bench, f"{stem.name}.svg") == committed
    drawn = stem.with_suffix(".svg").read_text(encoding="utf-8")
    assert plot(bench.cells, bench.ran_with["device"]) == drawn


# --- the verb ---------------------------------------------------------------------


def test_without_a_gpu_there_is_no_result(
    trees: Slim, kernels: None, tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = _run(*trees.options, "--out", str(tmp_path / "out"))
    assert done.returncode == 5
    assert "torch.cuda.is_available() is False" in done.stderr
    assert "--dry-run" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [("--layers", "1"), ("--rounds", "0"), ("--sglang", "nowhere")]
)
def test_bad_input(trees: Slim, tmp_path: Path, options: tuple[str, str]) -> None:
    done = _run(*trees.options, "--out", str(tmp_path), *options)
    assert done.returncode == 2, done.stderr


def test_an_interrupted_run_cleans_up(
    trees: Slim, kernels: None, tmp_path: Path
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, _VERB, *trees.options, "--dry-run", "--out", tmp_path / "out"],
        env=os.environ | {"TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "kernels and values" in line:
            break
    assert list(scratch.iterdir())
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert list(scratch.iterdir()) == []
