"""The results as a page for people and as JSON for the test that guards the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalikes.runner import APPLY, ENGINE, TOOLS, Place, Results, ToolOutcome
from lookalikes.scenarios import SCENARIOS, Scenario

COMMAND = ".venv/bin/python tests/lookalikes"
PAGE = Path("docs/evidence/lookalikes.md")
DATA = PAGE.with_suffix(".json")
COLUMNS = (*(name for name in TOOLS if name != APPLY), ENGINE, APPLY)

_HEAD = """\
# Look-alikes: where each tool puts a hunk when the tree has drifted

Made by `{command}`; do not edit.
{versions}.

Each row is one way for upstream to move, copy or rewrite the code that a patch of
`patches/sglang` changes, as an edit on the pinned release's own files. Each tool runs
with its defaults on a clone whose history is the pin and then the drift. A cell is the
exit code, and where the edit is afterwards, read off the files.

| Words | Mean |
|---|---|
| right scope | every changed line is in the function that it was made for |
| **WRONG SCOPE** | a changed line is in another function, or in another file |
| **WRONG BLOCK** | right function, but in a copy of the block, or under another `if` |
| in part | some hunks are in, the others are not |
| refused | the files are as they were |
| markers | the files hold conflict markers, and the tool says so |
| there already | upstream has the patch; nothing to do, exit 0 |
| **NOTHING DONE** | exit 0, but the files are as they were, without the patch |

`{engine}` is `overlaykit.planning.landing.plan_drifted`, which a rebase uses; its
exit code stands for the verb's. `{apply}` puts the whole series on pinned files
only, so it must refuse every row but the last, in which nothing has drifted.
"""

_WORDS = {
    Place.RIGHT: "right scope",
    Place.PARTLY: "in part",
    Place.WRONG: "**WRONG SCOPE**",
    Place.WRONG_BLOCK: "**WRONG BLOCK**",
    Place.REFUSED: "refused",
    Place.MARKERS: "markers",
    Place.THERE: "there already",
    Place.SILENT: "**NOTHING DONE**",
}


def document(results: Results, versions: Mapping[str, str]) -> dict[str, Any]:
    """The results as JSON values."""
    return {
        "command": COMMAND,
        "tools": dict(versions),
        "scenarios": [
            {
                "name": scenario.name,
                "what": scenario.what,
                "patch": scenario.patch,
                "outcomes": {
                    name: _values(results[scenario.name][name])
                    for name in COLUMNS
                    if name in results[scenario.name]
                },
            }
            for scenario in SCENARIOS
        ],
    }


def _values(outcome: ToolOutcome) -> dict[str, Any]:
    values: dict[str, Any] = {"exit": outcome.exit, "place": outcome.place.value}
    if outcome.states:
        values["states"] = list(outcome.states)
    if outcome.why:
        values["why"] = list(outcome.why)
    return values


def page(results: Results, versions: Mapping[str, str]) -> str:
    """The results as Markdown."""
    head = _HEAD.format(
        command=COMMAND,
        versions="; ".join(versions.values()),
        engine=ENGINE,
        apply=APPLY,
    )
    total = f"**exit 0 and misplaced, of {len(SCENARIOS)}**"
    rows = [_row(scenario, results[scenario.name]) for scenario in SCENARIOS]
    return "\n".join(
        [
            head,
            _line(("What upstream did", "Patch", *COLUMNS)),
            "|---" * (len(COLUMNS) + 2) + "|",
            *rows,
            _line((total, "", *_sums(results))),
            "",
            "## Why the engine refuses",
            "",
            *_reasons(results),
            "",
        ]
    )


def _row(scenario: Scenario, outcomes: Mapping[str, ToolOutcome]) -> str:
    cells = (_cell(outcomes.get(name)) for name in COLUMNS)
    return _line((scenario.what, scenario.patch, *cells))


def _cell(outcome: ToolOutcome | None) -> str:
    if outcome is None:
        return "-"
    states = f": {', '.join(outcome.states)}" if outcome.states else ""
    return f"{outcome.exit}, {_WORDS[outcome.place]}{states}"


def _sums(results: Results) -> list[str]:
    """Per tool how often it exits 0 with an edit in a wrong place."""
    bad = {Place.WRONG, Place.WRONG_BLOCK}
    return [
        str(
            sum(
                outcomes[name].place in bad and outcomes[name].exit == 0
                for outcomes in results.values()
                if name in outcomes
            )
        )
        for name in COLUMNS
    ]


def _reasons(results: Results) -> list[str]:
    lines = []
    for scenario in SCENARIOS:
        why = results[scenario.name][ENGINE].why
        if why:
            lines.append(f"- {scenario.what}")
            lines += [f"  - {reason}" for reason in dict.fromkeys(why)]
    return lines


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def write(root: Path, results: Results, versions: Mapping[str, str]) -> list[Path]:
    """Write page and data; returns their paths."""
    data = json.dumps(document(results, versions), indent=1, ensure_ascii=False)
    texts = {PAGE: page(results, versions), DATA: f"{data}\n"}
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return [root / path for path in texts]
