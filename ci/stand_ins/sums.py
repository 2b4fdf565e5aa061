"""The questions of the small model: ``sums.py TEST_JSONL >sums.jsonl``.

A model of 135 million parameters answers none of GSM8K's questions, and one that
answers nothing has nothing to lose. It can do sums. The rule: of each worked solution
of GSM8K's test set, in the file's order, the first step that adds, subtracts or
multiplies two whole numbers below 100 to a whole number; none twice; the first 180.
That many can come out as a pass: with fewer, arms that answer all alike are not shown
to be closer than the margin of 1.5 points.
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
    """The lines of the question file, from those of GSM8K's."""
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
