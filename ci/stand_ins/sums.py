"""Make the questions of the small model: ``sums.py TEST_JSONL >sums.jsonl``.

A model with 135 million parameters cannot answer GSM8K's questions, and a model without
right answers cannot get worse. But it can do sums. The rule: take each worked solution
of GSM8K's test set, in the order of the file, and from it the first step that adds,
subtracts or multiplies two whole numbers below 100 to a whole number; skip duplicates;
keep the first 180.

A pass needs that many: with fewer questions, even two arms with equal answers are not
shown to differ by less than the margin of 1.5 points.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

QUESTIONS = 180
_STEP = re.compile(r"<<([0-9]{1,2})([-+*])([0-9]{1,2})=([0-9]+)>>")


def sums(rows: Iterable[str]) -> Iterator[str]:
    """Yield the lines of the question file from the lines of GSM8K's file."""
    seen = set()
    for row in rows:
        step = _STEP.search(json.loads(row)["answer"])
        if step is None or step.group() in seen:
            continue
        seen.add(step.group())
        left, sign, right, result = step.groups()
        text = f"{left} {sign} {right}"
        one = {"question": f"What is {text}?", "answer": f"{text}\n#### {result}"}
        yield f"{json.dumps(one)}\n"


if __name__ == "__main__":
    given = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    sys.stdout.writelines(islice(sums(given), QUESTIONS))
