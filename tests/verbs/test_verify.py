"""verify names each fault: the file, the scope, expected, found, the next step."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from conftest import Pins, run_verb
from support.bases import BASES, FIRST
from support.edits import edit

_MLA = (
    "python/sglang/srt/models/deepseek_common/attention_forward_methods/forward_mla.py"
)
_COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
_OVERLAY = "python/sglang/srt/layers/quantization/bpreshuffle_scale.py"


@pytest.fixture
def applied(slim: Callable[..., Path]) -> Path:
    root = slim()
    assert run_verb("apply", str(root)).returncode == 0
    return root


def _findings(root: Path) -> list[dict[str, str]]:
    done = run_verb("verify", "--json", str(root))
    assert done.returncode == 1, done.stderr
    findings: list[dict[str, str]] = json.loads(done.stdout)["findings"]
    assert all(f["next_step"] for f in findings)
    return findings


def test_an_untouched_tree_holds(applied: Path) -> None:
    done = run_verb("verify", "--json", str(applied))
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["message"] == "holds"
    [result] = report["results"]
    assert len(result["sites"]) == 9


@pytest.mark.parametrize(
    ("target", "clone"), [*product([*BASES, "aiter"], [True]), (FIRST, False)]
)
def test_an_unpatched_tree(target: str, clone: bool, slim: Callable[..., Path]) -> None:
    """One finding, whose next step is to apply; not one for each file and site."""
    root = slim(target, clone=clone)
    done = run_verb("verify", "--json", str(root))
    report = json.loads(done.stdout)
    assert (done.returncode, report["message"]) == (1, "1 finding")
    [finding] = report["findings"]
    assert finding["what"] == "is not applied"
    assert finding["path"] == str(root)
    assert finding["next_step"] == f"scripts/apply.py {root}"
    [result] = report["results"]
    assert result["outcome"] == "not applied"
    assert {hunk["state"] for hunk in result["hunks"]} == {"gone"}


def test_an_unpatched_tree_beside_one_that_holds(
    applied: Path, slim: Callable[..., Path]
) -> None:
    root = slim(name="other")
    both = json.loads(run_verb("verify", "--json", str(root), str(applied)).stdout)
    assert [f["path"] for f in both["findings"]] == [str(root)]


def test_a_site_reverted_by_hand(applied: Path) -> None:
    edit(
        applied,
        _MLA,
        f"quant_pretransposed_scale(\n{' ' * 20}fused_flatten_fp8_group_quant,",
        "fused_flatten_fp8_group_quant(",
    )
    findings = _findings(applied)
    assert {f["path"] for f in findings} - {None} == {_MLA}
    blob, hunk, site, stranger = findings
    assert "blob" in blob["expected"]
    assert "blob" in blob["found"]
    assert hunk["scope"] == "DeepseekMLAForwardMixin.forward_absorb_core"
    assert hunk["patch"] == "0005-o-proj-flatten.patch"
    assert (hunk["site"], site["site"]) == ("S8", "S8")
    assert "matches no release" in stranger["what"]


def test_a_hunk_in_the_wrong_function(applied: Path) -> None:
    """The gather's line is moved into another function of the file."""
    indent = " " * 16
    line = f"{indent}local_hidden_states = local_hidden_states.contiguous()\n"
    words = "The gather moves raw bytes; a pre-transposed scale is strided."
    comment = f"{indent}# {words}\n"
    edit(applied, _COMMUNICATOR, comment + line, "")
    place = applied / _COMMUNICATOR
    moved = f"\n\ndef gather(hidden_states):\n    if True:\n{' ' * 12}for _ in ():\n"
    place.write_text(place.read_text() + moved + comment + line)
    [hunk] = [f for f in _findings(applied) if f.get("hunk")]
    assert hunk["scope"] == "CommunicateSimpleFn._scattered_to_tp_attn_full"
    assert "gather" in hunk["found"]


@pytest.mark.parametrize("how", ["missing", "edited"])
def test_the_overlays_own_file(applied: Path, how: str) -> None:
    if how == "missing":
        (applied / _OVERLAY).unlink()
    else:
        edit(applied, _OVERLAY, "setattr(scale, _MARKER, True)", "pass")
    findings = _findings(applied)
    assert findings[0]["path"] == _OVERLAY
    sites = {f.get("site") for f in findings[1:]}
    assert sites >= {f"S{n}" for n in range(1, 9)}


def test_a_tree_with_one_new_file_lists_every_site(
    slim: Callable[..., Path], pins: Pins
) -> None:
    """A part of the series exists, so every missing part is named separately."""
    root = slim()
    new = next(n for n in pins.overlay["sglang"].new_files if n.path == _OVERLAY)
    (root / _OVERLAY).write_bytes(new.data)
    findings = _findings(root)
    paths = {f["path"] for f in findings if f.get("path")}
    assert paths == set(pins.overlay["sglang"].paths) - {_OVERLAY}
    assert "as released" in findings[0]["found"]


def test_an_unfinished_transaction_is_refused(applied: Path) -> None:
    (applied / ".overlay-transaction").mkdir()
    done = run_verb("verify", str(applied))
    assert done.returncode == 3
    assert "--status" in done.stderr
    assert run_verb("apply", "--status", str(applied)).returncode == 0
    assert run_verb("verify", str(applied)).returncode == 0
