"""The three reports of a run, for stages that passed, failed, were inconclusive, broke
or did not run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("jinja2", reason="pip install --group gate")

from gatekit.report.contents import SHOWN_IN
from gatekit.report.markdown import markdown
from gatekit.report.page import page
from gatekit.report.reports import write_reports
from gatekit.report.schema import GateReport, StageState

from .conftest import (
    NAMES,
    POINTS,
    STAGES,
    Document,
    Gate,
    again,
    answers,
    compared,
    failed,
    served,
    trace,
)
from .pages import marks, parsed, text, within


def row_of(report: GateReport, name: str) -> str:
    """The stage's row in the Markdown."""
    lines = markdown(report).splitlines()
    (found,) = (line for line in lines if line.startswith(f"| {name}: "))
    return found


def test_a_pass_shows_every_figure(gate: Gate) -> None:
    report = gate()
    tree = parsed(page(report))
    assert "Gate: pass" in text(tree)
    assert "missing" not in {e.get("class") for e in within(tree, "gsm8k").iter()}
    drawings = {
        name: len(list(within(tree, name).iter("svg"))) for name in SHOWN_IN.values()
    }
    assert drawings["gsm8k"] == drawings["bench"] == 2
    assert drawings["attention"] >= 2
    assert drawings["chain"] == 1
    said = markdown(report)
    assert said.startswith("# Gate: **pass**")
    assert "not run" not in said
    score = report.stages[5].evidence["compare"]["results"][0]["compared"]["score"]
    for value in (score["difference"], score["lower"], score["upper"]):
        assert f"{100 * value:+.2f}" in said
        assert f"{100 * value:+.2f}" in text(within(tree, "gsm8k"))
    margin, lower, upper = interval(report)
    assert margin < lower < upper
    attention = text(within(tree, "attention"))
    assert "series-eager-TP-0-DECODE.trace.json.gz pass 3 4 0" in attention
    for site in ("S1", "S8", "C"):
        assert site in text(within(tree, "census"))
        assert site in text(within(tree, "landing"))
    assert "10544 of 10544 cases right" in text(within(tree, "numeric"))
    for digest in ("5" * 64, "c" * 64, "d" * 40, "e" * 64, "f" * 64):
        assert digest in text(within(tree, "judged"))
        assert digest in said


@pytest.mark.parametrize("name", STAGES)
def test_stage_that_did_not_run_is_never_shown_as_pass(gate: Gate, name: str) -> None:
    """Even if the report holds evidence of an earlier run."""
    out = {name: {"state": StageState.NOT_RUN, "reason": "the node burned down"}}
    report = again(gate(StageState.INCONCLUSIVE, **out))
    tree = parsed(page(report))
    rows = [e for e in within(tree, "stages").iter("tr") if e.get("class") == "stage"]
    (row,) = (r for r in rows if text(r).startswith(f"{name} :"))
    assert "not run" in text(row) and "the node burned down" in text(row)
    assert not marks(row) and re.search(r"\bpass\b", text(row)) is None
    assert "the node burned down" in text(within(tree, "not-run"))
    assert "_not run_" in row_of(report, name)
    assert "pass" not in row_of(report, name)
    said = markdown(report).partition("## Stages")[0]
    assert "Not run:" in said and "the node burned down" in said
    if section := SHOWN_IN.get(name):
        shown = within(tree, section)
        heading = shown.find("h2")
        assert heading is not None and text(heading).endswith("not run")
        assert "Not run: the node burned down." in text(shown)
        assert not list(shown.iter("svg"))
        # Only the points, which did run, have a state there.
        assert set(marks(shown)) <= ({"pass"} if name == "bench" else set())
    elif name.startswith("bench:"):
        point = name.partition(":")[2]
        lines = [text(r) for r in within(tree, "bench").iter("tr")]
        mine = [row for row in lines if row.startswith(f"{point} ")]
        assert len(mine) == 2 and all("not run" in row for row in mine)
        assert all(
            f"{point} not run" in text(s) for s in within(tree, "bench").iter("svg")
        )


def test_pass_requires_every_stage(gate: Gate) -> None:
    """Neither the gate nor an edited file can claim such a pass."""
    one = {"gsm8k": {"state": StageState.NOT_RUN}}
    with pytest.raises(ValueError, match="every stage to have run and passed"):
        gate(StageState.PASS, **one)
    edited = msgspec.json.encode(gate(StageState.INCONCLUSIVE, **one)).replace(
        b'"verdict":"inconclusive"', b'"verdict":"pass"'
    )
    with pytest.raises(
        msgspec.ValidationError, match="every stage to have run and passed"
    ):
        msgspec.json.decode(edited, type=GateReport)


def interval(report: GateReport) -> tuple[float, float, float]:
    """The drawn difference: margin, lower end and upper end."""
    drawing = list(within(parsed(page(report)), "gsm8k").iter("svg"))[1]
    lines = [(e.get("class"), float(e.get("x1", ""))) for e in drawing.iter("line")]
    (margin,) = (x for kind, x in lines if kind == "limit")
    ends = [x for kind, x in lines if kind == "span"]
    return margin, min(ends), max(ends)


def test_run_without_a_stage(gate: Gate) -> None:
    report = gate(StageState.INCONCLUSIVE)
    left = tuple(s for s in report.stages if not s.name.startswith(("bench", "gsm8k")))
    report = msgspec.structs.replace(report, stages=left)
    tree = parsed(page(report))
    for name in ("gsm8k", "bench"):
        assert f"no stage {name}" in text(within(tree, name))
        assert not marks(within(tree, name))


@pytest.mark.parametrize(
    "state", [StageState.FAIL, StageState.INCONCLUSIVE, StageState.ERROR]
)
@pytest.mark.parametrize("name", NAMES)
def test_other_states_show_word_and_reason(
    gate: Gate, name: str, state: StageState
) -> None:
    """A stage with an error leaves no evidence."""
    how: dict[str, Any] = {"state": state, "reason": "it <b>broke</b>"}
    if state is StageState.ERROR:
        how["evidence"] = {}
    report = gate(
        StageState.FAIL, **{name: {**how, "findings": (failed("this & that"),)}}
    )
    tree = parsed(page(report))
    details = text(within(tree, "details"))
    assert f"{name} {state.value} it <b>broke</b>" in details
    assert "a/file.py:7: this & that" in details
    assert f"**{state.value}**" in row_of(report, name)
    assert "it &lt;b&gt;broke" in row_of(report, name)
    if name in SHOWN_IN:
        section = within(tree, SHOWN_IN[name])
        assert text(section).count(state.value)
        if state is StageState.ERROR:
            assert "the stage did not leave one" in text(section)
            assert not list(section.iter("svg")) and not marks(section)


def test_worse_answers(gate: Gate, tmp_path: Path) -> None:
    document = answers(tmp_path, lost=40, gained=8, code=1)
    report = gate(StageState.FAIL, gsm8k=_as(StageState.FAIL, document))
    section = text(within(parsed(page(report)), "gsm8k"))
    assert "does not hold the patch does no harm" in section
    margin, lower, upper = interval(report)
    assert lower < upper < margin
    assert "verdict of the comparison: fail" in section
    assert "-2.43 points" in section and "-2.43" in markdown(report)


def test_inconclusive_answers(gate: Gate, tmp_path: Path) -> None:
    document = answers(tmp_path, lost=50, gained=40, code=4)
    report = gate(StageState.INCONCLUSIVE, gsm8k=_as(StageState.INCONCLUSIVE, document))
    margin, lower, upper = interval(report)
    assert lower < margin < upper
    assert re.search(r"about [\d,]+ more questions would decide", markdown(report))


def test_invalid_traces_have_no_figures(gate: Gate) -> None:
    """Kernels of a replayed graph alone cannot be attributed to layers."""
    pair = (trace("series", "replay"), trace("pristine", "replay"))
    document = compared(*pair, code=4)
    report = gate(
        StageState.INCONCLUSIVE, traces=_as(StageState.INCONCLUSIVE, document)
    )
    section = within(parsed(page(report)), "attention")
    assert not list(section.iter("svg"))
    assert "invalid no evidence" in text(section)
    assert "does not hold kernels belong to modules" in text(section)
    assert "_no evidence_" in markdown(report)


def test_traces_that_fail(gate: Gate) -> None:
    """With the arms swapped, copies appear."""
    document = compared(trace("pristine"), trace("series"), code=1)
    report = gate(StageState.FAIL, traces=_as(StageState.FAIL, document))
    section = text(within(parsed(page(report)), "attention"))
    assert "fail 3 0 4" in section
    assert "does not hold copies vanish from every layer" in section


def test_traces_of_one_arm(gate: Gate, evidence: dict[str, Document]) -> None:
    alone = {"baseline": evidence["traces"]["baseline"]}
    report = gate(StageState.INCONCLUSIVE, traces={"evidence": alone})
    section = within(parsed(page(report)), "attention")
    assert "no trace was compared with a baseline" in text(section)
    assert not list(section.iter("svg"))


def test_point_that_did_not_run(gate: Gate, tmp_path: Path) -> None:
    lacking, rest = POINTS[3], POINTS[:3] + POINTS[4:]
    lost = {"state": StageState.NOT_RUN, "reason": "no time", "evidence": {}}
    rest_of_it = _as(StageState.INCONCLUSIVE, served(tmp_path, 0.03, rest, 4))
    report = gate(
        StageState.INCONCLUSIVE, **{f"bench:{lacking}": lost, "bench": rest_of_it}
    )
    section = within(parsed(page(report)), "bench")
    drawn = [text(svg) for svg in section.iter("svg")]
    assert len(drawn) == 2
    assert all(f"{lacking} not run" in one for one in drawn)
    assert f"| {lacking} | _not run_ | - | - | - | - |" in markdown(report)


def test_slower_serving(gate: Gate, tmp_path: Path) -> None:
    report = gate(
        StageState.FAIL, bench=_as(StageState.FAIL, served(tmp_path, -0.05, POINTS, 1))
    )
    assert markdown(report).count("**worse**") >= 20
    assert "throughput is worse" in text(within(parsed(page(report)), "bench"))


def test_stand_in_is_named_at_every_figure(gate: Gate) -> None:
    small = {"stands_in": "SmolLM2 behind llama.cpp"}
    named = {f"bench:{point}": small for point in POINTS}
    report = gate(StageState.INCONCLUSIVE, gsm8k=small, traces=small, **named)
    tree = parsed(page(report))
    assert "SmolLM2 behind llama.cpp" in text(within(tree, "stood-in"))
    for name in ("gsm8k", "attention", "bench"):
        section = within(tree, name)
        captions = [*section.iter("figcaption"), *section.iter("summary")]
        captions += [p for p in section.iter("p") if p.get("class") == "caption"]
        assert len(captions) > 4
        assert all("Stand-in: SmolLM2" in text(one) for one in captions)
    assert markdown(report).count("Stand-in: SmolLM2") == 3
    bench = text(within(tree, "chain"))
    assert "for CK's GEMM: AITER's Triton gemm_a8w8_blockscale" in bench


_DAMAGE: tuple[Any, ...] = (
    None,
    [],
    "text",
    {},
    {"verb": 7},
    {"verb": "VERB"},
    {"verb": "VERB", "results": None},
    {"verb": "VERB", "results": [1]},
    {"verb": "VERB", "results": [{"MEMBER": None}]},
)
_MEMBERS = {
    "apply": ("apply", "hunks"),
    "verify": ("verify", "digest"),
    "numeric": ("verify", "numeric"),
    "chain": ("microbench", "cells"),
    "gsm8k": ("gsm8k", "compared"),
    "traces": ("trace_check", "after"),
    "bench": ("bench", "margin_percent"),
}


@pytest.mark.parametrize("name", _MEMBERS)
@pytest.mark.parametrize("damage", _DAMAGE, ids=json.dumps)
def test_unreadable_evidence(gate: Gate, name: str, damage: Any) -> None:
    verb, member = _MEMBERS[name]
    written = json.dumps(damage).replace("VERB", verb).replace("MEMBER", member)
    report = gate(**{name: {"evidence": {"a step": json.loads(written)}}})
    section = within(parsed(page(report)), SHOWN_IN[name])
    assert "The evidence of step a step cannot be read: " in text(section)
    assert not list(section.iter("svg"))
    assert "The evidence of step a step cannot be read: " in markdown(report)


def test_missing_member_is_reported(gate: Gate, evidence: dict[str, Document]) -> None:
    document = json.loads(json.dumps(evidence["gsm8k"]["compare"]))
    del document["results"][0]["compared"]["score"]["upper"]
    report = gate(gsm8k={"evidence": {"compare": document}})
    assert "`$.compared.score`" in text(within(parsed(page(report)), "gsm8k"))


def test_several_nodes_are_listed(gate: Gate) -> None:
    """The node that collects the results is listed apart from the nodes that ran."""
    node = {"host": "node-2", "GPUs": "8 MI355X"}
    there = {name: {"machine": node} for name in ("gsm8k", "traces")}
    for written in (markdown(gate(**there)), text(parsed(page(gate(**there))))):
        judged = written.rpartition("What was tested")[2]
        order = ("apply, verify", "node-1", "gsm8k, traces", "node-2", "8 MI355X",
                 "this report", "node-1")  # fmt: skip
        at = 0
        for word in order:
            at = judged.index(word, at) + 1
    one = text(parsed(page(gate())))
    assert "Machine and versions host node-1" in one and "this report" not in one


def test_images_are_named_by_digest(gate: Gate) -> None:
    built = {
        arm: {"verb": "rebuild", "results": [
            {"arm": arm, "image": "up:1", "id": f"sha256:{arm}", "base": f"up@{arm}"}
        ]}
        for arm in ("baseline", "patched")
    }  # fmt: skip
    report = gate(rebuild={"evidence": built})
    for written in (markdown(report), text(parsed(page(report)))):
        for word in ("sha256:baseline", "sha256:patched", "baseline", "patched"):
            assert word in written.replace("<!-- -->", "")
    assert "patched built from up@patched" in text(parsed(page(report)))


_HOSTILE = (
    '</pre></section><script>alert(1)</script><img src="http://x.test/a.png">'
    "\n# Gate: **pass**\n| a | b | [c](http://x.test) `d` @everyone {{ 7 * 7 }} &amp; "
    "```"
)


def test_text_from_a_run_is_escaped(gate: Gate) -> None:
    report = gate(
        StageState.FAIL,
        gsm8k={
            "state": StageState.FAIL,
            "reason": _HOSTILE,
            "findings": (failed(_HOSTILE),),
            "stands_in": _HOSTILE,
            "title": _HOSTILE,
            "commands": (_HOSTILE,),
            "files": (_HOSTILE,),
            "folder": _HOSTILE,
        },
    )
    report = msgspec.structs.replace(
        report, about=_HOSTILE, command=_HOSTILE, machine={_HOSTILE: _HOSTILE}
    )
    written = page(report)
    tree = parsed(written)
    assert not [e for e in tree.iter() if e.tag in ("script", "img", "link", "iframe")]
    assert text(tree).count("<script>alert(1)</script>") >= 8
    assert "{{ 7 * 7 }}" in text(tree)
    said = markdown(report)
    prose, fence, code = said.rpartition("````sh\n")
    assert fence and code.rstrip().endswith("````")
    assert "<script" not in prose and "<img" not in prose
    assert not re.search(r"@everyone|http:/|(?<!\\)`|(?<!\\)\]\(", prose)
    plain = markdown(gate(StageState.FAIL, gsm8k={"state": StageState.FAIL}))
    assert _headings(prose) == _headings(plain)
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in _rows(prose)}
    assert cells == {len(re.findall(r"(?<!\\)\|", line)) for line in _rows(plain)}


def _headings(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("#")]


def _rows(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("|")]


def test_hostile_evidence_is_escaped(gate: Gate, evidence: dict[str, Document]) -> None:
    """Also in tables and drawings."""
    document = json.dumps(evidence)
    point = f"8192/1024/4{_HOSTILE}"
    for old in ("prepare_attn", "in place", "direct_copy_kernel", "GLM-5.1", "S1"):
        document = document.replace(old, f"{old}{json.dumps(_HOSTILE)[1:-1]}")
    document = document.replace('"8192/1024/4"', json.dumps(point))
    documents = json.loads(document)
    report = gate(**{name: {"evidence": each} for name, each in documents.items()})
    tree = parsed(page(report))
    assert not [e for e in tree.iter() if e.tag in ("script", "img")]
    for name in ("landing", "census", "attention", "chain", "bench"):
        assert "<script>alert(1)</script>" in text(within(tree, name)), name


def test_page_is_self_contained(gate: Gate) -> None:
    written = page(gate())
    tree = parsed(written)
    for element in tree.iter():
        assert element.tag not in ("script", "link", "img", "iframe", "object", "base")
        for name, value in element.items():
            assert name not in ("src", "srcset", "style") and not name.startswith("on")
            assert name != "href" or value.startswith("#")
    assert not re.search(r"@import|url\(", written)
    policy = next(e for e in tree.iter("meta") if e.get("http-equiv"))
    assert "default-src 'none'" in policy.get("content", "")
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    links = {e.get("href", "")[1:] for e in tree.iter("a")}
    assert links and links <= set(ids)


def test_all_reports_follow_from_the_json(gate: Gate, tmp_path: Path) -> None:
    """Reports made from report.json are the same bytes every time."""
    paths = write_reports(
        gate(StageState.INCONCLUSIVE, gsm8k={"stands_in": "x"}), tmp_path
    )
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    first = [path.read_bytes() for path in paths]
    write_reports(msgspec.json.decode(first[0], type=GateReport), tmp_path)
    assert [path.read_bytes() for path in paths] == first
    assert len(list(tmp_path.iterdir())) == 3


def _as(state: StageState, document: Document) -> dict[str, Any]:
    """A stage with the comparison as its only evidence."""
    return {
        "state": state,
        "reason": document["message"],
        "evidence": {"compare": document},
    }
