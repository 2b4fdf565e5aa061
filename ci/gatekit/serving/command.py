"""The command line of ``sglang.bench_serving`` for one run.

Every option with a dangerous default is given: the range ratio (0, so lengths start at
1 token), the data set (ShareGPT text, downloaded and tokenized to other lengths than
requested), the seed (1 until 0.5.13, 42 from 0.5.14), warm-up (one request) and the
cache (kept, so a run can hit the prompts of an earlier run).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from gatekit.serving.points import RANGE_RATIO, Point

ArmName = Literal["baseline", "patched"]
BASELINE: ArmName = "baseline"
PATCHED: ArmName = "patched"
ARMS = (BASELINE, PATCHED)


class Tag(msgspec.Struct, frozen=True):
    """Facts about a run that the client's output lacks, stored in its ``tag``."""

    arm: str
    round: int
    num_prompts: int
    seed: int
    warmup_requests: int
    flush_cache: bool = True
    tokenize_prompt: bool = True


def tag(point: Point, arm: str, number: int) -> Tag:
    """The seed of a round is its number. So prompts differ between rounds, which avoids
    cache hits from earlier rounds, and are equal on both arms."""
    return Tag(arm, number, point.prompts, number, point.concurrency)


def arguments(point: Point, what: Tag, url: str, output: Path) -> list[str]:
    """The client's options. Every release from 0.5.10 supports all of them."""
    return [
        *("--backend", "sglang"),
        *("--base-url", url),
        *("--dataset-name", "random-ids"),
        "--tokenize-prompt",
        *("--random-input-len", str(point.isl)),
        *("--random-output-len", str(point.osl)),
        *("--random-range-ratio", str(RANGE_RATIO)),
        *("--num-prompts", str(what.num_prompts)),
        *("--max-concurrency", str(point.concurrency)),
        *("--request-rate", "inf"),
        *("--warmup-requests", str(what.warmup_requests)),
        "--flush-cache",
        *("--seed", str(what.seed)),
        *("--tag", msgspec.json.encode(what).decode()),
        # Without this, an answer with no tokens counts as completed.
        "--output-details",
        "--disable-tqdm",
        *("--output-file", str(output)),
    ]


def client(python: Sequence[str], extra: Sequence[str] = ()) -> list[str]:
    """The command of the client: the Python that has SGLang, and the options."""
    return [*python, "-m", "sglang.bench_serving", *extra]
