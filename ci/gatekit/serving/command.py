"""The command line of ``sglang.bench_serving`` for one run.

Every option whose default hides a trap is given: the range ratio (0, so lengths from 1
token up), the data set (ShareGPT's text, fetched from the network and tokenized to
another length than asked), the seed (1 until 0.5.13, 42 from 0.5.14), warm-up (one
request) and the cache (kept, so a later run finds the prompts of an earlier one).
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
    """What the client's output does not say about its run; kept in its ``tag``."""

    arm: str
    round: int
    num_prompts: int
    seed: int
    warmup_requests: int
    flush_cache: bool = True
    tokenize_prompt: bool = True


def tag(point: Point, arm: str, number: int) -> Tag:
    """A round's seed is its number: prompts differ between rounds, so that none can be
    answered from an earlier round's cache, and are the same on both arms."""
    return Tag(arm, number, point.prompts, number, point.concurrency)


def arguments(point: Point, what: Tag, url: str, output: Path) -> list[str]:
    """The client's options. All are known to every release from 0.5.10 on."""
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
        # Without it, an answer without a single token counts as a complete one.
        "--output-details",
        "--disable-tqdm",
        *("--output-file", str(output)),
    ]


def client(python: Sequence[str], extra: Sequence[str] = ()) -> list[str]:
    """The program: the Python that has SGLang, and its options."""
    return [*python, "-m", "sglang.bench_serving", *extra]
