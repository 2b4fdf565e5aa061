"""A report of the gate that contradicts itself is refused."""

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
class Printing(Gate):
    """A gate that prints this document."""

    document: str = ""

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-c", "import sys; print(sys.argv[1])", self.document]


def printing(**members: Any) -> Printing:
    document = {"exit_code": 0, "message": "pass", "results": STAGES, **members}
    return Printing("cpu", Path("out"), (), json.dumps(document))


def test_consistent_pass_is_read() -> None:
    assert len(printing().call().results) == 2


@pytest.mark.parametrize("outcome", ["fail", "error", "inconclusive"])
def test_pass_with_a_stage_that_did_not_pass(outcome: str) -> None:
    gate = printing(results=[STAGES[0], STAGES[1] | {"outcome": outcome}])
    with pytest.raises(InvalidEvidence) as caught:
        gate.call()
    assert caught.value.exit_code is Exit.INVALID
    (finding,) = caught.value.findings
    assert (finding.path, finding.found) == ("gsm8k", outcome)
    assert "expected pass" in caught.value.message and outcome in caught.value.message


def test_invalid_evidence_stops_submission() -> None:
    """The gate found a kept result that was changed; there is nothing to submit."""
    with pytest.raises(InvalidEvidence, match="changed by hand"):
        printing(exit_code=4, message="it was changed by hand", results=[]).call()
