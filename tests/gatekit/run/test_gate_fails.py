"""The gate fails on broken series, in the right stage and for the right reason.

Each series is a copy of this repository with one edit that a maintainer could make, and
a regenerated lock, so that only the gate's stages can find the fault.
"""

from __future__ import annotations

import difflib
import json
import subprocess
from pathlib import Path

import pytest

from conftest import Pins
from overlaykit.core.objects import blob_id
from support.gate_runs import REBUILD, SCRIPTED, Copy, Ended, gsm8k, profile, served

pytestmark = pytest.mark.slow("the gate runs whole, on a real model")

OVERLAY = "overlay/sglang/python/sglang/srt/layers/quantization/bpreshuffle_scale.py"
FP8_UTILS = "python/sglang/srt/layers/quantization/fp8_utils.py"
MODULE = "sglang.srt.layers.quantization.bpreshuffle_scale"
ELSEWHERE = "apply_fp8_linear"
PATCHES = "patches/sglang"
NUMERIC = "[numeric]\njobs = 1"
STAGES = ("apply", "verify", "numeric", "rebuild", "chain", "gsm8k", "traces", "bench")


def check(ended: Ended, stage: str, *said: str) -> None:
    """The stage failed for this reason, no later stage ran, and all is reported."""
    assert ended.code == 1, ended.all_output
    states = ended.states
    assert tuple(states) == STAGES
    assert states[stage] == "fail"
    before = STAGES[: STAGES.index(stage)]
    assert {states[name] for name in before} <= {"pass", "not run"}
    assert {states[name] for name in STAGES[len(before) + 1 :]} == {"not run"}
    for part in said:
        assert part in ended.reason(stage)
    assert ended.report["message"].startswith("fail\n")
    document = ended.document
    assert document["verdict"] == "fail"
    assert any(stage in reason and said[0] in reason for reason in document["reasons"])
    for kind in ("md", "html"):
        text = (ended.out / f"report.{kind}").read_text(encoding="utf-8")
        assert "fail" in text.lower() and stage in text


def test_wrong_bytes_at_one_site(broken: Copy, kernels: None, tmp_path: Path) -> None:
    """o_proj's scale has the mark and the right strides, but row-major bytes."""
    broken.edit(
        OVERLAY,
        "outputs = quant(*args, transpose_scale=True, **kwargs)",
        'there = "flatten" not in quant.__name__\n'
        "    outputs = quant(*args, transpose_scale=there, **kwargs)",
    )
    broken.lock()
    ended = broken.gate(profile(tmp_path, NUMERIC), tmp_path / "run")
    check(ended, "numeric", "S8", "reads a wrong scale")
    sites = {one["site"] for one in ended.report["findings"]}
    assert sites == {"S8"}


def test_extra_copy(broken: Copy, kernels: None, tmp_path: Path) -> None:
    """Every value is right, but each scale is copied once more."""
    broken.edit(
        OVERLAY,
        "    setattr(scale, _MARKER, True)",
        "    scale = scale.clone()\n    setattr(scale, _MARKER, True)",
    )
    broken.lock()
    ended = broken.gate(profile(tmp_path, NUMERIC), tmp_path / "run")
    check(ended, "numeric", "S1", "cop")


def test_missing_site(broken: Copy, tmp_path: Path) -> None:
    """The series without its last patch, as a rebase might lose it."""
    series = broken.root / PATCHES / "series"
    *kept, lost = series.read_text().splitlines()
    assert "o-proj" in lost
    series.write_text("\n".join(kept) + "\n")
    (broken.root / PATCHES / lost).unlink()
    broken.lock()
    ended = broken.gate(profile(tmp_path, NUMERIC), tmp_path / "run")
    check(ended, "verify", "S8", "forward_mla.py:")


def test_hunk_in_the_wrong_function(broken: Copy, pins: Pins, tmp_path: Path) -> None:
    """The consumer's edit, made in another function with the same line. The patch
    header names that function too, or ``lock.py`` would refuse."""
    patch = broken.root / PATCHES / "0001-fp8-consumer.patch"
    header = patch.read_text().partition("diff --git")[0]
    was = (pins.tree("sglang").read(FP8_UTILS) or b"").decode()
    place = was.index("            x_scale = input_scale\n")
    edited = was[:place] + was[place:].replace(
        "= input_scale", "= x_scale_for_gemm(input_scale, bpreshuffle=True)", 1
    )
    first, line = "import torch\n", f"from {MODULE} import x_scale_for_gemm\n"
    patch.write_text(header + diff(was, edited.replace(first, first + line, 1)))
    with pytest.raises(subprocess.CalledProcessError):
        broken.lock()
    name = f"patches/sglang/{patch.name}"
    broken.edit(name, "X-Sites: aiter_w8a8_block_fp8_linear:", f"X-Sites: {ELSEWHERE}:")
    broken.lock()
    ended = broken.gate(profile(tmp_path, NUMERIC), tmp_path / "run")
    check(ended, "verify", "fp8_utils.py:", "C (")
    (found,) = (f for f in ended.report["findings"] if f["site"] == "C")
    assert found["scope"] == "aiter_w8a8_block_fp8_linear"


def diff(was: str, now: str) -> str:
    """A diff in git's format, with full ids."""
    ids = "..".join(blob_id(text.encode()) for text in (was, now))
    head = f"diff --git a/{FP8_UTILS} b/{FP8_UTILS}\nindex {ids} 100755\n"
    names = (f"a/{FP8_UTILS}", f"b/{FP8_UTILS}")
    texts = (was.splitlines(keepends=True), now.splitlines(keepends=True))
    return head + "".join(difflib.unified_diff(*texts, *names))


def test_lock_edited_by_hand(broken: Copy, tmp_path: Path) -> None:
    """The edit would let a hunk land in another function."""
    broken.edit("overlay.lock", '"aiter_w8a8_block_fp8_linear"', f'"{ELSEWHERE}"')
    ended = broken.gate(profile(tmp_path, NUMERIC), tmp_path / "run")
    check(ended, "verify", "overlay.lock is stale")


def test_server_with_worse_answers(
    repository: Copy, out: Path, questions: Path, tmp_path: Path
) -> None:
    """Same model, same prompts; the patched arm answers twenty of forty wrong. The
    series is correct; only the served answers are not."""
    pytest.importorskip("sgl_eval", reason="pip install --group gate")
    words = ("--port", "{port}", "--arm", "{arm}", "--questions", questions)
    server = served(SCRIPTED, *words, "--folder", "{folder}", "--wrong", 20)
    ended = repository.gate(
        profile(tmp_path, REBUILD, server, gsm8k(questions, 40)), out
    )
    counts = "the baseline answers 40 of 40 correctly, and the patched arm 20 of 40"
    said = f"compare: the patched arm is worse: {counts} correctly"
    check(ended, "gsm8k", said, "the patch does no harm (p = 0.0000)")
    (compared,) = ended.document["stages"][5]["evidence"]["compare"]["results"]
    assert compared["compared"]["verdict"] == "fail", json.dumps(compared)
