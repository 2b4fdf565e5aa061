"""The report as Markdown, for a pull request. Text from the run is escaped, so that it
cannot make a link, a heading or a mention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gatekit.report.contents import (
    about_the_run,
    left_out,
    ran_on,
    ran_on_stand_in,
    reasons,
    sections,
    time_taken,
)
from gatekit.report.evidence import stands_in
from gatekit.report.schema import GateReport, StageReport
from gatekit.report.section import Mark, Section, Table, Text, mark
from overlaykit.core.markdown import table_lines

_SPECIAL = re.compile(r"([\\`*_\[\]{}#|~!])")
_LINKS = re.compile(r"(@|https?(?=:)|www(?=\.))", re.IGNORECASE)


def markdown(report: GateReport) -> str:
    """The whole report; the verdict comes first."""
    parts = [
        f"# Gate: {_mark(mark(report.verdict))}",
        f"Profile {_text(report.profile)}. {_text(report.about)}",
        _list(map(_text, reasons(report))),
        _not_run(report),
        "## Stages",
        _table(
            ("stage", "state", "why", "stand-in", "time"),
            (_stage(stage) for stage in report.stages),
        ),
        *(part for section in sections(report) for part in _section(section)),
        "## What was tested, and where",
        _named(about_the_run(report)),
        *(
            part
            for stages, facts in ran_on(report).items()
            for part in (_text(stages and f"{stages}:"), _named(facts))
        ),
        "## How to run it again",
        _again(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _stage(stage: StageReport) -> tuple[str, ...]:
    return (
        f"{_text(stage.name)}: {_text(stage.title)}",
        _mark(mark(stage.state)),
        _text(stage.reason) or "-",
        _text(stands_in(stage)) or "-",
        time_taken(stage),
    )


def _not_run(report: GateReport) -> str:
    """Stages that did not run, and stages that ran on a stand-in."""
    parts = []
    for head, stages in (
        ("Not run", left_out(report)),
        ("Run on a stand-in", ran_on_stand_in(report)),
    ):
        if stages:
            lines = (f"{_text(names)}: {_text(what)}" for names, what in stages.items())
            parts.append(f"{head}:\n\n{_list(lines)}")
    return "\n\n".join(parts)


def _section(section: Section) -> Iterable[str]:
    yield f"## {section.title}: {_mark(section.state)}"
    if section.why:
        yield _text(section.why)
    if section.stands_in:
        yield f"Stand-in: {_text(section.stands_in)}."
    yield from map(_text, section.missing)
    if section.said:
        yield _list(map(_text, section.said))
    for table in section.tables:
        if table.brief:
            yield _text(table.caption) + ":\n\n" + _cells(table)


def _cells(table: Table) -> str:
    rows = (tuple(map(_cell, row)) for row in table.rows)
    return _table(tuple(map(_text, table.header)), rows)


def _cell(value: Text) -> str:
    return _mark(value) if isinstance(value, Mark) else _text(value)


def _mark(value: Mark) -> str:
    """Bold for a result, italics for a missing one."""
    return f"_{value.text}_" if value.kind == "absent" else f"**{_text(value.text)}**"


def _named(values: Mapping[str, str]) -> str:
    rows = ((_text(name), _text(value)) for name, value in values.items())
    return _table(("", ""), rows)


def _again(report: GateReport) -> str:
    commit = report.subject.commit.partition(",")[0]
    lines = [f"git checkout {commit}"] if commit else []
    code = "\n".join([*lines, report.command])
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{code}\n{fence}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(table_lines(header, rows))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _text(value: str) -> str:
    """The text in one line, escaped. An empty comment keeps GitHub from making a
    mention or a link of it."""
    flat = " ".join(value.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = _SPECIAL.sub(r"\\\1", flat)
    return _LINKS.sub(r"\1<!-- -->", flat)
