"""The audit of a dead guard: which guards there are, how one is opened, and what is
then new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Checkouts, Pins, run_verb
from overlaykit.core.documents import to_json
from overlaykit.core.errors import InputError, InvalidEvidence
from overlaykit.trees.tree import EditedTree
from xscale import audit as auditing
from xscale.audit import ALL, Audit, DeadGuard, Fault, audit, audits_in, rendered
from xscale.audit.faults import faults_of
from xscale.audit.guards import chosen, dead_guards
from xscale.audit.opening import opened
from xscale.liveness import not_run
from xscale.numeric import Case, CaseResult, Chain, Pool, Reading
from xscale.numeric.lives import Life, LiveState, MissedRead
from xscale.numeric.results import Route, Spot
from xscale.numeric.situations import Behind, BehindCase

BASE = "sglang-0.5.23"
UTILS = "python/sglang/srt/models/deepseek_common/utils.py"
LAYER = "python/sglang/srt/models/deepseek_v2.py"
HAS = ("weight", "weight_scale_inv")


def missed(path: str, line: int, function: str, projection: str) -> MissedRead:
    return MissedRead(path, line, function, "weight_scale", projection, HAS)


def dead(site: str, line: int, read: MissedRead) -> LiveState:
    return LiveState(site, Life.DEAD, "srt/forward.py", line, str(read), (read,))


IN_LAYER = missed(LAYER, 2767, "DeepseekV2DecoderLayer._detect", "qkv_a")
IN_UTILS = missed(UTILS, 89, "_is_block_scale_fp8", "q_b")
STATES = {
    "S1": dead("S1", 264, IN_LAYER),
    "S3": dead("S3", 540, IN_UTILS),
    "S7": dead("S7", 168, replace(IN_UTILS, projection="kv_b")),
    "S8": LiveState("S8", Life.LIVE, "srt/forward.py", 300, "a kernel is called"),
}


def guard_in(path: str, line: int, instead: str = "weight_scale_inv") -> DeadGuard:
    return DeadGuard(path, line, "f", "weight_scale", instead, ("S3",), ())


@pytest.fixture
def pool(kernels: None) -> Iterator[Pool]:
    with Pool("cpu", 1) as team:
        yield team


def test_each_guard_once() -> None:
    layer, utils = dead_guards(STATES)
    assert (layer.at, layer.sites) == (f"{LAYER}:2767", ("S1",))
    assert (utils.at, utils.sites) == (f"{UTILS}:89", ("S3", "S7"))
    assert utils.tests == ("srt/forward.py:540", "srt/forward.py:168")
    assert (utils.reads, utils.instead) == ("weight_scale", "weight_scale_inv")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (ALL, [2767, 89]),
        ("_detect", [2767]),
        ("DeepseekV2DecoderLayer._detect", [2767]),
        (f"{UTILS}:89", [89]),
        ("utils.py:89", [89]),
        # The shut test, as verify --numeric prints it.
        ("forward.py:168", [89]),
    ],
)
def test_names_of_guards(name: str, lines: list[int]) -> None:
    assert [guard.line for guard in chosen(dead_guards(STATES), name)] == lines


@pytest.mark.parametrize("name", ["", "detect", "utils.py", "tils.py:89", "py:1"])
def test_no_guard_of_that_name(name: str) -> None:
    """The error lists those that exist, with their names."""
    with pytest.raises(InputError) as caught:
        chosen(dead_guards(STATES), name)
    assert f"no dead guard is named {name}" in str(caught.value)
    for text in (
        f"{UTILS}:89",
        "--open _is_block_scale_fp8",
        "--open _detect",
        "S3 S7",
    ):
        assert text in str(caught.value)


def test_a_guard_without_an_attribute_to_read_instead() -> None:
    other = dead("S3", 540, replace(IN_UTILS, has=("weight", "qweight")))
    with pytest.raises(InputError, match="no attribute is like weight_scale"):
        chosen(dead_guards({"S3": other}), ALL)


class Linear:
    weight_scale_inv = 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("getattr(p, 'weight_scale', None)", 7),
        ("getattr(\n    p,\n    'weight_scale',\n    None,\n)", 7),
        ("getattr(p, 'weight_scale')", 7),
        ("hasattr(p, 'weight_scale') and 3", 3),
        ("not hasattr(p, 'weight_scale')", False),
        ("p.weight_scale + 1", 8),
        ("'\u00e9' and (p.weight_scale, getattr(p, 'weight_scale', 1))", (7, 7)),
        ("getattr(p, 'weight_scale', getattr(p, 'weight_scale', 1))", 7),
    ],
)
def test_opening_a_read(pins: Pins, text: str, value: object) -> None:
    """The read finds the other attribute; every line keeps its number."""
    source = f"# \u00e9\nv = {text}\nlast = p.weight\n"
    tree = EditedTree(pins.tree("aiter"), {"a.py": source.encode()})
    data = opened(tree, [guard_in("a.py", 2)]).read("a.py") or b""
    p = Linear()
    p.weight = 1  # type: ignore[attr-defined]
    names: dict[str, object] = {"p": p}
    exec(compile(data, "a.py", "exec"), names)
    assert names["v"] == value
    lines = data.decode().splitlines()
    assert len(lines) == len(source.splitlines()) and lines[-1] == "last = p.weight"


def test_a_line_without_the_read(pins: Pins) -> None:
    tree = EditedTree(pins.tree("aiter"), {"a.py": b"v = p.weight\n"})
    with pytest.raises(InputError, match="cannot be opened"):
        opened(tree, [guard_in("a.py", 1)])


CASE = Case(Chain.GATHER_PYNCCL, 3)
SPOT = Spot("srt/ops.py", 136, "gather", "srt/stage.py:9")


def result(case: Case = CASE, raised: str | None = None, wrong: int = 0) -> CaseResult:
    shape = (3, 4)
    reading = Reading(
        "gather", "qkv_a", Route.TRITON, shape, shape, "rms", "reference", False,
        not wrong, 0, wrong, spoiled=(SPOT,) if wrong else (),
    )  # fmt: skip
    spot = SPOT if raised else None
    return CaseResult(case, (reading,), 0, 0.0, raised=raised, raised_at=spot)


def test_only_what_is_new_is_a_fault() -> None:
    assert faults_of([result()], [result()]) == ((), ())
    assert faults_of([result(wrong=2)], [result(wrong=3)]) == ((), ())
    (fault,), _ = faults_of([result()], [result(wrong=3)])
    assert (fault.at, fault.what, fault.sites) == (
        "srt/ops.py:136",
        "spoils a scale",
        ("gather",),
    )
    assert "3 of 12 values wrong" in fault.found and "srt/stage.py:9" in fault.found


def test_one_fault_for_each_kind_and_place() -> None:
    cases = [CASE, Case(Chain.GATHER_PYNCCL_NSA, 3)]
    (fault,), _ = faults_of(
        [result(case) for case in cases],
        [result(case, "E: ValueError: no") for case in cases],
    )
    assert fault.what == "raises" and len(fault.cases) == 2


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("E: TypeError: x", "E: TypeError: x", "fails with the guard shut as well"),
        ("E: TypeError: x", None, "fails with the guard shut as well"),
        ("E: NotDriven: the tree has no x", None, "cannot be run: the tree has no x"),
        (None, "unexpected keyword argument 'transpose_scale'", "AITER is too old"),
    ],
)
def test_what_proves_nothing_is_not_judged(
    before: str | None, after: str | None, why: str
) -> None:
    case = BehindCase(Chain.MHA, 3, situation=Behind.PREFIX)
    faults, (left,) = faults_of([result(case, before)], [result(case, after)])
    assert faults == () and left.case == Behind.PREFIX.value and why in left.why


def an_audit() -> Audit:
    states = tuple(STATES.values())
    fault = Fault("raises", UTILS, 3, "f", ("S3",), ("a case",), "Error: \x1b[31m\nno")
    guards = dead_guards(STATES)
    return Audit(
        "0.5.23", "0.1.19", "native block FP8", guards[:1], guards[1:], states, states,
        ("S1",), (fault,), (), 32, "cpu",
    )  # fmt: skip


def test_the_text() -> None:
    text = rendered(an_audit())
    assert "SGLang 0.5.23, AITER 0.1.19." in text
    assert f"`{LAYER}:2767`" in text and "still shut: " in text
    assert "### Faults: 1" in text and f"1. `{UTILS}:3` (`f`) raises:" in text
    assert "32 cases" in text and "device (cpu)" in " ".join(text.split())
    assert "\x1b" not in text


@pytest.mark.slow("today's release is run with its guards open")
def test_todays_release(pins: Pins, pool: Pool, tmp_path: Path) -> None:
    """Pristine 0.5.23 alone shows each fault that the series mends."""
    aiter = pins.patched("aiter")
    done = audit(pins.tree(BASE), aiter, ALL, pool.run, "cpu", lambda *_: None)
    assert {guard.name for guard in done.guards} == {
        "_detect_gfx95_quant_format",
        "_is_block_scale_fp8",
    }
    assert done.revived == tuple(f"S{number}" for number in range(1, 9))
    assert done.not_judged == () and done.shut == ()
    found = {(f.at.rpartition("/")[2].partition(":")[0], f.what) for f in done.faults}
    assert found == {
        ("fp8_utils.py", "spoils a scale"),  # 0001
        ("ops.py", "spoils a scale"),  # 0002
        ("ops.py", "raises"),
        ("forward_mha_rocm.py", "raises"),  # 0003
        ("deepseek_mla_correction.py", "raises"),  # 0004
        ("dsa_indexer.py", "raises"),  # 0005
        ("forward_mla_fused_rope_rocm.py", "does not raise"),  # 0006
        ("deepseek_v2.py", "does not raise"),  # 0007
        ("forward_mla_rocm.py", "does not raise"),  # 0008
        ("utils.py", "opens for MXFP8 as well"),  # 0009
        ("deepseek_v2.py", "opens for MXFP8 as well"),
    }
    tree = pins.tree(BASE)
    for fault in done.faults:
        lines = (tree.read(fault.path or "") or b"").decode().splitlines()
        assert lines[(fault.line or 0) - 1].strip(), fault
    scrambled = next(f for f in done.faults if "fp8_utils.py" in f.at)
    assert scrambled.function == "view_aiter_fused_rms_transposed_fp8_scale"
    report = tmp_path / "report.json"
    report.write_bytes(to_json({"results": [{"target": BASE, "audit": done}]}))
    assert audits_in(report) == ((BASE, done),)


@pytest.mark.slow("today's release is run with one of its guards open")
def test_one_guard_of_two(pins: Pins, pool: Pool) -> None:
    """The layer's own detection asks the other guard, which stays shut."""
    name = "_detect_gfx95_quant_format"
    aiter = pins.patched("aiter")
    done = audit(pins.tree(BASE), aiter, name, pool.run, "cpu", lambda *_: None)
    assert done.revived == () and done.faults == ()
    assert [guard.name for guard in done.shut] == ["_is_block_scale_fp8"]
    assert "Live with it open: no site." in rendered(done)
    assert "None was found, and nothing could be: no site is live." in rendered(done)


def test_a_release_whose_guards_are_open(pins: Pins, pool: Pool) -> None:
    aiter = pins.patched("aiter")
    done = audit(pins.tree("sglang"), aiter, ALL, pool.run, "cpu", lambda *_: None)
    assert done.guards == () and done.faults == ()
    assert rendered(done).startswith("No guard is dead here: for native block FP8")


@pytest.mark.parametrize(
    ("states", "error"),
    [
        (not_run("PyTorch cannot be imported"), InvalidEvidence),
        ({"S1": LiveState("S1", Life.DEAD, LAYER, 7, "x is False")}, InputError),
    ],
)
def test_without_a_guard_every_site_must_run(
    pins: Pins,
    monkeypatch: pytest.MonkeyPatch,
    states: dict[str, LiveState],
    error: type[InputError],
) -> None:
    monkeypatch.setattr(auditing.auditing, "probe", lambda *_: states)
    tree = pins.tree("sglang")
    with pytest.raises(error) as caught:
        audit(tree, tree, ALL, lambda *_: (), "cpu", lambda *_: None)
    assert type(caught.value) is error
    assert next(iter(states.values())).reason in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--open", ALL], "need --numeric"),
        (["--numeric", "--full", "--open", ALL], "leave out --full"),
    ],
)
def test_options_that_do_not_belong_together(
    checkouts: Checkouts, options: list[str], says: str
) -> None:
    done = run_verb("verify", str(checkouts.sglang), *options)
    assert done.returncode == 2 and says in done.stderr


@pytest.mark.slow("today's release is audited by the verb")
def test_the_verb(
    laid_out: dict[str, Path], checkouts: Checkouts, tmp_path: Path, kernels: None
) -> None:
    """Its JSON is what export writes; and a name of no guard lists those that exist."""
    where = ["--numeric", str(laid_out[BASE]), "--aiter", str(checkouts.aiter)]
    where += ["--jobs", "1"]  # A second worker would only start, and say the same.
    done = run_verb("verify", *where, "--open", "nothing")
    assert done.returncode == 2
    assert "no dead guard is named nothing" in done.stderr
    assert "_is_block_scale_fp8" in done.stderr and "utils.py:89" in done.stderr
    done = run_verb("verify", *where, "--open", "_is_block_scale_fp8", "--json")
    assert done.returncode == 1, done.stderr
    assert "numeric: " in done.stderr
    report, body = tmp_path / "audit.json", tmp_path / "guard.md"
    report.write_text(done.stdout, encoding="utf-8")
    [(_, made)] = audits_in(report)
    done = run_verb("export", "--audit", str(report), "--pr-body", str(body))
    assert done.returncode == 0, done.stderr
    assert body.read_text(encoding="utf-8") == rendered(made)
    assert str(laid_out[BASE]) not in rendered(made)


def test_export_refuses_what_is_no_audit(tmp_path: Path) -> None:
    body = tmp_path / "body.md"
    report = tmp_path / "report.json"
    for data in (b"{", b"{}", b'{"results": []}', b'{"results": [{"target": "a"}]}'):
        report.write_bytes(data)
        done = run_verb("export", "--audit", str(report), "--pr-body", str(body))
        assert done.returncode == 2, data
        assert "is not a report of an audit" in done.stderr
    for path in (tmp_path, tmp_path / "nowhere"):
        done = run_verb("export", "--audit", str(path), "--pr-body", str(body))
        assert done.returncode == 2 and str(path) in done.stderr
    assert not body.exists()


def test_export_writes_a_new_file_only(tmp_path: Path) -> None:
    report, body = tmp_path / "report.json", tmp_path / "body.md"
    report.write_bytes(to_json({"results": [{"target": BASE, "audit": an_audit()}]}))
    done = run_verb("export", "--audit", str(report))
    assert done.returncode == 2 and "--pr-body" in done.stderr
    body.write_text("mine", encoding="utf-8")
    done = run_verb("export", "--audit", str(report), "--pr-body", str(body))
    assert done.returncode == 2 and "already exists" in done.stderr
    assert body.read_text(encoding="utf-8") == "mine"
    body.unlink()
    done = run_verb("export", "--audit", str(report), "--pr-body", str(body))
    assert done.returncode == 0, done.stderr
    assert body.read_text(encoding="utf-8") == rendered(an_audit())
