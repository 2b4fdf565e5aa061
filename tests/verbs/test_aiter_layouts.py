"""An AITER whose modules moved: it is recognized, and no next step is given that would
fail.

The trees contain the pinned package's files, moved and edited as in later releases.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Pins, run_verb, snapshot
from overlaykit.trees.tree import EditedTree
from support.layouts import layouts_of
from xscale.kernels import take_kernels
from xscale.numeric.layout import ScaleLayout
from xscale.numeric.layout_probe import probe_layouts
from xscale.sites import FIRST_WITH_FLATTEN, FLATTEN, RMS

OLD = "aiter/ops/triton/fused_fp8_quant.py"
NEW = "aiter/ops/triton/quant/fused_fp8_quant.py"
ARCH = """\
import triton
try:
    _CACHED_ARCH = triton.runtime.driver.active.get_current_target().arch
except RuntimeError:
    from jax._src.lib import gpu_triton as triton_kernel_call_lib
    _CACHED_ARCH = triton_kernel_call_lib.get_arch_details("0").split(":")[0]
"""


@pytest.fixture
def moved(slim: Callable[..., Path]) -> Path:
    root = slim("aiter", "aiter clone", clone=False)
    (root / NEW).parent.mkdir(exist_ok=True)
    (root / OLD).rename(root / NEW)
    (root / "aiter/_version.py").write_text("__version__ = version = '0.1.13'\n")
    return root


def test_apply_names_the_release_and_where_its_files_moved(moved: Path) -> None:
    before = snapshot(moved)
    done = run_verb("apply", "--json", str(moved))

    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 3
    assert snapshot(moved) == before
    said = json.dumps(report["findings"])
    what = (
        "is aiter 0.1.13, whose files are not where any base of this overlay has them"
    )
    assert what in said
    assert f"{OLD} is missing; files with its name: {NEW}" in said
    assert f"this AITER's {FLATTEN} has no parameter transpose_scale" in said
    assert f"install AITER {FIRST_WITH_FLATTEN} or newer" in said
    hunks = report["results"][0]["hunks"]
    assert {hunk["state"] for hunk in hunks} == {"renamed"}


def test_an_aiter_that_has_the_change_needs_nothing(
    moved: Path, slim: Callable[..., Path], pins: Pins
) -> None:
    (moved / NEW).write_bytes(pins.patched("aiter").read(OLD) or b"")
    before, sglang = snapshot(moved), slim()
    has = f"upstream has the change: {FLATTEN} at {NEW}:"
    verbs = (
        ("apply", "--dry-run"), ("apply",), ("apply", "--status"), ("verify",),
        ("apply", "--unapply"), ("apply", "--commit"),
    )  # fmt: skip
    for verb in verbs:
        done = run_verb(*verb, "--json", str(sglang), str(moved))
        assert done.returncode == 0, done.stdout
        ours, theirs = json.loads(done.stdout)["results"]
        assert (ours["target"], ours["outcome"] != "upstreamed") == ("sglang", True)
        assert (theirs["target"], theirs["outcome"]) == ("aiter", "upstreamed")
        assert theirs["notes"][0].startswith(has)
        assert "returns its scale honest; nothing to apply" in theirs["notes"][0]
    assert snapshot(moved) == before
    done = run_verb("verify", str(sglang), str(moved))
    assert "aiter: upstreamed" in done.stdout and done.stdout.endswith("holds\n")


def test_a_scale_in_another_layout_is_not_the_change(moved: Path, pins: Pins) -> None:
    source = pins.patched("aiter").read(OLD) or b""
    marked = b"if transpose_scale:"
    assert marked in source
    (moved / NEW).write_bytes(source.replace(marked, b"if False:"))
    assert run_verb("apply", str(moved)).returncode == 3


def test_the_change_in_other_lines_where_a_base_has_the_file(
    slim: Callable[..., Path], pins: Pins
) -> None:
    tree = slim("aiter", "aiter clone", clone=False)
    source = pins.patched("aiter").read(OLD) or b""
    for old, new in (
        (b"    transpose_scale: bool = False,\n):", b"    transpose_scale=False,\n):"),
        (b"    - transpose_scale: Store out_block_scales", b"    - about"),
        (b"        # The kernel stores through", b"        # It stores through"),
    ):
        assert source.count(old) == 1
        source = source.replace(old, new)
    (tree / OLD).write_bytes(source)
    done = run_verb("apply", str(tree))
    assert (done.returncode, "aiter: upstreamed" in done.stdout) == (0, True)


def test_a_base_with_edits_is_not_upstreams(slim: Callable[..., Path]) -> None:
    """Its own series is in place, so the parameter is ours."""
    tree = slim("aiter", "aiter clone", clone=False)
    assert run_verb("apply", str(tree)).returncode == 0
    (tree / OLD).write_bytes((tree / OLD).read_bytes() + b"# mine\n")
    for verb in (("apply",), ("apply", "--status"), ("verify",)):
        done = run_verb(*verb, "--json", str(tree))
        assert done.returncode in (1, 3)
        assert "upstreamed" not in json.loads(done.stdout)["results"][0]["outcome"]


def test_status_reports_another_release(moved: Path) -> None:
    done = run_verb("apply", "--status", str(moved))
    assert done.returncode == 3
    assert "whose files are not where any base of this overlay has them" in done.stderr


def test_doctor_does_not_advise_an_apply_that_refuses(
    moved: Path, slim: Callable[..., Path], pins: Pins, kernels: None
) -> None:
    for path in pins.tree("aiter").paths():
        if path.startswith("aiter/ops/triton/") and path.endswith(".py"):
            (moved / path).parent.mkdir(parents=True, exist_ok=True)
            (moved / path).write_bytes(pins.tree("aiter").read(path) or b"")
    (moved / OLD).unlink()
    done = run_verb(
        *("doctor", "--json", "--device", "cpu", "--sglang", str(slim())),
        *("--aiter", str(moved)),
    )
    report = json.loads(done.stdout)
    steps = {f["site"]: f["next_step"] for f in report["findings"] if f.get("site")}
    assert f"install AITER {FIRST_WITH_FLATTEN} or newer" in steps["S8"]
    assert "apply.py" not in steps["S8"]


def _importing(pins: Pins, text: str) -> EditedTree:
    """The patched AITER, moved, with a module that imports something."""
    source = pins.patched("aiter").read(OLD) or b""
    first = b"from aiter.ops.triton.utils.arch import *\n"
    arch = "aiter/ops/triton/utils/arch.py"
    return EditedTree(
        pins.tree("aiter"), {OLD: None, NEW: first + source, arch: text.encode()}
    )


@pytest.mark.skipif(
    importlib.util.find_spec("jax") is not None, reason="JAX is installed here"
)
def test_a_stand_in_for_jax_is_named(pins: Pins, kernels: None) -> None:
    rms, flatten = probe_layouts(_importing(pins, ARCH), "cpu")

    assert rms.layout is ScaleLayout.LYING
    assert flatten.layout is ScaleLayout.HONEST
    assert "stand-ins for jax" in rms.detail and "stand-ins for jax" in flatten.detail


def test_no_stand_in_is_named_if_none_is_used(pins: Pins, kernels: None) -> None:
    [(rms, _)] = layouts_of(_importing(pins, "import json\n"))
    assert rms.layout is ScaleLayout.LYING
    assert "stand-in" not in rms.detail


@pytest.mark.skipif(
    importlib.util.find_spec("jax") is not None, reason="JAX is installed here"
)
def test_other_imports_get_no_stand_in(pins: Pins, kernels: None) -> None:
    texts = (
        "import jax.numpy\n",
        "from jax._src.lib import something_else\n",
        "import not_installed_anywhere\n",
    )
    found = layouts_of(*(_importing(pins, text) for text in texts))
    for text, layouts in zip(texts, found, strict=True):
        for one in layouts:
            assert one.layout is ScaleLayout.NOT_RUN, text
            assert "Error" in one.detail, text


def test_a_stand_in_never_replaces_a_real_package(tmp_path: Path) -> None:
    """In a separate process: first without ``packaging``, then with a real one."""
    program = """
import sys
from xscale.numeric.stand_ins import stand_ins
with stand_ins() as used:
    from packaging.version import Version
    print(Version("3.10.0") > Version("3.6"), Version("3.6.0") == Version("3.6"))
print(sorted(used), "packaging" in sys.modules)
"""
    real = tmp_path / "packaging"
    real.mkdir()
    (real / "__init__.py").write_text("")
    (real / "version.py").write_text("Version = str\n")

    def ran(*path: Path) -> str:
        lines = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n" + program
        command = [sys.executable, "-S", "-c", lines]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(ROOT / "scripts")},
        )
        return done.stdout

    assert ran() == "True True\n['packaging'] False\n"
    real_version = ran(tmp_path).splitlines()[-1]
    assert real_version == "[] True"


def test_the_source_alone_gives_the_layouts(pins: Pins) -> None:
    found: dict[str, Any] = {
        row.kernel: row.layout
        for row in take_kernels(_importing(pins, "import json\n"))
    }
    assert found == {RMS: "lying", FLATTEN: "honest"}
