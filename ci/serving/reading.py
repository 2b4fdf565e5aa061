"""What a run of ``sglang.bench_serving`` wrote: one JSON line, of any release's format.

The client exits 0 and writes its line however many requests failed, does not say how
many there were, and takes a stream that ended without a token for a complete answer of
the length asked. What a line cannot prove is therefore a reason against it.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from overlaykit.documents import from_json
from overlaykit.errors import EnvironmentFailure, InputError
from serving.command import Tag
from serving.points import RANGE_RATIO, Point

# Of a server's settings, those that differ between two starts of one command, or that
# say where it is and what it has done rather than how it works.
VOLATILE = frozenset(
    {
        *("host", "port", "nccl_port", "dist_init_addr", "random_seed", "api_key"),
        *("admin_api_key", "internal_states", "startup_time", "status"),
        *("launch_command", "max_total_num_tokens", "max_req_input_len"),
    }
)


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the client reports it.

    Throughput is in tokens a second, input and output; times are in milliseconds.
    ``lengths`` is a digest of every request's lengths, in order: equal on both arms
    when their work was. ``faults`` says why the run proves nothing; none, and it may
    be compared.
    """

    point: Point
    tag: Tag | None
    completed: int
    input_tokens: int
    output_tokens: int
    duration_s: float
    throughput: float
    output_throughput: float
    median_tpot_ms: float
    median_ttft_ms: float
    p99_ttft_ms: float
    lengths: str | None
    client: dict[str, str]
    server: dict[str, str]
    faults: tuple[str, ...]


class _Line(msgspec.Struct):
    """The members that every release from 0.5.10 on writes, and that are needed."""

    dataset_name: str
    backend: str
    random_input_len: int
    random_output_len: int
    random_range_ratio: float
    max_concurrency: int | None
    request_rate: float | Literal["trace"]
    completed: int
    duration: float
    total_input_tokens: int
    total_output_tokens: int
    total_throughput: float
    output_throughput: float
    median_tpot_ms: float
    median_ttft_ms: float
    p99_ttft_ms: float
    tag: str | None = None
    server_info: dict[str, Any] | None = None
    accept_length: float | None = None
    # With --output-details.
    input_lens: list[int] | None = None
    output_lens: list[int] | None = None
    ttfts: list[float] | None = None
    errors: list[str | None] | None = None


def read(path: Path) -> tuple[Measurement, ...]:
    """Every run in a file. Raises InputError, EnvironmentFailure."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text") from error
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]
    if not lines:
        raise InputError(f"{path}: no run in it")
    return tuple(_measurement(line, f"{path}:{number}") for number, line in lines)


def _measurement(text: str, where: str) -> Measurement:
    try:
        # Not msgspec's: a request rate of infinity and means of nothing are written as
        # Infinity and NaN, which are not JSON.
        line = msgspec.convert(json.loads(text), _Line)
        return _read(line)
    # Numbers too long for Python, too large for a float, tables nested too deeply.
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{where}: not a line of sglang.bench_serving: {error}"
        ) from error


def _read(line: _Line) -> Measurement:
    concurrency = line.max_concurrency or 0
    return Measurement(
        point=Point(line.random_input_len, line.random_output_len, concurrency),
        tag=_tag(line.tag),
        completed=line.completed,
        input_tokens=line.total_input_tokens,
        output_tokens=line.total_output_tokens,
        duration_s=_finite(line.duration),
        throughput=_finite(line.total_throughput),
        output_throughput=_finite(line.output_throughput),
        median_tpot_ms=_finite(line.median_tpot_ms),
        median_ttft_ms=_finite(line.median_ttft_ms),
        p99_ttft_ms=_finite(line.p99_ttft_ms),
        lengths=_lengths(line),
        client={
            "backend": line.backend,
            "dataset": line.dataset_name,
            "range ratio": f"{line.random_range_ratio:g}",
            "request rate": str(line.request_rate),
        },
        server={
            name: json.dumps(value, sort_keys=True)
            for name, value in sorted((line.server_info or {}).items())
            if name not in VOLATILE
        },
        faults=tuple(_faults(line)),
    )


def _finite(value: float) -> float:
    """JSON has no other number; one that is not finite is a fault, and told there."""
    return value if math.isfinite(value) else 0.0


def _tag(text: str | None) -> Tag | None:
    try:
        return from_json(text or "", Tag)
    except msgspec.DecodeError:
        return None


def _lengths(line: _Line) -> str | None:
    if line.input_lens is None or line.output_lens is None:
        return None
    data = json.dumps([line.input_lens, line.output_lens]).encode()
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _faults(line: _Line) -> list[str]:
    found = []
    what = _tag(line.tag)
    asked = what.num_prompts if what else None
    if line.errors is not None:
        if asked is not None and asked != len(line.errors):
            found.append(f"its tag says {asked} prompts, it sent {len(line.errors)}")
        asked = len(line.errors)
        details = (line.input_lens, line.output_lens, line.ttfts)
        if any(one is None or len(one) != asked for one in details):
            found.append("its details are not of every request")
    if asked is None:
        found.append("it does not say how many prompts were sent")
    elif line.completed != asked:
        found.append(f"{line.completed} of {asked} requests completed")
    silent = sum(ttft <= 0 for ttft in line.ttfts or ())
    failed = sum(bool(error) for error in line.errors or ())
    if silent > failed:
        found.append(f"{silent - failed} requests were answered without a token")
    found += _outside(line)
    if what and not (what.flush_cache and what.tokenize_prompt):
        found.append("the cache was not flushed, or prompts were sent as text")
    if line.dataset_name != "random-ids":
        found.append(f"its prompts are of {line.dataset_name}, not random token ids")
    if line.random_range_ratio != RANGE_RATIO:
        found.append(f"its range ratio is {line.random_range_ratio:g}")
    if line.request_rate != math.inf:
        found.append(f"its request rate is limited: {line.request_rate}")
    if not line.max_concurrency:
        found.append("its concurrency is not limited")
    figures = {
        "throughput": line.total_throughput,
        "output throughput": line.output_throughput,
        "median TPOT": line.median_tpot_ms,
        "median TTFT": line.median_ttft_ms,
        "P99 TTFT": line.p99_ttft_ms,
        "duration": line.duration,
    }
    found += [
        f"its {name} is {value}"
        for name, value in figures.items()
        if not (math.isfinite(value) and value > 0)
    ]
    return found


def _outside(line: _Line) -> list[str]:
    """Lengths out of the range that was asked for: stopped early, or not as sent."""
    found = []
    for name, lengths, most in (
        ("input", line.input_lens, line.random_input_len),
        ("output", line.output_lens, line.random_output_len),
    ):
        least = max(int(most * line.random_range_ratio), 1)
        bad = sum(not least <= length <= most for length in lengths or ())
        if bad:
            found.append(f"{bad} {name} lengths are not in {least}-{most} tokens")
    return found
