"""doctor runs AITER's producers, reads the tree, and reports nothing it cannot know."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Checkouts, Pins, run_verb, valid_report
from overlaykit.applying.targets import find_targets
from overlaykit.trees.tree import EditedTree
from xscale.aiter_tree import aiter_at
from xscale.doctor.adoption import format_at, liveness, run_conditions
from xscale.doctor.answers import SITES, Answer, Condition
from xscale.doctor.machine import environment_conditions, machine_conditions
from xscale.doctor.producers import producer_conditions
from xscale.numeric.formats import NATIVE_BLOCK_FP8
from xscale.numeric.layout import ProducerLayout, ScaleLayout
from xscale.numeric.layout_probe import probe_layouts
from xscale.numeric.sources import SWITCH
from xscale.sites import FLATTEN, RMS

KERNELS = "aiter/ops/triton/fused_fp8_quant.py"
REACHES = "the tree's own code reaches the kernel"
MI355X = {"torch": "2.9", "hip": "7.2.26015-fc0010cf6a", "arch": "gfx950", "gpu": "MI"}


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SGLANG_USE_AITER", SWITCH):
        monkeypatch.delenv(name, raising=False)


def examined(*arguments: str | Path) -> dict[str, Any]:
    """The report of a run; it must match the schema of all reports."""
    done = run_verb("doctor", "--json", "--device", "cpu", *map(str, arguments))
    report = valid_report(done.stdout)
    assert (report["verb"], report["exit_code"]) == ("doctor", done.returncode)
    assert all(finding["next_step"] for finding in report["findings"])
    return report


def returned(report: dict[str, Any]) -> dict[str, str]:
    _, kernels, _ = report["results"]
    return {row["kernel"]: row["presentation"] for row in kernels["producers"]}


def test_the_whole_series_on_a_machine_without_an_amd_gpu(
    checkouts: Checkouts,
    kernels: None,
    unset: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    if torch.version.hip:
        pytest.skip("this machine has ROCm")
    monkeypatch.setenv("SGLANG_USE_AITER", "1")
    report = examined("--sglang", checkouts.sglang, "--aiter", checkouts.aiter)
    machine, aiter, sglang = report["results"]
    assert report["exit_code"] == 1
    assert returned(report) == {RMS: "lying", FLATTEN: "honest"}
    assert aiter["version"] == "0.1.7.post2.dev18"
    assert sglang["standing"] == "applied"
    assert {row["state"] for row in sglang["sites"]} == {"transposed and marked"}
    assert [row["site"] for row in sglang["sites"]] == [f"S{n}" for n in range(1, 9)]
    lacking = {"the GPU is a gfx95", "ROCm is 7.2 or newer"}
    for row in sglang["sites"]:
        assert (row["live"], set(row["lacks"])) == ("no", lacking)
        assert ("graph capture" in row["note"]) == (row["site"] in ("S3", "S4"))
    assert len(report["findings"]) == len(lacking)
    assert machine["arch"] == "not found"
    assert machine["not_run"]
    assert all(fact.endswith("not run") for fact in machine["not_run"])


def test_an_aiter_whose_flatten_has_no_parameter(
    checkouts: Checkouts, kernels: None, unset: None, slim: Any
) -> None:
    """On a pristine SGLang, which gives one finding for all sites together."""
    aiter = checkouts.pristine_aiter
    report = examined("--sglang", slim(), "--aiter", aiter)
    assert returned(report) == {RMS: "lying", FLATTEN: "no parameter"}
    steps = {finding["site"]: finding["next_step"] for finding in report["findings"]}
    assert f"scripts/apply.py {aiter}" in steps["S8"]
    assert report["results"][2]["standing"] == "pristine"
    assert "scripts/apply.py" in report["findings"][0]["next_step"]
    used = [f for f in report["findings"] if "SGLANG_USE_AITER" in f["what"]]
    assert len(used) == 1


@pytest.mark.skipif(
    importlib.util.find_spec("aiter") is not None, reason="AITER is installed here"
)
def test_no_aiter(
    checkouts: Checkouts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever PyTorch there is: none, which is looked for at once."""
    (tmp_path / "torch.py").write_text("raise ImportError('none')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = examined("--sglang", checkouts.sglang)
    assert report["exit_code"] == 1
    assert set(returned(report).values()) == {"not run"}
    assert any("--aiter" in finding["next_step"] for finding in report["findings"])
    details = [row["detail"] for row in report["results"][1]["producers"]]
    assert all("AITER" in detail for detail in details)
    if importlib.util.find_spec("sglang") is None:
        report = examined()
        assert report["exit_code"] == 5
        assert [result["target"] for result in report["results"]] == ["machine"]


@pytest.mark.parametrize(
    "broken", ["raise ImportError('none')", "import os; os._exit(9)"]
)
def test_a_torch_that_cannot_be_imported(
    checkouts: Checkouts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    (tmp_path / "torch.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = examined("--aiter", checkouts.aiter)
    machine = report["results"][0]
    assert report["exit_code"] == 1
    assert machine["torch"] == ("not known" if "_exit" in broken else "not found")
    assert machine["notes"]
    assert set(returned(report).values()) == {"not run"}


def test_a_torch_without_float8(
    checkouts: Checkouts,
    kernels: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Its producers cannot be run, and the reason is reported."""
    take = "import torch\ndel torch.float8_e4m3fn, torch.float8_e4m3fnuz\n"
    (tmp_path / "sitecustomize.py").write_text(take)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = examined("--aiter", checkouts.aiter)
    assert report["exit_code"] == 1
    assert set(returned(report).values()) == {"not run"}
    details = [row["detail"] for row in report["results"][1]["producers"]]
    assert all("float8" in detail for detail in details)


@pytest.mark.parametrize("option", ["--sglang", "--aiter"])
def test_bad_paths(option: str, tmp_path: Path) -> None:
    assert examined(option, tmp_path)["exit_code"] == 2
    report = examined(option, tmp_path / "nowhere")
    assert report["exit_code"] == 2
    assert "nowhere" in report["message"]


def test_a_producer_that_ignores_the_flag(pins: Pins, kernels: None) -> None:
    """As upstream had one: the signature has the flag and the bytes ignore it."""
    tree = pins.patched("aiter")
    ignoring = f"""

_honouring = {FLATTEN}


def {FLATTEN}(x, group_size, dtype_quant=fp8_dtype, transpose_scale=False):
    return _honouring(x, group_size, dtype_quant)
"""
    edited = EditedTree(
        tree, {KERNELS: (tree.read(KERNELS) or b"") + ignoring.encode()}
    )
    rms, flatten = probe_layouts(edited, "cpu")
    assert rms.layout is ScaleLayout.LYING
    assert flatten.layout is ScaleLayout.IGNORED
    [condition] = producer_conditions([flatten], None)
    assert (condition.sites, condition.holds) == (("S8",), Answer.NO)


def test_an_aiter_without_the_producers(pins: Pins) -> None:
    hidden = EditedTree(pins.tree("aiter"), {KERNELS: b""})
    for one in probe_layouts(hidden, "cpu"):
        assert one.layout is ScaleLayout.NOT_RUN
        assert FLATTEN in one.detail


def answers(conditions: list[Condition]) -> list[Answer]:
    assert all(bool(c.findings) == (c.holds is not Answer.YES) for c in conditions)
    return [condition.holds for condition in conditions]


def test_the_machine_conditions() -> None:
    yes, no, unknown = Answer
    assert answers(machine_conditions(MI355X)) == [yes, yes]
    assert answers(machine_conditions(MI355X | {"hip": "7.0.51831"})) == [yes, no]
    assert answers(machine_conditions(MI355X | {"hip": "10.0"})) == [yes, yes]
    assert answers(machine_conditions(MI355X | {"arch": "gfx942"})) == [no, yes]
    assert answers(machine_conditions({})) == [unknown, unknown]


def test_the_environment_conditions() -> None:
    yes, no, _ = Answer
    on = {"SGLANG_USE_AITER": "True"}
    assert answers(environment_conditions(on)) == [yes, yes]
    assert answers(environment_conditions({})) == [no, yes]
    for value, holds in (("check", yes), ("1", yes), ("0", no), ("yes", no), ("", no)):
        assert answers(environment_conditions(on | {SWITCH: value})) == [yes, holds]


def test_not_run_never_counts_as_live() -> None:
    good = [*machine_conditions(MI355X), *environment_conditions({})[1:]]
    assert liveness("S8", None, good).live is Answer.YES
    for layout, live in (
        (ScaleLayout.HONEST, Answer.YES),
        (ScaleLayout.NOT_RUN, Answer.NOT_RUN),
        (ScaleLayout.OTHER, Answer.NO),
    ):
        flatten = producer_conditions([ProducerLayout(FLATTEN, layout)], None)
        assert liveness("S8", None, [*good, *flatten]).live is live
        assert liveness("S1", None, [*good, *flatten]).live is Answer.YES


@pytest.mark.parametrize(
    ("config", "holds", "said"),
    [
        ({"quantization_config": NATIVE_BLOCK_FP8.config}, "yes", "native block FP8"),
        (
            {"text_config": {"quantization_config": NATIVE_BLOCK_FP8.config}},
            "yes",
            "native block FP8",
        ),
        ({"quantization_config": {"quant_method": "theirs"}}, "not run", "'theirs'"),
        ({"model_type": "deepseek_v3"}, "no", "no quantization_config"),
    ],
    ids=["native", "nested", "unknown", "not quantized"],
)
def test_the_checkpoint_at_hand(
    checkouts: Checkouts,
    pins: Pins,
    kernels: None,
    tmp_path: Path,
    config: dict[str, Any],
    holds: str,
    said: str,
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    [sglang] = find_targets([checkouts.sglang], pins.overlay)
    aiter = aiter_at(checkouts.aiter)
    conditions = run_conditions(sglang, aiter, format_at(tmp_path), tmp_path)
    [found] = [one for one in conditions if one.what.startswith(REACHES)]
    assert (found.holds.value, len(found.sites)) == (holds, 8)
    assert said in found.what + found.found
    # The lack is a site's own.
    for site in SITES:
        lacking = liveness(site, None, conditions).lacks
        assert (found.what in lacking) is (holds != "yes")


def test_a_named_checkpoint_decides(
    checkouts: Checkouts, kernels: None, tmp_path: Path
) -> None:
    """In a whole report."""
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v3"}')
    given = ("--sglang", checkouts.sglang, "--aiter", checkouts.aiter)
    sglang = examined(*given, "--model", tmp_path)["results"][2]
    [found] = [one for one in sglang["conditions"] if one["what"].startswith(REACHES)]
    assert (found["holds"], len(found["sites"])) == ("no", 8)
    assert "no quantization_config" in found["found"]
    assert all(found["what"] in site["lacks"] for site in sglang["sites"])


@pytest.mark.parametrize("text", [None, "not JSON"])
def test_not_a_checkpoint(
    checkouts: Checkouts, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    given = ("--sglang", checkouts.sglang, "--aiter", checkouts.aiter)
    report = examined(*given, "--model", tmp_path)
    assert report["exit_code"] == 2
    [finding] = report["findings"]
    assert finding["path"] == str(tmp_path / "config.json")
