"""Check that the totals of a benchmark line match its details.

The client exits 0 and writes its line however many requests failed. It does not report
the number of requests, and counts a stream without tokens as a complete answer. A line
may also have been edited. Anything that it cannot prove, and any contradiction, is a
fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, median

from gatekit.serving.command import Tag
from gatekit.serving.line import DETAILS, Line
from gatekit.serving.points import RANGE_RATIO
from overlaykit.core.errors import Finding

# The client computes with the numbers that it writes, and writes all their digits.
_ROUNDING = 1e-6
# A request's latency is not written. It ends slightly after the last token: within this
# share of it, plus or minus so many seconds.
_LATENCY, _LESS_S, _MORE_S = 0.02, 0.005, 0.05

# The figures that are compared or shown.
_LABELS = {
    "total_throughput": "throughput",
    "output_throughput": "output throughput",
    "median_tpot_ms": "median TPOT",
    "median_ttft_ms": "median TTFT",
    "p99_ttft_ms": "P99 TTFT",
    "duration": "duration",
}


def faults(line: Line, tag: Tag | None) -> Iterator[Finding]:
    """The reasons why this line proves nothing. Without any, its run is comparable."""
    asked = tag.num_prompts if tag else None
    sent = len(line.errors) if line.errors is not None else None
    yield from _details(line)
    if sent is not None and asked is not None and asked != sent:
        what = f"its tag says {asked} prompts, but it sent {sent}"
        yield Finding(what, expected=f"{asked} errors", found=f"{sent} errors")
    asked = asked if sent is None else sent
    if asked is None:
        yield Finding(
            "the number of prompts is not recorded",
            expected='a "tag" from `bench.py run`, or "errors"',
            found="neither",
        )
    elif line.completed != asked:
        yield Finding(
            f"{line.completed} of {asked} requests completed",
            expected=f'"completed" {asked}',
            found=f'"completed" {line.completed}',
        )
    failed = [n for n, error in enumerate(line.errors or ()) if error]
    if sent is not None and line.completed != sent - len(failed):
        first = f", first errors[{failed[0]}]" if failed else ""
        yield Finding(
            f"{len(failed)} of {sent} requests have an error text{first}, but "
            f"{line.completed} completed",
            expected=f'"completed" {sent - len(failed)}',
            found=f'"completed" {line.completed}',
        )
    silent = sum(ttft == 0 for ttft in line.ttfts or ())
    if silent > len(failed):
        yield Finding(
            f"{silent - len(failed)} requests were answered without a token",
            expected='"ttfts" above 0 seconds',
            found=f"{silent} of 0",
        )
    yield from _outside(line)
    yield from _wrong_settings(line, tag)
    yield from _no_numbers(line)
    if math.isfinite(line.duration) and line.duration > 0:
        yield from _rates(line)
        if not failed and line.completed == sent and not any(_details(line)):
            yield from _totals(line)
            yield from _times(line)


def _details(line: Line) -> Iterator[Finding]:
    """The details must cover every request, and be finite numbers."""
    details = line.details
    if not details:
        return
    counts = {name: len(one) for name, one in details.items()}
    if set(DETAILS) - set(details) or len(set(counts.values())) > 1:
        has = [f"{name} {counts.get(name, 'missing')}" for name in DETAILS]
        has += [f"itls {counts['itls']}"] if "itls" in counts else []
        yield Finding(
            "its details do not cover every request",
            expected="as many input_lens, output_lens, ttfts and errors",
            found=", ".join(has),
        )
    numbers = {
        f"{name}[{n}]": value
        for name in ("input_lens", "output_lens", "ttfts")
        for n, value in enumerate(details.get(name, ()))
    }
    numbers |= {
        f"itls[{n}][{place}]": value
        for n, row in enumerate(line.itls or ())
        for place, value in enumerate(row)
    }
    bad = [name for name, value in numbers.items() if not 0 <= value < math.inf]
    if bad:
        more = f" ({len(bad)} such)" if len(bad) > 1 else ""
        yield Finding(
            f"its {bad[0]} is {numbers[bad[0]]}{more}",
            expected="a finite number, 0 or more",
            found=str(numbers[bad[0]]),
        )


def _outside(line: Line) -> Iterator[Finding]:
    """Lengths outside the requested range: stopped early, or tokenized differently."""
    for name, lengths, most in (
        ("input", line.input_lens, line.random_input_len),
        ("output", line.output_lens, line.random_output_len),
    ):
        least = max(int(most * line.random_range_ratio), 1)
        bad = [length for length in lengths or () if not least <= length <= most]
        if bad:
            yield Finding(
                f"{len(bad)} {name} lengths are outside {least}-{most} tokens",
                expected=f'"{name}_lens" in {least}-{most}',
                found=f"{bad[0]}",
            )


def _wrong_settings(line: Line, tag: Tag | None) -> Iterator[Finding]:
    """Settings that differ from the benchmark's own."""
    if tag and not (tag.flush_cache and tag.tokenize_prompt):
        yield Finding(
            "the cache was not flushed, or prompts were sent as text",
            expected="flush_cache and tokenize_prompt in its tag",
            found=f"{tag.flush_cache} and {tag.tokenize_prompt}",
        )
    if line.dataset_name != "random-ids":
        yield Finding(
            f"its prompts are {line.dataset_name}, not random token ids",
            expected='"dataset_name" random-ids',
            found=line.dataset_name,
        )
    if line.random_range_ratio != RANGE_RATIO:
        yield Finding(
            f"its range ratio is {line.random_range_ratio:g}",
            expected=f'"random_range_ratio" {RANGE_RATIO:g}',
            found=f"{line.random_range_ratio:g}",
        )
    if line.request_rate != math.inf:
        yield Finding(
            f"its request rate is limited: {line.request_rate}",
            expected='"request_rate" Infinity',
            found=str(line.request_rate),
        )
    if not line.max_concurrency or line.max_concurrency < 0:
        yield Finding(
            "its concurrency is not limited",
            expected='"max_concurrency" of 1 or more',
            found=str(line.max_concurrency),
        )


def _no_numbers(line: Line) -> Iterator[Finding]:
    for field, name in _LABELS.items():
        value = getattr(line, field)
        if not (math.isfinite(value) and value > 0):
            yield Finding(
                f"its {name} is {value}",
                expected=f'"{field}" a finite number above 0',
                found=str(value),
            )
    for field in ("total_input_tokens", "total_output_tokens", "completed"):
        if (count := getattr(line, field)) < 1:
            yield Finding(
                f"its {field} is {count}",
                expected=f'"{field}" of 1 or more',
                found=str(count),
            )


def _rates(line: Line) -> Iterator[Finding]:
    """Each throughput must be its count divided by the duration."""
    tokens = line.total_input_tokens + line.total_output_tokens
    for field, count in (
        ("total_throughput", tokens),
        ("output_throughput", line.total_output_tokens),
        ("input_throughput", line.total_input_tokens),
        ("request_throughput", line.completed),
    ):
        found = getattr(line, field)
        if found is not None and (field not in _LABELS or _is_number(found)):
            yield from _differs(field, count / line.duration, found)
    if _is_number(line.median_ttft_ms) and line.p99_ttft_ms < line.median_ttft_ms:
        yield Finding(
            "its p99_ttft_ms is below its median_ttft_ms",
            expected=f'"p99_ttft_ms" of {line.median_ttft_ms} or more',
            found=str(line.p99_ttft_ms),
        )


def _totals(line: Line) -> Iterator[Finding]:
    """The client's sums, means and percentiles must match the details."""
    for field, lengths in (
        ("total_input_tokens", line.input_lens),
        ("total_output_tokens", line.output_lens),
    ):
        total = sum(lengths or ())
        if getattr(line, field) != total:
            yield _unlike(field, str(total), str(getattr(line, field)))
    ttfts = sorted(line.ttfts or ())
    if not ttfts:
        return
    for field, seconds in (
        ("median_ttft_ms", median(ttfts)),
        ("p99_ttft_ms", _percentile(ttfts, 0.99)),
        ("mean_ttft_ms", fmean(ttfts)),
    ):
        found = getattr(line, field)
        if found is not None and (field not in _LABELS or _is_number(found)):
            yield from _differs(field, seconds * 1000, found)


def _times(line: Line) -> Iterator[Finding]:
    """No request may take longer than the run, nor all together longer than its slots
    allow."""
    requests = list(zip(line.ttfts or (), line.output_lens or (), strict=True))
    gaps = [sum(row) for row in line.itls] if line.itls else [0.0] * len(requests)
    took = [ttft + gap for (ttft, _), gap in zip(requests, gaps, strict=True)]
    room = line.duration * (1 + _ROUNDING)
    if took and max(took) > room:
        place = took.index(max(took))
        yield Finding(
            f"its request {place} took {max(took):.6g} s, longer than the whole run",
            expected=f'"duration" of {max(took):.6g} s or more',
            found=f"{line.duration:.6g} s",
        )
    slots = line.max_concurrency or len(took)
    if sum(took) > slots * room:
        yield Finding(
            f"its requests took {sum(took):.6g} s, more than {slots} at once can take "
            "within its duration",
            expected=f'"duration" of {sum(took) / max(slots, 1):.6g} s or more',
            found=f"{line.duration:.6g} s",
        )
    yield from _per_token(line, gaps)


def _per_token(line: Line, gaps: Sequence[float]) -> Iterator[Finding]:
    if not any(line.itls or ()):
        return
    lengths = line.output_lens or ()
    both = [(gap, n - 1) for gap, n in zip(gaps, lengths, strict=True) if n > 1]
    if not both or not _is_number(line.median_tpot_ms):
        return
    middle = median(gap / tokens for gap, tokens in both)
    tokens = median(tokens for _, tokens in both)
    least = middle * (1 - _LATENCY) - _LESS_S / tokens
    most = middle * (1 + _LATENCY) + _MORE_S / tokens
    if not least <= line.median_tpot_ms / 1000 <= most:
        expected = f"{1000 * max(least, 0):.6g} to {1000 * most:.6g}"
        yield _unlike("median_tpot_ms", expected, str(line.median_tpot_ms))


def _differs(field: str, expected: float, found: float) -> Iterator[Finding]:
    if not math.isclose(found, expected, rel_tol=_ROUNDING):
        yield _unlike(field, f"{expected:.9g}", f"{found:.9g}")


def _unlike(field: str, expected: str, found: str) -> Finding:
    return Finding(
        f"its {field} does not match its details: {found}, expected {expected}",
        expected=f'"{field}" {expected}',
        found=found,
    )


def _percentile(ordered: Sequence[float], part: float) -> float:
    """Linear interpolation, as in numpy."""
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _is_number(value: float) -> bool:
    """Values that are not numbers are reported elsewhere."""
    return math.isfinite(value) and value > 0
