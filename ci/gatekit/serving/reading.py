"""Read the output of ``sglang.bench_serving``: one JSON line per run, of any release.

``gatekit.serving.line`` lists the fields and their units; a line without one is
rejected, naming the field. ``gatekit.serving.consistency`` decides whether a line
proves anything.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import msgspec

from gatekit.records.fields import Misfit, decoded_with_nan
from gatekit.serving.command import Tag
from gatekit.serving.consistency import faults
from gatekit.serving.line import FIELDS, Line
from gatekit.serving.points import Point
from overlaykit.core.digests import sha256
from overlaykit.core.documents import from_json
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError

_STEP = "give the client's own output (--output-file), unmodified"
# Server settings that differ between two starts of one command, or that describe its
# address and history rather than how it works.
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
    ``lengths`` is a digest of every request's lengths, in order: equal if both arms did
    the same work. ``faults`` lists why the run proves nothing; without any, it is
    comparable.
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
    faults: tuple[Finding, ...]


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
        raise InputError(f"{path}: contains no runs")
    return tuple(_measurement(path, number, line) for number, line in lines)


def _measurement(path: Path, number: int, text: str) -> Measurement:
    try:
        # Not a strict JSON decoder: the client writes an infinite request rate and
        # empty means as Infinity and NaN, which are not JSON.
        line = decoded_with_nan(text, Line, FIELDS)
        return _read(line, str(path), number)
    except Misfit as error:
        head = f"{path}:{number}: not a line of sglang.bench_serving"
        raise error.refusal(head, path, _STEP, number) from error
    # A count too large for a float.
    except (ValueError, OverflowError) as error:
        finding = Finding(str(error), str(path), number, next_step=_STEP)
        what = f"{path}:{number}: not a line of sglang.bench_serving: {error}"
        raise InputError(what, (finding,)) from error


def _read(line: Line, path: str, number: int) -> Measurement:
    tag = _tag(line.tag)
    concurrency = line.max_concurrency or 0
    return Measurement(
        point=Point(line.random_input_len, line.random_output_len, concurrency),
        tag=tag,
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
        faults=tuple(
            replace(fault, path=path, line=number) for fault in faults(line, tag)
        ),
    )


def _finite(value: float) -> float:
    """JSON cannot store other numbers; they are also reported as faults."""
    return value if math.isfinite(value) else 0.0


def _tag(text: str | None) -> Tag | None:
    try:
        return from_json(text or "", Tag)
    except msgspec.DecodeError:
        return None


def _lengths(line: Line) -> str | None:
    if line.input_lens is None or line.output_lens is None:
        return None
    return sha256(json.dumps([line.input_lens, line.output_lens]).encode())
