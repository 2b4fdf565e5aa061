"""What a report of the gate must not say, of whoever asks it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gatekit.run.submission import Gate
from overlaykit.core.errors import Exit, InvalidEvidence

STAGES = [
    {"target": "apply", "outcome": "pass"},
    {"target": "gsm8k", "outcome": "pass"},
]


@dataclass(frozen=True)
class Said(Gate):
    """A gate that says this."""

    document: str = ""

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-c", "import sys; print(sys.argv[1])", self.document]


def said(**members: Any) -> Said:
    document = {"exit_code": 0, "message": "pass", "results": STAGES, **members}
    return Said("cpu", Path("out"), (), json.dumps(document))


def test_a_pass_of_passes_is_read() -> None:
    assert len(said().ask().results) == 2


@pytest.mark.parametrize("outcome", ["fail", "error", "inconclusive"])
def test_a_pass_beside_a_stage_that_is_none(outcome: str) -> None:
    gate = said(results=[STAGES[0], STAGES[1] | {"outcome": outcome}])
    with pytest.raises(InvalidEvidence) as caught:
        gate.ask()
    assert caught.value.exit_code is Exit.INVALID
    (finding,) = caught.value.findings
    assert (finding.path, finding.found) == ("gsm8k", outcome)
    assert "expected pass" in caught.value.message and outcome in caught.value.message


def test_results_that_contradict_themselves_end_it() -> None:
    """As the gate says of one that it kept: there is nothing to submit."""
    with pytest.raises(InvalidEvidence, match="changed by hand"):
        said(exit_code=4, message="it was changed by hand", results=[]).ask()
