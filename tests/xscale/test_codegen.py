"""What the transposed scale costs on gfx950, compiled here from AITER's real kernels.

The compiler runs in separate processes: Triton does not compile if it was imported as
an interpreter, and its settings are per process.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from support.patience import PATIENCE_S

pytest.importorskip("torch", reason="AITER's wrappers need PyTorch")
triton: Any = pytest.importorskip("triton", reason="it compiles the kernels")
backends: Any = importlib.import_module("triton.backends")

pytestmark = pytest.mark.skipif(
    "amd" not in backends.backends, reason="this Triton has no AMD backend"
)

PAGE = "docs/evidence/codegen-gfx950.md"
DATA = "docs/evidence/codegen-gfx950.json"
OLD = Path("aiter/ops/triton/fused_fp8_quant.py")
KERNELS = "aiter/ops/triton/_triton_kernels"

Document = dict[str, Any]


@pytest.fixture(scope="module")
def made(checkouts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh page and JSON, written to a temporary folder."""
    root = tmp_path_factory.mktemp("codegen")
    before = set(checkouts.aiter.rglob("*"))
    done = codegen(checkouts.aiter, "--root", root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [PAGE, DATA]
    assert set(checkouts.aiter.rglob("*")) == before, "AITER's tree was written to"
    return root


@pytest.fixture(scope="module")
def fresh(made: Path) -> Document:
    return load(made)


@pytest.mark.slow("kernels are compiled for gfx950")
def test_the_evidence_matches_a_fresh_run(made: Path, fresh: Document) -> None:
    kept = load(ROOT)
    if kept["triton"] != triton.__version__:
        pytest.skip(f"made with Triton {kept['triton']}; here is {triton.__version__}")
    assert fresh == kept
    assert read(made / PAGE) == read(ROOT / PAGE)


@pytest.mark.slow("kernels are compiled for gfx950")
def test_every_producer_site_and_every_m_is_compiled(fresh: Document) -> None:
    sites = {site for row in fresh["rows"] for site in row["sites"].split()}
    assert sites == {f"S{i}" for i in range(1, 9)}
    seen = Counter((key(row), m) for row in fresh["rows"] for m in row["tokens"])
    assert set(seen.values()) == {1}
    assert len(seen) == 4 * (3 * 6 + 2)
    shapes = {tuple(row["shape"]) for row in fresh["rows"]}
    assert shapes == {(512,), (2048,), (6144,), (8, 256), (16, 128)}


@pytest.mark.slow("kernels are compiled for gfx950")
def test_the_transposed_form_has_no_real_cost(fresh: Document) -> None:
    """On any Triton; the exact figures are in the evidence."""
    for row in fresh["rows"]:
        old, new = row["row_major"], row["transposed"]
        for same in ("global_stores", "global_loads", "lds_bytes", "waves"):
            assert new[same] == old[same], row
        for none in ("vgpr_spills", "sgpr_spills", "scratch_bytes"):
            assert new[none] == old[none] == 0, row
        assert new["instructions"] <= old["instructions"] + 1, row
        assert new["vgprs"] <= old["vgprs"] + 1, row


@pytest.mark.slow("kernels are compiled for gfx950")
def test_figures_match_the_kernels(fresh: Document) -> None:
    """Loads and stores follow from the source: one for each tensor in or out."""
    for row in fresh["rows"]:
        form = row["form"]
        loads = 2 + ("residual" in form) + 2 * ("second input" in form)
        stores = 2 + len(form)
        if row["kernel"] == "fused_flatten_fp8_group_quant":
            loads, stores = 1, 2
        for code in (row["row_major"], row["transposed"]):
            assert (code["global_loads"], code["global_stores"]) == (loads, stores), row
            assert 100 < code["instructions"] < code["code_bytes"] / 4, row


@pytest.mark.slow("kernels are compiled for gfx950")
def test_the_two_layouts_share_no_binary(fresh: Document) -> None:
    """A stride of 1 is compiled in, and each layout has a different one."""
    for case in {key(row) for row in fresh["rows"]}:
        rows = [row for row in fresh["rows"] if key(row) == case]
        old = {row["row_major"]["binary"] for row in rows}
        new = {row["transposed"]["binary"] for row in rows}
        assert not old & new
        assert len(new) == 3, "M is 1, divisible by 16, or neither"


@pytest.mark.slow("kernels are compiled for gfx950")
def test_verdicts_match_the_figures(fresh: Document) -> None:
    for row in fresh["rows"]:
        old, new = row["row_major"], row["transposed"]
        changes = [
            f"{new[f] - old[f]:+d} {f.replace('_', ' ')}"
            for f in old
            if f != "binary" and new[f] != old[f]
        ]
        word, _, by = row["verdict"].partition(": ")
        assert by == ", ".join(changes)
        worse = [c for c in changes if c.startswith("-" if "waves" in c else "+")]
        assert word == ("more" if worse else "less" if changes else "same")
        traded = sum(row["instructions_traded"].values())
        assert traded == new["instructions"] - old["instructions"]


@pytest.mark.slow("kernels are compiled for gfx950")
def test_newer_aiter_keeps_its_kernels_elsewhere(
    checkouts: Any, tmp_path: Path
) -> None:
    """The same files are found where AITER moved them, and compile the same."""
    clone(checkouts.aiter, tmp_path)
    wrapper = tmp_path / OLD
    kernels = tmp_path / KERNELS / OLD.name
    text = read(wrapper).replace(
        "_triton_kernels.fused_fp8_quant", "_triton_kernels.quant.fused_fp8_quant"
    )
    for old, new in ((wrapper, text), (kernels, read(kernels))):
        place = old.parent / "quant" / old.name
        place.parent.mkdir()
        place.write_text(new, encoding="utf-8")
        old.unlink()
    user = kernels.parent / "activation.py"
    moved = read(user).replace("from .fused_fp8_quant", "from .quant.fused_fp8_quant")
    user.write_text(moved, encoding="utf-8")
    (kernels.parent / "quant.py").rename(kernels.parent / "quant" / "__init__.py")
    # Must not run, like the old packages' own.
    (wrapper.parent / "quant" / "__init__.py").write_text("import ROCm\n")
    assert figures(tmp_path) == figures(checkouts.aiter)


@pytest.mark.slow("kernels are compiled for gfx950")
def test_callers_settings_have_no_effect(checkouts: Any) -> None:
    loud = {"AMDGCN_USE_BUFFER_OPS": "0", "TRITON_DEFAULT_FP_FUSION": "0"}
    assert figures(checkouts.aiter, **loud) == figures(checkouts.aiter)


@pytest.mark.slow("kernels are compiled for gfx950")
def test_a_pristine_aiter_lacks_the_parameter(checkouts: Any) -> None:
    done = codegen(checkouts.pristine_aiter)
    assert done.returncode == 2
    assert "fused_flatten_fp8_group_quant" in done.stderr
    assert "no transpose_scale parameter: apply patches/aiter" in done.stderr


@pytest.mark.slow("kernels are compiled for gfx950")
@pytest.mark.parametrize(
    "name", ["fused_rms_fp8_group_quant", "_fused_rms_fp8_group_quant_kernel"]
)
def test_a_missing_kernel_is_named(checkouts: Any, tmp_path: Path, name: str) -> None:
    clone(checkouts.aiter, tmp_path)
    for path in (tmp_path / OLD, tmp_path / KERNELS / OLD.name):
        text = read(path)
        for before in (f"def {name}(", f"    {name},", f"    {name}["):
            text = text.replace(before, before.replace(name, f"{name}_renamed"))
        path.write_text(text, encoding="utf-8")
    done = codegen(tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path / OLD} has no kernel {name}" in done.stderr


@pytest.mark.slow("kernels are compiled for gfx950")
def test_a_folder_without_aiter_is_named(tmp_path: Path) -> None:
    done = codegen(tmp_path)
    assert done.returncode == 2
    assert (
        f"neither {tmp_path}/aiter/ops/triton/quant/fused_fp8_quant.py" in done.stderr
    )
    assert f"nor {tmp_path / OLD}" in done.stderr


@pytest.mark.slow("kernels are compiled for gfx950")
def test_an_aiter_that_cannot_be_imported_is_named(
    checkouts: Any, tmp_path: Path
) -> None:
    clone(checkouts.aiter, tmp_path)
    (tmp_path / OLD).write_text("import a_module_that_nobody_has\n", encoding="utf-8")
    done = codegen(tmp_path)
    assert done.returncode == 2
    assert f"aiter.ops.triton.fused_fp8_quant of {tmp_path}" in done.stderr
    assert "a_module_that_nobody_has" in done.stderr


@pytest.mark.slow("kernels are compiled for gfx950")
@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("sys.modules['triton'] = None", "this needs PyTorch and Triton"),
        ("sys.modules['torch'] = None", "this needs PyTorch and Triton"),
        (
            "from triton.backends import backends; del backends['amd']",
            "this Triton has no AMD backend",
        ),
        (
            "from triton.compiler import compiler; compiler.ASTSource.make_ir = None",
            "_fused_rms_fp8_group_quant_kernel does not compile",
        ),
        (
            "import os; os.environ['TRITON_INTERPRET'] = '1'; import triton",
            "unset TRITON_INTERPRET",
        ),
    ],
    ids=["no triton", "no torch", "no AMD backend", "no compiler", "interpreter"],
)
def test_an_environment_that_cannot_compile_says_so(
    checkouts: Any, first: str, said: str
) -> None:
    code = "from xscale.codegen.page import main; sys.exit(main(sys.argv[1:]))"
    done = python("-c", f"import sys; {first}; {code}", checkouts.aiter)
    assert done.returncode == 5, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# --- helpers ------------------------------------------------------------------------


def codegen(*arguments: object) -> subprocess.CompletedProcess[str]:
    return python("-m", "xscale.codegen", *arguments)


def figures(aiter: Path, **environment: str) -> str:
    """The figures of two cases; another process uses the module as a library."""
    code = (
        "import os, sys; from pathlib import Path; "
        "from xscale.codegen.compilation import CASES, compare; "
        "before = dict(os.environ); "
        "print(compare(Path(sys.argv[1]), (CASES[0], CASES[-1]))); "
        "assert dict(os.environ) == before"
    )
    done = python("-c", code, aiter, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": str(ROOT / "scripts"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=env | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert not (Path(env["HOME"]) / ".triton").exists(), "the cache is in HOME"
    return done


def clone(aiter: Path, place: Path) -> None:
    """Copy the part of AITER that the kernels need."""
    folder = Path("aiter/ops/triton")
    for part in ("utils", "_triton_kernels"):
        shutil.copytree(aiter / folder / part, place / folder / part)
    shutil.copy(aiter / OLD, place / OLD)


def load(root: Path) -> Document:
    document: Document = json.loads(read(root / DATA))
    return document


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def key(row: Document) -> tuple[str, ...]:
    return (row["kernel"], str(row["shape"]), *row["form"])
